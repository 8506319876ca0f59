// A real browser, and a page of another origin than the server's.
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { chromium } from "playwright-core";
import { URL_OF_SERVER, connect } from "../node/kit.mjs";

export const client = connect();
let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    // Nothing leaves the machine; the sandbox does not work for root.
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"].concat(
      ["--disable-component-update", "--disable-sync"],
    ),
  });
});
after(() => browser?.close());

/** Open a page in a profile of its own, do *what*, and see that the page had nothing to complain about. */
export async function visit(name, options, what) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const complaints = [];
  const requests = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => message.type() === "error" && complaints.push(`${message.text()} ${message.location().url}`));
  page.on("request", (request) => requests.push(request));
  const frames = [];
  page.on("websocket", (socket) => {
    socket.on("framesent", (frame) => frames.push(`> ${frame.payload}`));
    socket.on("framereceived", (frame) => frames.push(`< ${frame.payload}`));
  });
  await page.goto(`${process.env.PAGES}/${name}.html?${new URLSearchParams({ api: URL_OF_SERVER, ...options })}`);
  try {
    await what(new Chat(page, requests));
  } catch (error) {
    throw new Error(`${error.message}\nThe page:\n${await page.locator("body").innerText()}\n${[...complaints, ...frames].join("\n")}`);
  }
  await context.close();
  return complaints;
}

/** The same, for a page that must not complain. */
export async function quietly(name, options, what) {
  assert.deepEqual(await visit(name, options, what), []);
}

class Chat {
  constructor(page, requests) {
    this.page = page;
    this.requests = requests;
  }
  async send(text) {
    await this.page.getByLabel("message").fill(text);
    await this.page.getByRole("button", { name: "Send" }).click();
  }
  click(name) {
    return this.page.getByRole("button", { name }).click();
  }
  /** Wait for a message of the agent that is exactly *text*. */
  said(text) {
    return this.page.locator('li[data-type="ai"] span').getByText(text, { exact: true }).waitFor();
  }
  status(text) {
    return this.page.getByRole("status").getByText(text).waitFor();
  }
  texts() {
    return this.page.locator("li span").allInnerTexts();
  }
  get threadId() {
    return new URL(this.page.url()).searchParams.get("thread");
  }
  async runs() {
    return client.runs.list(this.threadId, { limit: 100 });
  }
}

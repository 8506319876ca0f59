// Builds the console into src/runlane/console, or with --check compares it with what is there, byte for byte.
import { gzipSync } from "node:zlib";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TARGET = join(HERE, "../src/runlane/console");
/** Bytes after gzip. Source: docs/benchmarks.md, the console's payload. */
const WHOLE_LIMIT = 100_000;
const FIRST_PAGE_LIMIT = 40_000;

const { outputFiles, metafile } = await build({
  absWorkingDir: HERE,
  entryPoints: { app: "src/main.tsx", style: "src/style.css" },
  outdir: TARGET,
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  legalComments: "none",
  entryNames: "[name]",
  chunkNames: "[name]-[hash]",
  metafile: true,
  write: false,
});
const files = new Map(outputFiles.map((file) => [file.path.slice(TARGET.length + 1), Buffer.from(file.contents)]));
for (const name of ["index.html", "icon.svg"]) files.set(name, await readFile(join(HERE, "src", name)));

const packed = new Map([...files].map(([name, content]) => [name, gzipSync(content, { level: 9 }).length]));
const sum = (names) => [...names].reduce((size, name) => size + packed.get(name), 0);
const whole = sum(files.keys());
const first = sum(firstPage());
const sizes = `${whole} bytes gzipped in all, ${first} for the first page`;
if (whole > WHOLE_LIMIT || first > FIRST_PAGE_LIMIT) {
  console.error(`console: too large: ${sizes}; the limits are ${WHOLE_LIMIT} and ${FIRST_PAGE_LIMIT}`);
  process.exitCode = 1;
}
if (process.argv.includes("--check")) {
  const there = await readdir(TARGET);
  const differing = [];
  for (const name of new Set([...there, ...files.keys()])) {
    const built = files.get(name);
    if (!built || !there.includes(name) || !built.equals(await readFile(join(TARGET, name)))) differing.push(name);
  }
  if (differing.length) {
    console.error(`console: not what console/src builds: ${differing.sort().join(", ")}; run ./dev console`);
    process.exitCode = 1;
  }
} else {
  await rm(TARGET, { recursive: true, force: true });
  await mkdir(TARGET, { recursive: true });
  for (const [name, content] of files) await writeFile(join(TARGET, name), content);
}
console.log(`console: ${sizes}`);

/** The files that Overview needs: the page, what it imports at once, and the page's own part. */
function firstPage() {
  const outputs = new Map(Object.entries(metafile.outputs).map(([path, output]) => [path.split("/").pop(), output]));
  const found = new Set(["index.html", "icon.svg", "style.css"]);
  const add = (name) => {
    if (found.has(name)) return;
    found.add(name);
    for (const one of outputs.get(name).imports) if (one.kind === "import-statement") add(one.path.split("/").pop());
  };
  add("app.js");
  for (const [name, output] of outputs) if (output.entryPoint?.endsWith("pages/overview.tsx")) add(name);
  return found;
}

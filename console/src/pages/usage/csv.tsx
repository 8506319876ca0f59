import type { Amounts, Total } from "../../lib/operator";
import { Button } from "../../lib/ui";
import type { Shown } from "./measures";

const COLUMNS = ["runs", "failed", "executing_s", "queued_s", "input_tokens", "output_tokens", "total_tokens", "cost"] as const;

/** Save what the page shows: a row for each name and day. */
export function Csv({ view, totals }: { view: Shown; totals: Total[] }) {
  const save = () => {
    const url = URL.createObjectURL(new Blob([csvOf(view.by, totals)], { type: "text/csv" }));
    const link = Object.assign(document.createElement("a"), { href: url, download: `usage-by-${view.by}-${view.since}-${view.until}.csv` });
    link.click();
    URL.revokeObjectURL(url);
  };
  return <Button onClick={save}>CSV</Button>;
}

export function csvOf(by: string, totals: Total[]): string {
  const rows = totals.flatMap((total) => {
    const days: [string, Amounts][] = Object.entries(total.days);
    const [name, each] = by === "day" ? [[], [[total.name, total] as [string, Amounts]]] : [[total.name], days];
    return each.map(([day, amounts]) => [...name, day, ...COLUMNS.map((column) => amounts[column] ?? "")]);
  });
  const head = [...(by === "day" ? [] : [by]), "day", ...COLUMNS];
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** Quoted where it has to be; a spreadsheet takes a text that begins like a formula for one, so it gets an apostrophe. */
function cell(value: string | number): string {
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

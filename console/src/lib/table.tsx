/** A dense table of things that have pages: `j` and `k` move, `Enter` opens, `x` selects. Cards at 375 px. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useKeys } from "./keys";

export interface Column<T> {
  name: string;
  cell: (row: T) => ComponentChildren;
  /** Numbers and lengths of time stand at the right. */
  end?: boolean;
  /** Left out where there is little room. */
  wide?: boolean;
}

/** What has nothing to show for the rows that there are is `false`. */
export type Columns<T> = readonly (Column<T> | false)[];

interface TableProps<T> {
  label: string;
  rows: T[];
  id: (row: T) => string;
  columns: Columns<T>;
  /** Where a row leads. */
  open?: (row: T) => string | undefined;
  selected?: ReadonlySet<string>;
  onSelect?: (selected: ReadonlySet<string>) => void;
}

export function Table<T>({ label, rows, id, columns: given, open, selected, onSelect }: TableProps<T>) {
  const columns = given.filter((one) => one !== false);
  const [at, setAt] = useState(-1);
  const body = useRef<HTMLTableSectionElement>(null);
  const move = (by: number) => setAt((was) => Math.max(0, Math.min(rows.length - 1, was + by)));
  useEffect(() => {
    body.current?.querySelector<HTMLElement>(`tr:nth-child(${at + 1})`)?.focus();
  }, [at]);
  useKeys(
    [
      { press: "j", does: "Next row", run: () => move(1) },
      { press: "k", does: "Previous row", run: () => move(-1) },
    ],
    [rows.length],
  );
  const toggle = (row: T) => {
    const next = new Set(selected);
    if (!next.delete(id(row))) next.add(id(row));
    onSelect?.(next);
  };
  const onKey = (event: KeyboardEvent, row: T) => {
    if (event.target !== event.currentTarget) return;
    const place = open?.(row);
    if (event.key === "Enter" && place) location.hash = place;
    if (event.key === "x" && onSelect) toggle(row);
  };
  const all = rows.length > 0 && rows.every((row) => selected?.has(id(row)));
  return (
    <div class="table" role="region" aria-label={label} tabIndex={0}>
      <table>
        <thead>
          <tr>
            {onSelect && (
              <th scope="col" class="select">
                <input
                  type="checkbox"
                  aria-label="Select all rows"
                  checked={all}
                  onChange={() => onSelect(all ? new Set() : new Set(rows.map(id)))}
                />
              </th>
            )}
            {columns.map((column) => (
              <th key={column.name} scope="col" class={classOf(column)}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body}>
          {rows.map((row, index) => (
            <tr
              key={id(row)}
              tabIndex={-1}
              aria-selected={onSelect ? (selected?.has(id(row)) ?? false) : undefined}
              onFocus={() => setAt(index)}
              onKeyDown={(event) => onKey(event, row)}
            >
              {onSelect && (
                <td class="select">
                  <input
                    type="checkbox"
                    aria-label={`Select ${id(row)}`}
                    checked={selected?.has(id(row)) ?? false}
                    onChange={() => toggle(row)}
                  />
                </td>
              )}
              {columns.map((column) => (
                <td key={column.name} class={classOf(column)} data-name={column.name}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function classOf<T>({ end, wide }: Column<T>): string | undefined {
  return [end && "end", wide && "wide"].filter(Boolean).join(" ") || undefined;
}

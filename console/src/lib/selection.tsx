/** What can be done with the rows that are selected, at the bottom of the window. */
import type { ComponentChildren } from "preact";
import { plural } from "./format";

interface SelectionProps {
  count: number;
  one: string;
  onClear: () => void;
  children: ComponentChildren;
}

export function Selection({ count, one, onClear, children }: SelectionProps) {
  if (!count) return null;
  return (
    <div class="bulk" role="region" aria-label="Selection">
      <span>{plural(count, one)} selected</span>
      {children}
      <button type="button" class="more" onClick={onClear}>
        Clear
      </button>
    </div>
  );
}

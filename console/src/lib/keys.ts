/** The keyboard: one listener, and a list of what each key does for the help. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";

export interface Key {
  /** As `KeyboardEvent.key`, or two in a row: `g r`. */
  press: string;
  does: string;
  run: (event: KeyboardEvent) => void;
}

export const keys = signal<readonly Key[]>([]);
const SEQUENCE_MS = 1_000;
let first: { key: string; at: number } | null = null;

/** Offer *given* while the component is shown. */
export function useKeys(given: Key[], deps: unknown[]): void {
  useEffect(() => {
    keys.value = [...keys.peek(), ...given];
    return () => {
      keys.value = keys.peek().filter((one) => !given.includes(one));
    };
  }, deps);
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.metaKey || (isTyping(event.target) && !event.ctrlKey)) return;
  if (document.querySelector("dialog[open]")) return;
  const pressed = event.ctrlKey ? `Ctrl ${event.key.toLowerCase()}` : event.key;
  const both = first && Date.now() - first.at < SEQUENCE_MS ? `${first.key} ${pressed}` : null;
  // What was added last is the innermost part of the page.
  const found = keys.value.findLast((one) => one.press === both) ?? keys.value.findLast((one) => one.press === pressed);
  first = found ? null : { key: pressed, at: Date.now() };
  if (!found) return;
  event.preventDefault();
  found.run(event);
});

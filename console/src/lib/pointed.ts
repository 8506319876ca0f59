/** The chip that is pointed at, which has a card after a while. */
import { signal } from "@preact/signals";

/** Long enough for a pointer that only passes; short enough for one that goes over to the card. */
const SOON_MS = 400;
const LATE_MS = 200;

interface Pointed {
  kind: string;
  id: string;
  at: DOMRect;
}

export const pointed = signal<Pointed | undefined>(undefined);
let timer = 0;

function later(ms: number, value: Pointed | undefined): void {
  stay();
  timer = setTimeout(() => (pointed.value = value), ms);
}

export const stay = (): void => clearTimeout(timer);
export const leave = (): void => later(LATE_MS, undefined);
export function hide(): void {
  stay();
  pointed.value = undefined;
}

/** Return the handlers of a chip that has a card. */
export function withCard(kind: string, id: string) {
  const show = ({ currentTarget }: { currentTarget: Element }) => later(SOON_MS, { kind, id, at: currentTarget.getBoundingClientRect() });
  return { onMouseEnter: show, onMouseLeave: leave, onFocusCapture: show, onBlurCapture: leave };
}

/** A list of very many rows of one height, of which only those in view are there. It stays at its end if it was there. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

interface VirtualProps {
  label: string;
  count: number;
  height: number;
  /** What is in the row *at*. */
  row: (at: number) => ComponentChildren;
  /** A row that has to be in view. */
  reveal?: number;
}

const BEYOND = 8;
/** Higher lists than this are not laid out by every browser. */
const HIGHEST = 15_000_000;

export function Virtual({ label, count, height, row, reveal }: VirtualProps) {
  const box = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const [view, setView] = useState({ top: 0, rows: 30 });
  const most = Math.floor(HIGHEST / height);
  const skipped = Math.max(0, count - most);
  const look = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current!;
    atEnd.current = scrollTop + clientHeight >= scrollHeight - height;
    const top = Math.floor(scrollTop / height);
    const rows = Math.ceil(clientHeight / height);
    setView((was) => (was.top === top && was.rows === rows ? was : { top, rows }));
  };
  useLayoutEffect(() => {
    if (atEnd.current && reveal === undefined) box.current!.scrollTop = box.current!.scrollHeight;
    look();
  }, [count]);
  useLayoutEffect(() => {
    if (reveal === undefined) return;
    const at = (reveal - skipped) * height;
    const { scrollTop, clientHeight } = box.current!;
    if (at < scrollTop || at + height > scrollTop + clientHeight) box.current!.scrollTop = at - clientHeight / 2;
    look();
  }, [reveal]);
  const first = Math.max(0, view.top - BEYOND);
  const last = Math.min(count - skipped, view.top + view.rows + BEYOND);
  // Elements are used again: a jump changes their text, a small move changes few of them.
  const slots = view.rows + 2 * BEYOND + 1;
  return (
    <div ref={box} class="virtual" role="list" aria-label={label} tabIndex={0} onScroll={look}>
      <div class="virtual-all" style={{ height: `${(count - skipped) * height}px` }}>
        {Array.from({ length: Math.max(0, last - first) }, (_, at) => (
          <div key={(first + at) % slots} class="virtual-row" role="listitem" style={{ top: `${(first + at) * height}px`, height: `${height}px` }}>
            {row(skipped + first + at)}
          </div>
        ))}
      </div>
    </div>
  );
}

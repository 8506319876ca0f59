/** The command palette: every page and every action of this page, by a few letters of its name. */
import { useState } from "preact/hooks";
import { find } from "./lib/find";
import { offered } from "./frame";
import { keys } from "./lib/keys";
import { go } from "./lib/route";
import { Dialog } from "./lib/ui";

interface Command {
  does: string;
  press?: string;
  run: () => void;
}

export function Palette({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const found = commands(text);
  const run = (command: Command | undefined) => {
    onClose();
    command?.run();
  };
  return (
    <Dialog title="Go to, or do" onClose={onClose}>
      <input
        type="text"
        role="combobox"
        aria-expanded="true"
        aria-controls="palette-found"
        aria-activedescendant={found.length ? `palette-${at}` : undefined}
        aria-label="Page or action"
        autoFocus
        value={text}
        onInput={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt(Math.min(found.length - 1, at + 1));
          if (event.key === "ArrowUp") setAt(Math.max(0, at - 1));
          if (event.key === "Enter") run(found[at]);
        }}
      />
      <ul id="palette-found" role="listbox" aria-label="Found" class="palette">
        {found.map((command, index) => (
          <li
            key={command.does}
            id={`palette-${index}`}
            role="option"
            aria-selected={index === at}
            onClick={() => run(command)}
          >
            {command.does} {command.press && <kbd>{command.press}</kbd>}
          </li>
        ))}
      </ul>
    </Dialog>
  );
}

function commands(text: string): Command[] {
  const pages = offered().map((page) => ({ does: page.title, press: page.key && `g ${page.key}`, run: () => go([page.name]) }));
  const actions = keys.value
    .filter((key) => !key.press.startsWith("g ") && key.press.length > 1)
    .map((key) => ({ does: key.does, press: key.press, run: () => key.run(new KeyboardEvent("keydown")) }));
  const wanted = text.trim().toLowerCase();
  const all: Command[] = [...pages, ...actions].filter((command) => command.does.toLowerCase().includes(wanted));
  return wanted ? [...all, { does: `Find “${text.trim()}”`, run: () => void find(text.trim()) }] : all;
}

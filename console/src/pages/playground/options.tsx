/** How a run is started, for those who want it otherwise. */
import { useId } from "preact/hooks";
import type { Options } from "./start";

const CHOICES: { [K in "multitask_strategy" | "durability"]: [string, Options[K][]] } = {
  multitask_strategy: ["If the thread is busy", ["enqueue", "reject", "interrupt", "rollback"]],
  durability: ["Durability", ["async", "sync", "exit"]],
};
const TEXTS: ["interrupt_before" | "interrupt_after", string][] = [
  ["interrupt_before", "Pause before nodes"],
  ["interrupt_after", "Pause after nodes"],
];

export function OptionFields({ options, onChange }: { options: Options; onChange: (options: Options) => void }) {
  const id = useId();
  return (
    <details>
      <summary>Options</summary>
      {Object.entries(CHOICES).map(([name, [label, values]]) => (
        <div key={name} class="field">
          <label for={`${id}-${name}`}>{label}</label>
          <select
            id={`${id}-${name}`}
            value={options[name as keyof Options]}
            onChange={(event) => onChange({ ...options, [name]: event.currentTarget.value })}
          >
            {values.map((value) => (
              <option key={value}>{value}</option>
            ))}
          </select>
        </div>
      ))}
      {TEXTS.map(([name, label]) => (
        <div key={name} class="field">
          <label for={`${id}-${name}`}>{label}</label>
          <input
            id={`${id}-${name}`}
            placeholder="names, or *"
            value={options[name]}
            onInput={(event) => onChange({ ...options, [name]: event.currentTarget.value })}
          />
        </div>
      ))}
    </details>
  );
}

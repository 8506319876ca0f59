/** The settings of the process that answers, and where each came from. Secrets are never shown. */
import { get } from "../lib/api";
import { Choice } from "../lib/fields";
import { plural } from "../lib/format";
import { useLive } from "../lib/live";
import { place } from "../lib/route";
import { me } from "../lib/session";
import { Table } from "../lib/table";
import { Copy, Facts, Head, Loaded } from "../lib/ui";

interface Setting {
  name: string;
  value: string | number | boolean | null;
  default: string | number | boolean | null;
  secret: boolean;
  source: string;
  variable: string;
}

interface Info {
  version: string;
  langgraph_py_version: string;
}

export default function Settings() {
  const live = useLive((stop) => get<{ settings: Setting[] }>("/operator/settings", {}, stop), [], null);
  const info = useLive((stop) => get<Info>("/info", {}, stop), [], null);
  const { from, setting } = place.value.query;
  return (
    <>
      <Head title="Settings" live={live} sentence={live.data && sentence(live.data.settings)} />
      {info.data && (
        <Facts
          facts={[
            ["Runlane", info.data.version],
            ["LangGraph", info.data.langgraph_py_version],
            ["You are", me.value?.identity ?? "not asked who you are"],
            ["Your scopes", me.value?.identity && me.value.scopes.join(", ")],
          ]}
        />
      )}
      <div class="filters section">
        <Choice
          name="from"
          label="Shown"
          options={[
            ["", "all"],
            ["set", "those that somebody set"],
          ]}
        />
      </div>
      <Loaded live={live}>
        {({ settings }) => (
          <Table
            label="Settings"
            rows={settings.filter((one) => setting === one.name || (!setting && (from !== "set" || one.source !== "default")))}
            id={(one) => one.name}
            columns={[
              { name: "Setting", cell: (one) => <span class="mono">{one.name}</span> },
              { name: "Value", cell: (one) => <Value setting={one} /> },
              { name: "From", cell: (one) => one.source },
              { name: "Default", cell: (one) => <span class="quiet">{text(one.default)}</span>, wide: true },
              {
                name: "Variable",
                cell: (one) => (
                  <span>
                    <code>{one.variable}</code> <Copy text={one.variable} what={one.variable} />
                  </span>
                ),
                wide: true,
              },
            ]}
          />
        )}
      </Loaded>
      {setting && <a href="#/settings">All settings</a>}
    </>
  );
}

function Value({ setting }: { setting: Setting }) {
  if (setting.secret) return <span class="quiet">a secret, which is not shown</span>;
  return <bdi class={setting.source === "default" ? undefined : "changed"}>{text(setting.value)}</bdi>;
}

const text = (value: Setting["value"]): string => (value === null || value === "" ? "–" : String(value));

function sentence(settings: Setting[]): string {
  const set = settings.filter((one) => one.source !== "default").length;
  return `${plural(set, "setting differs", "settings differ")} from the defaults or ${set === 1 ? "was" : "were"} given; these are of the process that answers.`;
}

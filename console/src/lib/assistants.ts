/** What assistants are called. */
import { useMemo } from "preact/hooks";
import { send } from "./api";
import { useLive } from "./live";
import { withoutPayload } from "./runs";

interface Named {
  assistant_id: string;
  name: string | null;
}

/** As many as the server gives at once; others are shown by their ids. */
const MOST = 1_000;

/** Return the names of assistants by their ids, as far as the viewer may see them. */
export function useAssistantNames(): ReadonlyMap<string, string> {
  const body = { limit: MOST, select: ["assistant_id", "name"] };
  const live = useLive((stop) => send<Named[]>("POST", "/assistants/search", { body, headers: withoutPayload(), signal: stop }), [], null);
  return useMemo(() => new Map((live.data ?? []).flatMap((one) => (one.name ? [[one.assistant_id, one.name]] : []))), [live.data]);
}

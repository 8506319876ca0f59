/** What the pages read of assistants. */
import { ApiError, get, path, post } from "../../lib/api";
import type { Query } from "../../lib/route";
import { seesPayload } from "../../lib/session";

export interface Assistant {
  assistant_id: string;
  graph_id: string;
  config: Record<string, unknown>;
  context: Record<string, unknown>;
  metadata: Record<string, unknown>;
  name: string;
  description: string | null;
  version: number;
  created_at: string;
  updated_at: string;
}

/** Whether the server made it for a graph, so that nobody changes it. */
export const isSystem = ({ metadata, name, graph_id }: Assistant): boolean =>
  seesPayload.value ? metadata["created_by"] === "system" : name === graph_id; // then metadata is hidden

export async function readAssistants(query: Query, limit: number, stop: AbortSignal): Promise<Assistant[]> {
  const filter = { graph_id: query["graph"], name: query["name"] };
  return post<Assistant[]>("/assistants/search", { ...filter, limit, sort_by: "updated_at", sort_order: "desc" }, stop);
}

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Return the assistant with this id, or the one of the graph of this name; `null` if there is none to see. */
export async function readAssistant(id: string, stop: AbortSignal): Promise<Assistant | null> {
  if (!ID.test(id)) return (await readAssistants({ graph: id }, 100, stop)).find(isSystem) ?? null;
  try {
    return await get<Assistant>(path("/assistants/{}", id), {}, stop);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

/** Find what somebody typed or pasted: the id of a run or a thread, or text of runs. */
import { ApiError, get, path } from "./api";
import { go } from "./route";

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export async function find(text: string): Promise<void> {
  if (!ID.test(text)) return go(["runs"], { text });
  if (await exists(path("/runs/{}", text))) return go(["run", text]);
  if (await exists(path("/threads/{}", text))) return go(["thread", text]);
  go(["runs"], { text });
}

async function exists(route: string): Promise<boolean> {
  try {
    await get(route);
    return true;
  } catch (error) {
    if (error instanceof ApiError && [404, 422].includes(error.status)) return false;
    throw error;
  }
}

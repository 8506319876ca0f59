// Pages that are read as one part: less is sent than for each alone.
export { default as inbox } from "../pages/inbox";
export { default as playground } from "../pages/playground";
export { default as runs } from "../pages/runs";
export { default as thread } from "../pages/thread";
export { default as threads } from "../pages/threads";

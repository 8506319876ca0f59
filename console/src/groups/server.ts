// Pages that are read as one part: less is sent than for each alone.
export { default as assistants } from "../pages/assistants";
export { default as audit } from "../pages/audit";
export { default as crons } from "../pages/crons";
export { default as doctor } from "../pages/doctor";
export { default as limits } from "../pages/limits";
export { default as settings } from "../pages/settings";
export { default as store } from "../pages/store";
export { default as usage } from "../pages/usage";
export { default as webhooks } from "../pages/webhooks";
export { default as workers } from "../pages/workers";

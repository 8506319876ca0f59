/** Pages of the server, which are loaded together. */
export { default as Audit } from "./audit";
export { default as Crons } from "./crons";
export { default as Doctor } from "./doctor";
export { default as Limits } from "./limits";
export { default as Settings } from "./settings";
export { default as Usage } from "./usage";
export { default as Webhooks } from "./webhooks";
export { default as Workers } from "./workers";

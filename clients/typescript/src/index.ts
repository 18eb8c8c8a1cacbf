export { OneBar } from "./client.js";
export type { Options, LookupOptions, NewEvent, Event, Answer, Lookup } from "./client.js";
export { OneBarError, BusyError, InvalidRequestError, NotAllowedError, UnreachableError } from "./errors.js";
export type { Fault, Problem } from "./errors.js";
export type { components, operations, paths } from "./schema.js";

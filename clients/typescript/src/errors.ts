import type { components } from "./schema.js";

/** What the server says of a refusal: RFC 9457, application/problem+json. */
export type Problem = components["schemas"]["Problem"];
/** One thing that is wrong with a request: an event by its index, or a parameter by its name. */
export type Fault = components["schemas"]["Fault"];

/** The root of every error that the client throws. */
export class OneBarError extends Error {
  override name = "OneBarError";

  constructor(
    message: string,
    readonly status?: number,
    readonly problem?: Problem,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }

  /** What is wrong, one by one, where the server told. */
  get faults(): readonly Fault[] {
    return this.problem?.errors ?? [];
  }
}

/** The server, or a proxy before it, has no room now: the same request may succeed later. */
export class BusyError extends OneBarError {
  override name = "BusyError";
}

/** The request is wrong, and would be again. */
export class InvalidRequestError extends OneBarError {
  override name = "InvalidRequestError";
}

/** The key is missing, wrong, or lacks the scope. */
export class NotAllowedError extends OneBarError {
  override name = "NotAllowedError";
}

/** No answer came, or none in time. */
export class UnreachableError extends OneBarError {
  override name = "UnreachableError";
}

// Retries as Istio has them: two by default, never on a host that has just failed.

import type { HTTPRetry } from "#objects";
import { durationMsOf } from "./duration.ts";
import { durationOf, typed, wrapped, type Message } from "./proto/api.ts";

export type RetrySettings = HTTPRetry;

const defaultRetryOn = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/** How often another host is looked for before a tried one is taken again. */
const hostSelectionMax = 5;

const otherHosts: readonly Message[] = [
  {
    name: "envoy.retry_host_predicates.previous_hosts",
    typedConfig: typed("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
  },
];

/**
 * `{ retryPolicy }` of a route action, or nothing when retries are off.
 * @param pinned requests are hashed to a host: another one would not do
 */
export function retryPolicy(settings: RetrySettings | undefined, pinned: boolean): Message {
  if (settings === undefined) {
    return {
      retryPolicy: {
        retryOn: defaultRetryOn,
        numRetries: wrapped(2),
        hostSelectionRetryMaxAttempts: hostSelectionMax,
        ...(pinned ? {} : { retryHostPredicate: otherHosts }),
      },
    };
  }
  if (settings.attempts === undefined || settings.attempts <= 0) return {};
  const elsewhere = settings.retryIgnorePreviousHosts ?? !pinned;
  return {
    retryPolicy: {
      ...conditions(settings.retryOn, defaultRetryOn),
      numRetries: wrapped(settings.attempts),
      hostSelectionRetryMaxAttempts: hostSelectionMax,
      ...(elsewhere ? { retryHostPredicate: otherHosts } : {}),
      ...(settings.perTryTimeout === undefined
        ? {}
        : { perTryTimeout: durationOf(durationMsOf(settings.perTryTimeout)) }),
      ...backOff(settings),
      ...(settings.retryRemoteLocalities === true ? { retryPriority: otherLocalities } : {}),
    },
  };
}

/**
 * The same towards the application itself, MeshConfig's `defaultInboundHttpRetryPolicy`: there is one host, so that nothing chooses
 * among hosts. By default only what has not reached the application is tried again.
 */
export function inboundRetryPolicy(settings: RetrySettings | undefined): Message {
  if (settings === undefined) return { retryPolicy: { retryOn: notSent, numRetries: wrapped(2) } };
  if (settings.attempts === undefined || settings.attempts <= 0) return {};
  return {
    retryPolicy: {
      ...conditions(settings.retryOn, notSent),
      numRetries: wrapped(settings.attempts),
      ...backOff(settings),
    },
  };
}

const notSent = "reset-before-request";

function backOff({ backoff }: RetrySettings): Message {
  return backoff === undefined ? {} : { retryBackOff: { baseInterval: durationOf(durationMsOf(backoff)) } };
}

const otherLocalities: Message = {
  name: "envoy.retry_priorities.previous_priorities",
  typedConfig: typed("envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", {
    updateFrequency: 2,
  }),
};

/** `retryOn` mixes Envoy's words with status codes: "connect-failure,503". */
function conditions(retryOn: string | undefined, byDefault: string): Message {
  const parts = (retryOn ?? "")
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
  if (parts.length === 0) return { retryOn: byDefault };
  const codes = parts.filter((part) => /^[1-5]\d\d$/.test(part)).map(Number);
  const words = parts.filter((part) => !/^\d+$/.test(part));
  if (codes.length > 0 && !words.includes("retriable-status-codes")) words.push("retriable-status-codes");
  return { retryOn: words.join(","), ...(codes.length === 0 ? {} : { retriableStatusCodes: codes }) };
}

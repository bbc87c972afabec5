// Every limit of the control plane: those of its rooms, and its own. docs/reference/limits.md is rendered from it, and each limit
// that is reached is counted under its name.

import type { Limit, ReachLimit } from "#base";
import { kubeLimits } from "#kube";
import { xdsLimits } from "#xds";

const ownLimits = {
  podWait: {
    value: 5_000,
    unit: "ms",
    of: "the wait of a proxy that connects for its Pod to become known",
    beyond: "the stream ends, and Envoy comes again",
  },
  secretReaders: {
    value: 10_000,
    unit: "",
    of: "service accounts that the API server is asked about, whether they may list Secrets",
    beyond: "further ones are not asked about: their workloads get no keys",
  },
  keySources: {
    value: 1_000,
    unit: "",
    of: "places of JWT keys that are fetched from",
    beyond: "further ones are left alone: their issuers' tokens are refused",
  },
  keysTime: {
    value: 5_000,
    unit: "ms",
    of: "a fetch of JWT keys",
    beyond: "it has failed; the keys from before stay in use",
  },
  keysBytes: {
    value: 1024 * 1024,
    unit: "bytes",
    of: "an answer with JWT keys",
    beyond: "it is refused; the keys from before stay in use",
  },
  keysRedirects: {
    value: 3,
    unit: "",
    of: "redirects of one fetch of JWT keys",
    beyond: "it has failed; the keys from before stay in use",
  },
  gatewayNames: {
    value: 100,
    unit: "",
    of: "names of other networks' gateways that are resolved",
    beyond: "further ones are left alone: their networks are reached by their other gateways, or directly",
  },
  gatewayAddresses: {
    value: 32,
    unit: "",
    of: "addresses of one such name",
    beyond: "the rest is left out",
  },
  moduleSources: {
    value: 1_000,
    unit: "",
    of: "places of Wasm modules that are fetched from",
    beyond: "further ones are not fetched: their extensions have no module",
  },
  moduleBytes: {
    value: 32 * 1024 * 1024,
    unit: "bytes",
    of: "a Wasm module, its layer of an image, and what that unpacks to; Envoy takes no larger answer",
    beyond: "it is refused; the module from before stays in use",
  },
  modulesBytes: {
    value: 256 * 1024 * 1024,
    unit: "bytes",
    of: "all Wasm modules that are kept for proxies",
    beyond: "a further one is refused; the module from before stays in use",
  },
  manifestBytes: {
    value: 4 * 1024 * 1024,
    unit: "bytes",
    of: "a manifest, an index or a token of a registry",
    beyond: "the fetch has failed; the module from before stays in use",
  },
  moduleTime: {
    value: 60_000,
    unit: "ms",
    of: "a fetch of a Wasm module, with all that a registry is asked for it",
    beyond: "it has failed; the module from before stays in use",
  },
  moduleRedirects: {
    value: 5,
    unit: "",
    of: "redirects of one request for a Wasm module",
    beyond: "the fetch has failed; the module from before stays in use",
  },
  firstModules: {
    value: 10_000,
    unit: "ms",
    of: "the wait of a control plane that starts for its first attempts to fetch Wasm modules",
    beyond: "it serves without: those not fetched yet count as failed until they are",
  },
  webhookBytes: {
    value: 7 * 1024 * 1024,
    unit: "bytes",
    of: "a request to a webhook: two copies of an object of the API server's own limit of 3 MiB",
    beyond: "it is answered 413",
  },
  monitoringTime: {
    value: 10_000,
    unit: "ms",
    of: "a request to port 15014",
    beyond: "the connection is closed",
  },
  objectsAtFault: {
    value: 5,
    unit: "",
    of: "objects that one rejection is written to: a listener can be made from dozens",
    beyond: "the rest is left out; EnvoyFilters come first",
  },
  eventPause: {
    value: 30_000,
    unit: "ms",
    of: "the time between two events about one object",
    beyond: "an event that would come sooner is left out; the status has it",
  },
  eventsRemembered: {
    value: 10_000,
    unit: "",
    of: "objects whose last event is remembered",
    beyond: "all are forgotten, and an event may be repeated",
  },
} as const satisfies Readonly<Record<string, Limit>>;

export type ControlLimit = keyof typeof ownLimits;
export type ReachControlLimit = ReachLimit<ControlLimit>;

/** The counter, with the limit's name as its label. */
export const limitsMetric = "pilot_limits_reached";

export const controlPlaneLimits = { ...xdsLimits, ...kubeLimits, ...ownLimits } as const;
export type ControlPlaneLimit = keyof typeof controlPlaneLimits;

const chapters: readonly (readonly [string, Readonly<Record<string, Limit>>])[] = [
  ["Proxies (xDS)", xdsLimits],
  ["The API server", kubeLimits],
  ["Webhooks, monitoring, reports", ownLimits],
];

/** The page of limits. */
export function renderLimits(): string {
  return [
    "# Limits of the control plane",
    "",
    "Rendered by `npm run generate -- limits` from the tables in the code; do not edit.",
    "",
    `Each time that a limit is reached, \`${limitsMetric}{limit="…"}\` on port 15014 counts it, unless another metric shows it.`,
    "",
    ...chapters.flatMap(([title, limits]) => [
      `## ${title}`,
      "",
      "| limit | value | of | beyond it | metric |",
      "|---|---|---|---|---|",
      ...Object.entries(limits).map(([name, limit]) => renderLimit(name, limit)),
      "",
    ]),
  ].join("\n");
}

function renderLimit(name: string, { value, unit, of, beyond, metric }: Limit): string {
  const shown = metric ?? `${limitsMetric}{limit="${name}"}`;
  return `| ${name} | ${renderValue(value, unit)} | ${of} | ${beyond} | \`${shown}\` |`;
}

function renderValue(value: number, unit: Limit["unit"]): string {
  if (unit === "ms") return `${value / 1_000} s`;
  if (unit === "bytes") return `${value / 1024 / 1024} MiB`;
  return value.toLocaleString("en-US");
}

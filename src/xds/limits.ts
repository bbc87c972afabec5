// Every limit of the xDS server, and what happens there. The table is rendered into docs/reference/limits.md; each time that a
// limit is reached is counted under its name.

import type { Limit, ReachLimit } from "#base";

export const xdsLimits = {
  connections: {
    value: 10_000,
    unit: "",
    of: "connections at a time",
    beyond: "new ones are closed at once, and Envoy comes again later",
  },
  handshake: {
    value: 10_000,
    unit: "ms",
    of: "a TLS handshake",
    beyond: "the connection is closed",
  },
  keepalive: {
    value: 30_000,
    unit: "ms",
    of: "the time between two pings of a connection, and the wait for the answer",
    beyond: "the connection is closed",
  },
  connectionStreams: {
    value: 32,
    unit: "",
    of: "calls at a time on one connection; a proxy needs two",
    beyond: "further ones end with RESOURCE_EXHAUSTED",
  },
  connectionDownloads: {
    value: 64,
    unit: "",
    of: "downloads of Wasm modules at a time on one connection: each filter of each listener asks for its own",
    beyond: "further ones are answered with 503, and Envoy asks again",
  },
  download: {
    value: 60_000,
    unit: "ms",
    of: "a download of a Wasm module",
    beyond: "it is reset, and Envoy asks again",
  },
  requestBytes: {
    value: 16 * 1024 * 1024,
    unit: "bytes",
    of: "one request message: a proxy with 50,000 names of 70 bytes stays below",
    beyond: "the call ends with RESOURCE_EXHAUSTED",
  },
  admissions: {
    value: 200,
    unit: "",
    of: "proxies that are being let in at a time (a token review takes a round trip)",
    beyond: "the stream ends with UNAVAILABLE, and Envoy comes again",
  },
  waitingRequests: {
    value: 64,
    unit: "",
    of: "requests that wait for one proxy's admission: one a type and a few more",
    beyond: "the stream ends with RESOURCE_EXHAUSTED",
  },
  subscribedNames: {
    value: 50_000,
    unit: "",
    of: "names that one proxy may subscribe to, for each type",
    beyond: "the stream ends with RESOURCE_EXHAUSTED",
  },
  responseBytes: {
    value: 4 * 1024 * 1024,
    unit: "bytes",
    of: "resources in one response; one resource may be larger",
    beyond: "the rest follows after the acknowledgement",
  },
  stuck: {
    value: 120_000,
    unit: "ms",
    of: "the wait for a proxy's answer to a response; one of each type is under way at most",
    beyond: "the stream ends with ABORTED, and the proxy comes again with what it holds",
  },
  ending: {
    value: 2_000,
    unit: "ms",
    of: "the wait for a proxy to read what was sent before its stream ended",
    beyond: "the stream is reset, and what is unread is thrown away",
  },
  canaryWait: {
    value: 1_000,
    unit: "ms",
    of: "the wait for the verdict of the first proxy of a view on a change",
    beyond: "another is asked",
  },
  canaryTries: {
    value: 3,
    unit: "",
    of: "proxies that are asked in vain",
    beyond: "the change goes to all the same: silence must not freeze a mesh",
  },
  newcomerWait: {
    value: 2_000,
    unit: "ms",
    of: "the wait of a newcomer's first answer for what others are still trying out",
    beyond: "it is answered without that",
  },
  // A proxy on a busy machine may take seconds, and a route to a cluster that it does not have yet is a failed request.
  orderWait: {
    value: 10_000,
    unit: "ms",
    of: "the wait of listeners and routes for the clusters that they may name to be taken",
    beyond: "they go all the same",
  },
  changeLog: {
    value: 4_096,
    unit: "",
    of: "changes that a view's log keeps, for each type",
    beyond: "a proxy that fell further behind is compared with everything that it may see",
  },
  pendingChanges: {
    value: 20_000,
    unit: "",
    of: "changes to different objects that wait for one batch",
    beyond: "the batch is taken at once",
  },
  batchPause: {
    value: 1_000,
    unit: "ms",
    of: "the pause after a batch, which is as long as the batch took",
    beyond: "the next batch begins, and publishing takes more than half of the time",
  },
  viewLinger: {
    value: 30_000,
    unit: "ms",
    of: "how long a view without proxies is kept up to date, for those that come back",
    beyond: "it is given up",
    metric: "pilot_views",
  },
  rejections: {
    value: 1_000,
    unit: "",
    of: "rejections that are kept for people to read",
    beyond: "the oldest is forgotten",
  },
} as const satisfies Readonly<Record<string, Limit>>;

export type XdsLimit = keyof typeof xdsLimits;
export type ReachXdsLimit = ReachLimit<XdsLimit>;

export const connectionsMax = xdsLimits.connections.value;
export const handshakeMs = xdsLimits.handshake.value;
export const keepaliveMs = xdsLimits.keepalive.value;
export const connectionStreamsMax = xdsLimits.connectionStreams.value;
export const connectionDownloadsMax = xdsLimits.connectionDownloads.value;
export const downloadMs = xdsLimits.download.value;
export const requestBytesMax = xdsLimits.requestBytes.value;
export const admissionsMax = xdsLimits.admissions.value;
export const waitingRequestsMax = xdsLimits.waitingRequests.value;
export const subscribedNamesMax = xdsLimits.subscribedNames.value;
export const responseBytesMax = xdsLimits.responseBytes.value;
export const stuckAfterMs = xdsLimits.stuck.value;
export const endingMs = xdsLimits.ending.value;
export const canaryWaitMs = xdsLimits.canaryWait.value;
export const canaryTriesMax = xdsLimits.canaryTries.value;
export const newcomerWaitMs = xdsLimits.newcomerWait.value;
export const orderWaitMs = xdsLimits.orderWait.value;
export const logLengthMax = xdsLimits.changeLog.value;
export const pendingChangesMax = xdsLimits.pendingChanges.value;
export const batchPauseMaxMs = xdsLimits.batchPause.value;
export const viewLingerMs = xdsLimits.viewLinger.value;
export const rejectionsKeptMax = xdsLimits.rejections.value;

// What bounds nothing, but is chosen:

/** How long after its rejection a resource is offered to the canary once more: what it clashed with may be gone. */
export const rejectedRetryMs = 60_000;

/** The shortest pause between two batches. */
export const batchPauseMinMs = 10;

/**
 * Once this many batches in a row have come within so short a time of one another, pauses are at least this long: at 50 changes a
 * second three of them share a batch, and so each proxy's response and acknowledgement.
 */
export const stormBatches = 3;
export const stormGapMs = 100;
export const batchPauseStormMs = 50;

/** The share of its time that publishing may take under a storm: after a batch of 30 ms comes a pause of 30 ms. */
export const batchPauseFactor = 1;

/** How long a connection lasts where there are other replicas to go to; ten per cent more or less, as in Istio. */
export const connectionAgeMs = 30 * 60_000;

/** How much more than its share of the proxies a replica may hold: so many times its share, and these few. */
export const shareFactorMax = 1.25;
export const shareSlack = 2;

/** The pause between two proxies that are let go to other replicas. */
export const letGoPauseMs = 500;

/** A proxy that has connected more lately than this is not let go. */
export const heldMinMs = 10_000;

/** How long the number of ready replicas has to be the same before proxies are let go. */
export const replicasSettleMs = 10_000;

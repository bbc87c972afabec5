// Every limit of the xDS server, and what happens there.

/** How many changes a type's log keeps. A session that fell further behind compares everything it may see instead. */
export const logLengthMax = 4_096;

/** Bytes of resources in one response; the rest follows after its acknowledgement. One resource may be larger. */
export const responseBytesMax = 4 * 1024 * 1024;

/** Names that one proxy may subscribe to, for each type. Beyond it the stream ends with RESOURCE_EXHAUSTED. */
export const subscribedNamesMax = 50_000;

/** How long the first proxy of a view has for its verdict on a change before another is asked. */
export const canaryWaitMs = 1_000;

/** How many proxies are asked in vain before a change goes to all the same: silence must not freeze a mesh. */
export const canaryTriesMax = 3;

/** How long after its rejection a resource is offered to the canary once more: what it clashed with may be gone. */
export const rejectedRetryMs = 60_000;

/** How long a newcomer's first answer waits for what others are still trying out. */
export const newcomerWaitMs = 2_000;

/** How long listeners and routes wait for the clusters that they may name to be taken; then they go all the same. */
export const orderWaitMs = 2_000;

/** An unacknowledged response after this time ends the stream (ABORTED); the proxy comes again with what it holds. */
export const stuckAfterMs = 120_000;

/** How long a view without proxies is kept up to date, for those that come back. */
export const viewLingerMs = 30_000;

/** Changes to different objects that may wait for one batch; beyond it the batch is taken at once. */
export const pendingChangesMax = 20_000;

/** The shortest and the longest pause between two batches. */
export const batchPauseMinMs = 10;
export const batchPauseMaxMs = 1_000;

/** The share of its time that publishing may take under a storm: after a batch of 30 ms comes a pause of 30 ms. */
export const batchPauseFactor = 1;

/** Rejections that are kept for people to read; the oldest goes first. */
export const rejectionsKeptMax = 1_000;

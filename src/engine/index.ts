export type { Index, Members, Query, Read, Source, Table } from "./source.ts";
export { defineKeyedQuery, defineQuery, defineTable, sameData } from "./source.ts";
export type { Change, Changed, Failure, Settled } from "./engine.ts";
export { Engine } from "./engine.ts";

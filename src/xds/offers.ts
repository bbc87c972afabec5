// What a view's plan offers: chunks whose entries go to those alone who ask for them by name.

import type { Chunk, Planned, ResourceType } from "#plan";
import type { LiveView } from "./view.ts";

/** Keeps in mind which names of a type are for everyone. Returns whether the view has just begun to offer others. */
export function offerNames(view: LiveView, type: ResourceType, chunks: readonly Chunk[]): boolean {
  const demand = view.demand(type);
  const wasOffering = demand.isOffering;
  demand.isOffering = chunks.some(({ onDemand }) => onDemand === true);
  if (!demand.isOffering) return false;
  const everyones = chunks.filter(({ onDemand }) => onDemand !== true).flatMap(({ entries }) => entries);
  view.setEveryones(type, new Set(everyones.map(({ name }) => name)));
  return !wasOffering;
}

/** The entries of a chunk that the view serves to anyone. */
export function concerned(view: LiveView, type: ResourceType, chunk: Chunk): readonly Planned[] {
  if (chunk.onDemand !== true) return chunk.entries;
  const demand = view.demand(type);
  return demand.size === 0 ? [] : chunk.entries.filter(({ name }) => demand.isAsked(name));
}

/** How a name is planned, if it is for everyone or asked for. */
export function plannedAs(
  view: LiveView,
  type: ResourceType,
  chunks: readonly Chunk[],
  name: string,
): Planned | undefined {
  for (const chunk of chunks) {
    if (chunk.onDemand === true && !view.demand(type).isAsked(name)) continue;
    const planned = entryOf(chunk, name);
    if (planned !== undefined) return planned;
  }
  return undefined;
}

export function isOfferedIn(chunks: readonly Chunk[], name: string): boolean {
  return chunks.some((chunk) => chunk.onDemand === true && entryOf(chunk, name) !== undefined);
}

/** Chunks never change, and views share them: each gets its index at the first look. */
const indexes = new WeakMap<Chunk, ReadonlyMap<string, Planned>>();

export function entryOf(chunk: Chunk, name: string): Planned | undefined {
  let index = indexes.get(chunk);
  if (index === undefined) {
    index = new Map(chunk.entries.map((planned) => [planned.name, planned]));
    indexes.set(chunk, index);
  }
  return index.get(name);
}

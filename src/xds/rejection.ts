// Finding the resource at fault after a rejection. Envoy rejects a response, and names in its message the resources that
// it did not take, mostly; where it does not, the response is sent again in halves until one resource is left.

import { likelierCauseFirst, renderRef } from "#base";
import type { SentResource } from "./subscription.ts";

/** The resources of a rejected response that are surely at fault: the only one, or those that the message names. */
export function culpritsOf(sent: ReadonlyMap<string, SentResource>, reason: string): string[] {
  if (sent.size === 1) return [...sent.keys()];
  const named = [...sent.keys()].filter((name) => isNamed(reason, name));
  // What the others have taken already is at fault only if nothing else can be.
  const onTrial = named.filter((name) => sent.get(name)?.trial !== undefined);
  return onTrial.length > 0 ? onTrial : named;
}

/** The part of a rejection's message that is about one resource: Envoy writes a line `<name>: <reason>` for each. */
export function reasonFor(name: string, reason: string): string {
  const line = reason.split("\n").find((one) => isNamed(one, name) && one.includes(`${name}: `));
  return line === undefined ? reason : line.slice(line.indexOf(`${name}: `) + name.length + 2);
}

/** A rejection in one line for people: what was rejected, why, and the objects that it is made from. */
export function renderRejection(
  culprits: readonly string[],
  sent: ReadonlyMap<string, SentResource>,
  reason: string,
): string {
  if (culprits.length === 0) return reason;
  const shown = culprits.slice(0, culpritsShownMax).map((name) => {
    const refs = (sent.get(name)?.resource.origins ?? []).map(({ object }) => object);
    const objects = [...new Set(refs.toSorted(likelierCauseFirst).map(renderRef))].slice(0, objectsShownMax);
    const from = objects.length === 0 ? "" : ` (from ${objects.join(", ")})`;
    return `${name}: ${reasonFor(name, reason)}${from}`;
  });
  const more = culprits.length - shown.length;
  return shown.join("; ") + (more === 0 ? "" : `; and ${more} more`);
}

const culpritsShownMax = 3;
const objectsShownMax = 4;

/**
 * Splits a rejected response: what others have taken already by itself, since it is hardly at fault, and the rest in
 * halves. A response of one resource is never split.
 */
export function halves(sent: ReadonlyMap<string, SentResource>): string[][] {
  const names = [...sent.keys()];
  const onTrial = names.filter((name) => sent.get(name)?.trial !== undefined);
  const others = names.filter((name) => sent.get(name)?.trial === undefined);
  const suspects = onTrial.length > 0 ? onTrial : others;
  const innocent = onTrial.length > 0 ? others : [];
  const middle = Math.ceil(suspects.length / 2);
  return [innocent, suspects.slice(0, middle), suspects.slice(middle)].filter((group) => group.length > 0);
}

/** Whether the message holds the name as a word of its own: `a.b` is not named by `x.a.b`. */
function isNamed(reason: string, name: string): boolean {
  for (let at = reason.indexOf(name); at >= 0; at = reason.indexOf(name, at + 1)) {
    const after = reason.slice(at + name.length, at + name.length + 2);
    if (!/[\w|.:-]$/.test(reason.slice(0, at)) && !/^([\w|-]|[.:]\w)/.test(after)) return true;
  }
  return false;
}

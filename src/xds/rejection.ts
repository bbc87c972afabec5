// Finding the resource at fault after a rejection. Envoy rejects a response, and names in its message the resources that
// it did not take, mostly; where it does not, the response is sent again in halves until one resource is left.

import type { SentResource } from "./subscription.ts";

/** The resources of a rejected response that are surely at fault: the only one, or those that the message names. */
export function culpritsOf(sent: ReadonlyMap<string, SentResource>, reason: string): string[] {
  if (sent.size === 1) return [...sent.keys()];
  const named = [...sent.keys()].filter((name) => isNamed(reason, name));
  // What the others have taken already is at fault only if nothing else can be.
  const onTrial = named.filter((name) => sent.get(name)?.trial !== undefined);
  return onTrial.length > 0 ? onTrial : named;
}

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

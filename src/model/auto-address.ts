// Addresses for hosts of ServiceEntries that name none: from Istio's ranges, 240.240.0.0/16 and 2001:2::/48, which are
// routed nowhere. A host's name chooses, so that it mostly gets the same one again; who comes second takes the next free.

import { createHash } from "node:crypto";

export interface AddressPair {
  readonly ipv4: string;
  readonly ipv6: string;
}

/** The first and the last address of the range stay free. */
export const autoAddressesMax = 65_534;

/**
 * The address pair for an owner (`namespace/entry/host`). Undefined when all are taken.
 * @param isFree whether the IPv4 address of a pair may be taken; both always go together
 */
export function chooseAddress(owner: string, isFree: (ipv4: string) => boolean): AddressPair | undefined {
  const start = createHash("sha256").update(owner).digest().readUInt32BE(0) % autoAddressesMax;
  for (let step = 0; step < autoAddressesMax; step++) {
    const pair = pairAt(1 + ((start + step) % autoAddressesMax));
    if (isFree(pair.ipv4)) return pair;
  }
  return undefined;
}

/** The pair that an IPv4 address of the range belongs to; undefined for any other address. */
export function pairOf(ipv4: string): AddressPair | undefined {
  const [, high, low] = /^240\.240\.(\d{1,3})\.(\d{1,3})$/.exec(ipv4) ?? [];
  if (high === undefined || low === undefined || Number(high) > 255) return undefined;
  const pair = pairAt(Number(high) * 256 + Number(low));
  return pair.ipv4 === ipv4 ? pair : undefined;
}

function pairAt(offset: number): AddressPair {
  return {
    ipv4: `240.240.${Math.trunc(offset / 256)}.${offset % 256}`,
    ipv6: `2001:2::${offset.toString(16)}`,
  };
}

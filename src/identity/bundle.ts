// Trust bundles: which roots everyone trusts. During a change of roots old and new stand side by side.

import { X509Certificate } from "node:crypto";
import { splitPem } from "./keys.ts";

/** Bundles beyond it are refused: every proxy holds the bundle in memory and checks each peer against it. */
const rootsMax = 64;

/** Merges PEM texts into one bundle, each root once, in the order first seen. Throws on more than 64 roots. */
export function mergeBundles(...pems: readonly string[]): string {
  const roots = new Map<string, string>();
  for (const pem of pems.flatMap(splitPem)) {
    const print = new X509Certificate(pem).fingerprint256;
    if (!roots.has(print)) roots.set(print, pem);
  }
  if (roots.size > rootsMax)
    throw new Error(`a trust bundle of ${roots.size} roots is more than ${rootsMax}`);
  return [...roots.values()].join("");
}

/** Whether both hold the same roots, whatever their order and spacing. */
export function sameBundle(one: string, other: string): boolean {
  const prints = (pem: string): string =>
    splitPem(pem)
      .map((cert) => new X509Certificate(cert).fingerprint256)
      .toSorted()
      .join();
  return prints(one) === prints(other);
}

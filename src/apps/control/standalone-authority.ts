// A CA for a control plane without an API server: its root lives as long as the program.

import type { Clock } from "#base";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import type { StoredAuthority } from "./authority-store.ts";

export async function standaloneAuthority(
  clock: Clock,
  before: StoredAuthority | undefined,
): Promise<StoredAuthority> {
  if (before !== undefined) return before;
  const material = await createSelfSignedMaterial(clock);
  return { authority: await CertificateAuthority.load(material, { clock }), version: "in memory" };
}

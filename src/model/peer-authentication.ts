// How a workload takes connections: mutual TLS, plaintext or both, for the whole workload and for single ports.
//
// The mesh's policy (root namespace), the namespace's and the workload's are laid over each other; UNSET, or saying
// nothing, leaves what the wider one said; without any, both are taken. The oldest of several on one level wins.

import { defineKeyedQuery, defineQuery, sameData } from "#engine";
import type { PeerAuthentication, PeerAuthenticationMutualTLS } from "#objects";
import { environmentOf } from "./mesh.ts";
import { oldestFirst, selects } from "./selectors.ts";
import { tables } from "./tables.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

export type MtlsMode = "DISABLE" | "PERMISSIVE" | "STRICT";

export interface MtlsModes {
  readonly mode: MtlsMode;
  /** By the workload's own port (a target port). */
  readonly byPort: Readonly<Record<string, MtlsMode>>;
}

/** Row keys of the PeerAuthentications that decide, widest first. For origins and for people who ask why. */
export interface DecidingPolicies extends MtlsModes {
  readonly policies: readonly string[];
}

/** The modes of a workload. */
export const mtlsModesOf = defineKeyedQuery<WorkloadKey, DecidingPolicies>(
  "mtlsModesOf",
  workloadText,
  (read, workload) => {
    const { rootNamespace } = read(environmentOf, "");
    const ofMesh = read(tables.PeerAuthentication.by.namespace, rootNamespace);
    const ofNamespace =
      workload.namespace === rootNamespace
        ? []
        : read(tables.PeerAuthentication.by.namespace, workload.namespace);
    return mergeModes(ofMesh, ofNamespace, workload);
  },
  sameData,
);

export interface WorkloadPort {
  readonly workload: WorkloadKey;
  readonly port: number;
}

/** The mode of one port of a workload: what automatic mutual TLS asks before it calls. */
export const mtlsModeOf = defineKeyedQuery<WorkloadPort, MtlsMode>(
  "mtlsModeOf",
  ({ workload, port }) => `${port} ${workloadText(workload)}`,
  (read, { workload, port }) => portMode(read(mtlsModesOf, workload), port),
);

/** The mode of a namespace as a whole, for callers that know no more than a service's namespace. */
export const namespaceMtlsModeOf = defineQuery<MtlsMode>(
  "namespaceMtlsModeOf",
  (read, namespace) => read(mtlsModesOf, { namespace, labels: {} }).mode,
);

export function portMode(modes: MtlsModes, port: number): MtlsMode {
  return modes.byPort[port] ?? modes.mode;
}

function mergeModes(
  ofMesh: readonly PeerAuthentication[],
  ofNamespace: readonly PeerAuthentication[],
  workload: WorkloadKey,
): DecidingPolicies {
  const mesh = oldest(ofMesh.filter((policy) => !hasSelector(policy)));
  const namespace = oldest(ofNamespace.filter((policy) => !hasSelector(policy)));
  const own = oldest(
    ofNamespace.filter(
      (policy) => hasSelector(policy) && selects(policy.spec?.selector?.matchLabels, workload.labels),
    ),
  );
  const deciding = [mesh, namespace, own].filter((policy) => policy !== undefined);
  const mode = deciding.reduce<MtlsMode>((wider, policy) => modeOf(policy.spec?.mtls, wider), "PERMISSIVE");
  const byPort = Object.entries(own?.spec?.portLevelMtls ?? {}).map(
    ([port, mtls]) => [port, modeOf(mtls, mode)] as const,
  );
  return {
    mode,
    byPort: Object.fromEntries(byPort),
    policies: deciding.map(({ metadata }) => `${metadata.namespace ?? ""}/${metadata.name}`),
  };
}

function oldest(policies: readonly PeerAuthentication[]): PeerAuthentication | undefined {
  return policies.toSorted(oldestFirst)[0];
}

function hasSelector({ spec }: PeerAuthentication): boolean {
  return Object.keys(spec?.selector?.matchLabels ?? {}).length > 0;
}

function modeOf(mtls: PeerAuthenticationMutualTLS | undefined, wider: MtlsMode): MtlsMode {
  return mtls?.mode === undefined || mtls.mode === "UNSET" ? wider : mtls.mode;
}

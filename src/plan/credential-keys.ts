// Which Secrets proxies may have for what they name: never one of another namespace.

import { defineKeyedQuery, sameData } from "#engine";
import {
  mayReadSecrets,
  namedSecret,
  proxyClassText,
  selectedCredentials,
  type OriginatedCredential,
  type ProxyClass,
} from "#model";
import type { CredentialKey } from "./gateway-keys.ts";
import type { Chunk } from "./plan.ts";

/** At most one key: none where the Secret is not of the proxies' namespace, or the name is none of a Secret. */
export function credentialKey(
  credential: string,
  namespace: string,
  part: CredentialKey["part"],
  suffix = "",
): CredentialKey[] {
  const named = namedSecret(credential, namespace);
  if (named === undefined || !named.isOwn) return [];
  return [{ kind: "credential", name: `${named.resource}${suffix}`, secret: named.row, part }];
}

/** For TLS that a proxy originates: the CA, and what it shows where that is mutual. */
export function clientCredentialKeys(
  { mode, credentialName }: OriginatedCredential,
  namespace: string,
): CredentialKey[] {
  return [
    ...(mode === "MUTUAL" ? credentialKey(credentialName, namespace, "pair") : []),
    ...credentialKey(credentialName, namespace, "ca", "-cacert"),
  ];
}

/**
 * The Secrets of a sidecar: those that DestinationRules name that select it. As in Istio only such rules bring Secrets to
 * sidecars (others are for everyone, and nobody would know who has the key), and keys only where the workload's service account
 * may read the Secrets of its namespace. CAs are no secrets.
 */
export const sidecarCredentials = defineKeyedQuery<ProxyClass, Chunk<CredentialKey>>(
  "sidecarCredentials",
  proxyClassText,
  (read, { namespace, labels, serviceAccount }) => {
    const named = read(selectedCredentials, { namespace, labels }).flatMap((one) =>
      clientCredentialKeys(one, namespace),
    );
    const allowed =
      named.some(isSecret) && !read(mayReadSecrets, `${namespace}/${serviceAccount}`)
        ? named.filter((key) => !isSecret(key))
        : named;
    const keys = new Map(allowed.map((key) => [key.name, key]));
    const entries = [...keys].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([name, key]) => ({ name, key }));
    return { id: "credentials", entries };
  },
  sameData,
);

function isSecret({ part }: CredentialKey): boolean {
  return part === "pair";
}

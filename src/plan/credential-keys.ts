// Which Secrets proxies may have for what they name: never one of another namespace, and keys only by a service account that may
// read the Secrets of its own.

import { defineKeyedQuery, sameData, type Read } from "#engine";
import {
  mayReadSecrets,
  namedSecret,
  proxyClassText,
  selectedCredentials,
  type OriginatedCredential,
  type ProxyClass,
} from "#model";
import type { CredentialKey } from "./gateway-keys.ts";
import type { Chunk, Planned } from "./plan.ts";

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

/** A credential as it is named for a proxy. */
export interface NamedCredential {
  readonly key: CredentialKey;
  /** `namespace/name` of the one service account that has it without being asked what it may read. */
  readonly holder?: string;
}

/** What proxies of a service account, `namespace/name`, get of what is named for them. CAs are no secrets. */
export function givenCredentials(
  read: Read,
  account: string,
  named: readonly NamedCredential[],
): Planned<CredentialKey>[] {
  const isFree = ({ key, holder }: NamedCredential): boolean => key.part !== "pair" || holder === account;
  const given = named.every(isFree) || read(mayReadSecrets, account) ? named : named.filter(isFree);
  const keys = new Map(given.map(({ key }) => [key.name, key]));
  return [...keys].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([name, key]) => ({ name, key }));
}

/**
 * The Secrets of a sidecar: those that DestinationRules name that select it. As in Istio only such rules bring Secrets to
 * sidecars: others are for everyone, and nobody would know who has the key.
 */
export const sidecarCredentials = defineKeyedQuery<ProxyClass, Chunk<CredentialKey>>(
  "sidecarCredentials",
  proxyClassText,
  (read, { namespace, labels, serviceAccount }) => {
    const named = read(selectedCredentials, { namespace, labels }).flatMap((one) =>
      clientCredentialKeys(one, namespace),
    );
    const account = `${namespace}/${serviceAccount}`;
    return {
      id: "credentials",
      entries: givenCredentials(
        read,
        account,
        named.map((key) => ({ key })),
      ),
    };
  },
  sameData,
);

// ReferenceGrants: whether an object may name another one of a different namespace.

import { defineKeyedQuery } from "#engine";
import { tables } from "../tables.ts";
import { gatewayApiGroup, type Backend } from "./references.ts";

export interface GrantQuestion {
  readonly from: { readonly kind: string; readonly namespace: string };
  readonly to: Backend;
}

/** References within a namespace need no grant. */
export const isGranted = defineKeyedQuery<GrantQuestion, boolean>(
  "isGranted",
  ({ from, to }) => [from.kind, from.namespace, to.group, to.kind, to.namespace, to.name].join(" "),
  (read, { from, to }) => {
    if (from.namespace === to.namespace) return true;
    return read(tables.ReferenceGrant.by.namespace, to.namespace).some(
      ({ spec }) =>
        spec?.from.some(
          ({ group, kind, namespace }) =>
            group === gatewayApiGroup && kind === from.kind && namespace === from.namespace,
        ) === true &&
        spec.to.some(
          ({ group, kind, name }) =>
            group === to.group && kind === to.kind && (name === undefined || name === "" || name === to.name),
        ),
    );
  },
);

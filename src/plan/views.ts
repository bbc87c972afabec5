// Views: what proxies share. Everything in which one proxy's configuration may differ from another's is in a view's
// key, and nothing else, so that as many proxies as possible share one.

import { defineKeyedQuery, sameData } from "#engine";
import { outboundScopeOf, proxyClassText, type OutboundScope, type ProxyClass } from "#model";
import { stableText } from "./keys.ts";

export interface OutboundView {
  readonly kind: "outbound";
  readonly scope: OutboundScope;
}

/** The inbound side of a workload: shared by its replicas. */
export interface InboundView {
  readonly kind: "inbound";
  readonly proxy: ProxyClass;
}

export interface GatewayView {
  readonly kind: "gateway";
  readonly proxy: ProxyClass;
}

export type View = OutboundView | InboundView | GatewayView;

export function viewText(view: View): string {
  return stableText(view);
}

/** The views of a proxy; it gets the union of their plans. */
export const viewsOf = defineKeyedQuery<ProxyClass, readonly View[]>(
  "viewsOf",
  proxyClassText,
  (read, proxy) =>
    proxy.kind === "router"
      ? [{ kind: "gateway", proxy }]
      : [
          { kind: "outbound", scope: read(outboundScopeOf, proxy) },
          { kind: "inbound", proxy },
        ],
  sameData,
);

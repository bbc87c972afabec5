// What the benchmark's processes say to one another. Times are of the monotonic clock that all processes share, in ms.

import type { Made, WorldSize } from "./world.ts";

export type ToApi =
  | { readonly kind: "load"; readonly objects: readonly Made[] }
  /** Applies one object (creates or replaces) or removes it, and answers with the time just before. */
  | { readonly kind: "put"; readonly made: Made }
  /** Applies several, one after the other. */
  | { readonly kind: "putAll"; readonly objects: readonly Made[] }
  | { readonly kind: "remove"; readonly made: Made };

export type FromApi =
  | { readonly kind: "ready"; readonly kubeconfig: string }
  | { readonly kind: "done"; readonly atMs: number };

export type ToProxies =
  | {
      readonly kind: "connect";
      readonly address: string;
      readonly size: WorldSize;
      readonly first: number;
      readonly count: number;
    }
  /** Forgets what was received so far. */
  | { readonly kind: "mark" }
  | { readonly kind: "report"; readonly withReceipts: boolean };

export interface Receipt {
  readonly proxy: number;
  readonly atMs: number;
  readonly type: string;
  /** Names of the resources, where few. */
  readonly names: readonly string[];
}

export interface ProxiesReport {
  readonly kind: "report";
  /** None unless asked for: under churn there are a hundred thousand. */
  readonly receipts: readonly Receipt[];
  readonly lastReceiptAtMs: number | undefined;
  readonly responses: number;
  readonly resources: number;
  readonly bytes: number;
  readonly connected: number;
  /** Proxies that hold all they subscribed to. */
  readonly complete: number;
  readonly completedAtMs: number;
  readonly lastConnectAtMs: number;
  readonly cpuSeconds: number;
}

export type FromProxies = { readonly kind: "started" } | { readonly kind: "marked" } | ProxiesReport;

export function sharedNowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

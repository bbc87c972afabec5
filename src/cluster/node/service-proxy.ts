// Keeps the node's iptables rules as Services and EndpointSlices say. Changes that come together are applied together.

import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import type { EndpointSlice, Service } from "../types.ts";
import { run } from "./command.ts";
import { emptyRules, renderRuleChange, renderServiceRules, type RuleSet } from "./service-rules.ts";

const gatherMs = 5; // what a change waits for others that belong to it
const retryMs = 1_000;

/** Starts to follow the store from inside the node's network namespace; returns the function that ends it. */
export function startServiceProxy(store: ClusterStore, nodeIp: string, log: Logger): () => void {
  let applied: RuleSet = emptyRules;
  let timer: NodeJS.Timeout | undefined;
  let applying = false;
  let stopped = false;

  const schedule = (delayMs: number) => {
    if (timer !== undefined || stopped) return;
    timer = setTimeout(() => {
      timer = undefined;
      void apply();
    }, delayMs);
  };

  async function apply(): Promise<void> {
    if (applying) {
      schedule(gatherMs);
      return;
    }
    const services = store.list("services").items as Service[];
    const slices = store.list("endpointslices.discovery.k8s.io").items as EndpointSlice[];
    const wanted = renderServiceRules(services, slices, nodeIp);
    const input = renderRuleChange(applied, wanted);
    if (input === "") return;
    applying = true;
    try {
      await run("iptables-restore", ["-w", "5", "--noflush"], { input });
      applied = wanted;
    } catch (error) {
      log.error({ error: String(error) }, "service rules were not applied");
      schedule(retryMs);
    } finally {
      applying = false;
    }
  }

  const stops = [
    store.watch("services", {}, () => schedule(gatherMs)),
    store.watch("endpointslices.discovery.k8s.io", {}, () => schedule(gatherMs)),
  ];
  return () => {
    stopped = true;
    clearTimeout(timer);
    for (const stop of stops) stop();
  };
}

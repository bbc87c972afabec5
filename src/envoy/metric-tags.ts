// Tags of metrics that Telemetry adds, replaces or takes away. What Envoy counts by, it counts by no longer where a tag is taken
// away; labels that the agent makes of other tags, the agent leaves out, told by a tag of its own.

import { removedLabelsTag } from "#base";
import type { MetricTags, TagChange } from "#model";
import type { AccessLog } from "./access-log.ts";
import { metricNames } from "./disabled-metrics.ts";
import { listOf } from "./list-patch.ts";
import { changeLoggingFilters } from "./provider-logs.ts";
import type { Message } from "./proto/api.ts";

export function withMetricTags(listener: Message, { changes }: MetricTags): Message {
  const byName = new Map(changes.map(({ metric, tags }) => [metricNames[metric], tags]));
  return changeLoggingFilters(listener, (config) => ({
    ...config,
    accessLog: listOf<AccessLog>(config, "accessLog").map((log): AccessLog => {
      if (log.name !== "envoy.access_loggers.stats") return log;
      const changed = (field: string): readonly Message[] =>
        listOf<Message>(log.typedConfig, field).map((metric) => withTags(metric, byName));
      const typedConfig = {
        ...log.typedConfig,
        counters: changed("counters"),
        histograms: changed("histograms"),
      };
      return { ...log, typedConfig };
    }),
  }));
}

function withTags(metric: Message, byName: ReadonlyMap<string, readonly TagChange[]>): Message {
  const stat = metric["stat"] as {
    readonly name: string;
    readonly tags?: readonly Tag[];
  };
  const changes = byName.get(stat.name);
  if (changes === undefined) return metric;
  const names = new Set(changes.map(({ name }) => name));
  const tags = stat.tags ?? [];
  const peer = tags.some(({ name, valueFormat }) => name === "reporter" && valueFormat === "destination")
    ? "source"
    : "destination";
  const kept = tags.filter(({ name }) => !names.has(name) && !isIdle(name, peer, names));
  const added = changes.flatMap((change) =>
    change.kind === "remove" ? [] : [{ name: change.name, valueFormat: formatOf(change.value) }],
  );
  const removed = { name: removedLabelsTag, valueFormat: [...names].join(",") };
  return { ...metric, stat: { ...stat, tags: [...kept, ...added, removed] } };
}

interface Tag {
  readonly name: string;
  readonly valueFormat?: string;
}

/** Whether all labels that the agent makes of a tag are taken away, so that Envoy need not tell series apart by it. */
function isIdle(tag: string, peer: "source" | "destination", names: ReadonlySet<string>): boolean {
  const made =
    tag === "peer"
      ? workloadLabels.map((label) => `${peer}_${label}`)
      : tag === "service"
        ? ["destination_service", "destination_service_name", "destination_service_namespace"]
        : tag === "peer_principal"
          ? ["source_principal", "destination_principal", "connection_security_policy"]
          : [];
  return made.length > 0 && made.every((label) => names.has(label));
}

const workloadLabels = [
  ...["workload", "workload_namespace", "app", "version"],
  ...["canonical_service", "canonical_revision", "cluster"],
];

/** A text in quotes stands for itself; everything else is for Envoy to work out. */
function formatOf(expression: string): string {
  const [, literal] =
    /^'([^'%\\]*)'$|^"([^"%\\]*)"$/.exec(expression)?.filter((part) => part !== undefined) ?? [];
  return literal ?? `%CEL(${expression})%`;
}

// What the agent counts itself: the bytes of TCP connections while they are open, and the messages of gRPC calls. Envoy
// tells of both in records of its OpenTelemetry access log (see `telemetryRecords` in #base), over the socket of the
// secrets. A record of a connection says what it has carried since it opened, so it is the difference that counts.

import protobuf from "protobufjs/minimal.js";
import { egressRecords, telemetryRecords, telemetryTags, type Reporter } from "#base";
import type { ServerStream } from "./grpc.ts";

/** Beyond it a connection's bytes are counted when it ends, as Envoy itself does. */
const connectionsMax = 20_000;
/** As many label sets as Envoy would keep of its own; what comes beyond them is not counted. */
const seriesMax = 20_000;
/** The longest name of a host that DNS knows. */
const hostLengthMax = 253;
/** A connection that is silent for this many periods is gone: its Envoy died, or the record of its end was lost. */
const silentPeriodsMax = 6;

interface Connection {
  readonly values: readonly number[];
  readonly atMs: number;
}

export class TelemetryRecords {
  readonly #connections = new Map<string, Connection>();
  /** For each metric: the labels as Envoy would write them, to the count. */
  readonly #series = new Map<string, Map<string, number>>();
  readonly #nowMs: () => number;
  readonly #hosts = new Set<string>();
  #seriesTotal = 0;
  #dropped = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Records that were not counted since there are too many label sets. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Serves OpenTelemetry's `Export`. */
  readonly serve = (stream: ServerStream): void => {
    stream.onMessage((message) => {
      for (const record of bodiesOf(message)) this.take(record);
      stream.send(new Uint8Array());
    });
  };

  /** Takes one record; what does not read like one is ignored. */
  take(record: string): void {
    const [kind, logType = "", connection = "", ...rest] = record.split(telemetryRecords.separator);
    if (kind === "egress") this.#takeEgress(logType, connection, rest);
    if (kind !== "tcp" && kind !== "grpc") return;
    const { metrics, values } = telemetryRecords[kind];
    const told = rest.slice(0, values.length).join(",").split(",").map(Number);
    const tags = rest.slice(values.length);
    if (told.length !== metrics.length || !told.every((value) => Number.isFinite(value) && value >= 0))
      return;
    const isEnd = kind === "grpc" || logType === "TcpConnectionEnd";
    const counted = kind === "grpc" ? told : this.#since(connection, told, isEnd);
    if (counted === undefined) return;
    const labels = labelsOf(kind, tags);
    for (const [at, metric] of metrics.entries()) this.#add(metric, labels, counted[at] ?? 0);
  }

  /** A call of a host that the mesh does not know. Hosts beyond the limit are counted together. */
  #takeEgress(protocol: string, decidedBy: string, names: readonly string[]): void {
    const { outcomes, hostsMax, otherHosts, metric } = egressRecords;
    const outcome = (outcomes as Readonly<Record<string, string>>)[decidedBy];
    if (outcome === undefined) return;
    const named = names.find((name) => name !== "" && name !== "-") ?? otherHosts;
    const host = named.toLowerCase().slice(0, hostLengthMax);
    const isKnown = this.#hosts.has(host) || this.#hosts.size < hostsMax;
    if (isKnown) this.#hosts.add(host);
    const shown = isKnown ? host : otherHosts;
    const tags = { reporter: "source", request_protocol: protocol, destination_host: shown, outcome };
    const labels = Object.entries(tags).map(([name, value]) => `${name}="${escaped(value)}"`);
    this.#add(metric, labels.join(","), 1);
  }

  /** The lines that Envoy would write if it counted this; what the agent makes of those it makes of these. */
  render(): string {
    this.#forgetSilent();
    let text = "";
    for (const [metric, series] of this.#series) {
      text += `# TYPE envoy_${metric} counter\n`;
      for (const [labels, count] of series) text += `envoy_${metric}{${labels}} ${count}\n`;
    }
    return text;
  }

  /** What a connection has carried since its last record; undefined if that is to wait for its end. */
  #since(connection: string, told: readonly number[], isEnd: boolean): readonly number[] | undefined {
    const before = this.#connections.get(connection)?.values;
    if (isEnd) this.#connections.delete(connection);
    else if (before === undefined && this.#connections.size >= connectionsMax) return undefined;
    else this.#connections.set(connection, { values: told, atMs: this.#nowMs() });
    // Less than before is another connection: Envoy was started anew, and its numbers with it.
    const isSame = before?.every((value, at) => value <= (told[at] ?? 0)) === true;
    return isSame ? told.map((value, at) => value - (before[at] ?? 0)) : told;
  }

  #add(metric: string, labels: string, count: number): void {
    let series = this.#series.get(metric);
    if (series === undefined) this.#series.set(metric, (series = new Map()));
    const before = series.get(labels);
    if (before === undefined) {
      if (this.#seriesTotal >= seriesMax) {
        this.#dropped += 1;
        return;
      }
      this.#seriesTotal += 1;
    }
    series.set(labels, (before ?? 0) + count);
  }

  #forgetSilent(): void {
    const untilMs = this.#nowMs() - silentPeriodsMax * telemetryRecords.periodSeconds * 1_000;
    for (const [connection, { atMs }] of this.#connections)
      if (atMs < untilMs) this.#connections.delete(connection);
  }
}

/** The path for `createStreamServer`. */
export function recordPaths(records: TelemetryRecords): Record<string, (stream: ServerStream) => void> {
  return { "/opentelemetry.proto.collector.logs.v1.LogsService/Export": records.serve };
}

/** Tags without a value are absent, as in Envoy's own series; the reporter decides which tags there are. */
function labelsOf(kind: "tcp" | "grpc", values: readonly string[]): string {
  const [reporter = "source"] = values;
  return telemetryTags(reporter as Reporter, kind === "tcp" ? "tcp" : "http")
    .map(({ name, byPrefix }, at) => {
      const value = values[at] ?? "";
      if (byPrefix === undefined) return `${name}="${escaped(value)}"`;
      const prefix = Object.keys(byPrefix.prefixes).find((one) => value.startsWith(one));
      const shown = prefix === undefined ? byPrefix.otherwise : byPrefix.prefixes[prefix];
      return `${name}="${escaped(shown ?? "")}"`;
    })
    .join(",");
}

function escaped(value: string): string {
  return value.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n");
}

// Field numbers are those of opentelemetry/proto/{collector/logs,logs,common}/v1. Tag = number << 3 | 2.
const lengthDelimited = (field: number): number => (field << 3) | 2;

/** ExportLogsServiceRequest.resource_logs = 1 / ResourceLogs.scope_logs = 2 / ScopeLogs.log_records = 2 / LogRecord.body = 5 / AnyValue.string_value = 1 */
const pathToBody = [1, 2, 2, 5, 1] as const;

function bodiesOf(message: Uint8Array): readonly string[] {
  let level: Uint8Array[] = [message];
  for (const field of pathToBody) level = level.flatMap((bytes) => fieldsOf(bytes, field));
  return level.map((bytes) => Buffer.from(bytes).toString("utf8"));
}

function fieldsOf(bytes: Uint8Array, field: number): Uint8Array[] {
  const reader = protobuf.Reader.create(bytes);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const tag = reader.uint32();
    if (tag === lengthDelimited(field)) found.push(reader.bytes());
    else reader.skipType(tag & 7);
  }
  return found;
}

// The access logs of MeshConfig's extension providers, in place of what MeshConfig's own accessLogFile asks for.

import type { Read } from "#engine";
import type { MeshConfigExtensionProvider } from "#objects";
import { builtInLogProvider, readMesh, type LogSpec } from "#model";
import { fileAccessLogs, type AccessLog } from "./access-log.ts";
import { chainsChanged } from "./listener-patch.ts";
import { listOf, type Named } from "./list-patch.ts";
import { logServices } from "./log-services.ts";
import { readFilterSettings } from "./mesh-settings.ts";
import { typed, type Message } from "./proto/api.ts";
import { atLastLine, atListener } from "./telemetry.ts";

/** The loggers that tell people, in lines or by a service of theirs; others count. */
const lineLoggers: ReadonlySet<string> = new Set(
  ["file", "stdout", "stderr", "http_grpc", "tcp_grpc"].map((kind) => `envoy.access_loggers.${kind}`),
);

export type LogPlace = "http" | "tcp" | "listener";

/** The loggers of some providers at one place. A provider that is not configured, or of another kind, writes nothing. */
export function providerLogs(read: Read, specs: readonly LogSpec[], place: LogPlace): readonly AccessLog[] {
  return specs.flatMap(({ provider, filter }) =>
    logsOf(read, provider, place).map((log): AccessLog => {
      const filters = [...placeFilters(place), ...(filter === "" ? [] : [celFilter(filter)])];
      const [only] = filters;
      if (only === undefined) return log;
      return { ...log, filter: filters.length === 1 ? only : { andFilter: { filters } } };
    }),
  );
}

function placeFilters(place: LogPlace): readonly Message[] {
  return place === "http" ? [] : [place === "tcp" ? atLastLine : atListener];
}

function celFilter(expression: string): Message {
  return {
    extensionFilter: {
      name: "envoy.access_loggers.extension_filters.cel",
      typedConfig: typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", { expression }),
    },
  };
}

function logsOf(read: Read, provider: string, place: LogPlace): readonly AccessLog[] {
  const mesh = readFilterSettings(read);
  if (place === "listener" && mesh.disableEnvoyListenerLog === true) return [];
  const given = (readMesh(read, "extensionProviders") ?? []).find(({ name }) => name === provider);
  const file = given?.envoyFileAccessLog ?? (provider === builtInLogProvider ? {} : undefined);
  if (file === undefined) return given === undefined ? [] : logServices(read, given, place);
  const { path = "/dev/stdout", omitEmptyValues = false } = file;
  return fileAccessLogs({ accessLogFile: path, omitEmptyValues, ...formatOf(file, mesh) });
}

/** The provider's own format, or the mesh's. */
function formatOf(
  { logFormat }: NonNullable<MeshConfigExtensionProvider["envoyFileAccessLog"]>,
  { accessLogFormat, accessLogEncoding }: ReturnType<typeof readFilterSettings>,
): { readonly accessLogFormat?: string; readonly accessLogEncoding?: string } {
  if (logFormat?.labels !== undefined)
    return { accessLogEncoding: "JSON", accessLogFormat: JSON.stringify(logFormat.labels) };
  if (logFormat?.text !== undefined && logFormat.text !== "")
    return { accessLogEncoding: "TEXT", accessLogFormat: logFormat.text };
  return {
    ...(accessLogFormat === undefined ? {} : { accessLogFormat }),
    ...(accessLogEncoding === undefined ? {} : { accessLogEncoding }),
  };
}

/** The listener with these loggers where the mesh's own would be, at each of its connection managers and TCP proxies. */
export function withLogs(listener: Message, logsAt: (place: LogPlace) => readonly AccessLog[]): Message {
  const replaced = (message: Message, place: LogPlace): Message => {
    const counting = listOf<AccessLog>(message, "accessLog").filter(({ name }) => !lineLoggers.has(name));
    return { ...message, accessLog: [...logsAt(place), ...counting] };
  };
  const chains = changeLoggingFilters(listener, replaced);
  // A listener that virtualOutbound hands connections to has accepted none itself.
  return listener["bindToPort"] === undefined ? replaced(chains, "listener") : chains;
}

/** Changes each connection manager and TCP proxy of a listener. */
export function changeLoggingFilters(
  listener: Message,
  change: (config: Message, place: "http" | "tcp") => Message,
): Message {
  return chainsChanged(listener, (chain) => ({
    ...chain,
    filters: listOf<Named>(chain, "filters").map((filter) => {
      const config = filter["typedConfig"] as Message | undefined;
      const place = placeOfFilter(config);
      return place === undefined || config === undefined
        ? filter
        : { ...filter, typedConfig: change(config, place) };
    }),
  }));
}

function placeOfFilter(config: Message | undefined): "http" | "tcp" | undefined {
  const type = String(config?.["@type"] ?? "");
  if (type.endsWith(".HttpConnectionManager")) return "http";
  return type.endsWith(".TcpProxy") ? "tcp" : undefined;
}

// The access log for people: Istio's line, the operator's own format, or JSON.

import { typed, type Message, type TypedMessage } from "./proto/api.ts";

/** MeshConfig's access-log fields. */
export interface AccessLogSettings {
  readonly accessLogFile?: string;
  readonly accessLogFormat?: string;
  readonly accessLogEncoding?: string;
  /** Everything is told to the service for access logs that the bootstrap knows. */
  readonly logsToService?: boolean;
  /** A listener that finds no chain for a connection writes no line. */
  readonly disableEnvoyListenerLog?: boolean;
}

/** What a provider of lines says beside its format. */
export interface LineSettings extends AccessLogSettings {
  /** Leaves out of JSON what has no value, and in a text writes nothing for it instead of a dash. */
  readonly omitEmptyValues?: boolean;
}

/** One AccessLog of a listener, connection manager or TCP proxy. */
export interface AccessLog {
  readonly name: string;
  readonly filter?: Message;
  readonly typedConfig: TypedMessage;
}

/** Istio's fields in Istio's order, with the names that its JSON form gives them. */
const fields: readonly (readonly [name: string, format: string])[] = [
  ["start_time", "%START_TIME%"],
  ["method", "%REQ(:METHOD)%"],
  ["path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"],
  ["protocol", "%PROTOCOL%"],
  ["response_code", "%RESPONSE_CODE%"],
  ["response_flags", "%RESPONSE_FLAGS%"],
  ["response_code_details", "%RESPONSE_CODE_DETAILS%"],
  ["connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"],
  ["upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"],
  ["bytes_received", "%BYTES_RECEIVED%"],
  ["bytes_sent", "%BYTES_SENT%"],
  ["duration", "%DURATION%"],
  ["upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"],
  ["x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"],
  ["user_agent", "%REQ(USER-AGENT)%"],
  ["request_id", "%REQ(X-REQUEST-ID)%"],
  ["authority", "%REQ(:AUTHORITY)%"],
  ["upstream_host", "%UPSTREAM_HOST%"],
  ["upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"],
  ["upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"],
  ["downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"],
  ["downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"],
  ["requested_server_name", "%REQUESTED_SERVER_NAME%"],
  ["route_name", "%ROUTE_NAME%"],
];

const quoted = new Set([
  "upstream_transport_failure_reason",
  "x_forwarded_for",
  "user_agent",
  "request_id",
  "authority",
  "upstream_host",
]);

/** Istio's line, without its end. */
export const lineFormat = fields.map(([name, format]) => textField(name, format)).join(" ");
const defaultText = `${lineFormat}\n`;
const defaultJson = Object.fromEntries(fields);

/**
 * The access log, or nothing when `accessLogFile` is not set. Standard output is written to as a stream and not opened
 * as a file: behind a supervisor it may be a socket, which cannot be opened by its path.
 */
export function fileAccessLogs(settings: LineSettings): readonly AccessLog[] {
  const path = settings.accessLogFile ?? "";
  if (path === "") return [];
  const logFormat = {
    ...(settings.accessLogEncoding === "JSON" ? jsonFormat(settings) : textFormat(settings)),
    ...(settings.omitEmptyValues === true ? { omitEmptyValues: true } : {}),
  };
  const stream = streams[path];
  if (stream !== undefined) return [{ name: stream.name, typedConfig: typed(stream.type, { logFormat }) }];
  return [
    {
      name: "envoy.access_loggers.file",
      typedConfig: typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", { path, logFormat }),
    },
  ];
}

const streams: Readonly<Record<string, { readonly name: string; readonly type: string }>> = {
  "/dev/stdout": {
    name: "envoy.access_loggers.stdout",
    type: "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
  },
  "/dev/stderr": {
    name: "envoy.access_loggers.stderr",
    type: "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
  },
};

function textFormat({ accessLogFormat }: AccessLogSettings): Message {
  const given = accessLogFormat ?? "";
  const line = given === "" ? defaultText : given.endsWith("\n") ? given : `${given}\n`;
  return { textFormatSource: { inlineString: line } };
}

function jsonFormat({ accessLogFormat }: AccessLogSettings): Message {
  return { jsonFormat: jsonStruct(parsedFields(accessLogFormat ?? "") ?? defaultJson) };
}

/** An operator's JSON format: an object of texts, possibly nested. Anything else falls back to the default. */
function parsedFields(text: string): Readonly<Record<string, unknown>> | undefined {
  if (text === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)
      ? (parsed as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function jsonStruct(json: Readonly<Record<string, unknown>>): Message {
  return {
    fields: Object.fromEntries(Object.entries(json).map(([name, value]) => [name, jsonValue(value)])),
  };
}

function jsonValue(value: unknown): Message {
  if (Array.isArray(value)) return { listValue: { values: value.map(jsonValue) } };
  if (typeof value === "object" && value !== null)
    return { structValue: jsonStruct(value as Record<string, unknown>) };
  return typeof value === "number" ? { numberValue: value } : { stringValue: String(value) };
}

/** `[time] "METHOD path protocol" ...`: Istio groups the first four and quotes what may hold blanks. */
function textField(name: string, format: string): string {
  if (name === "start_time") return `[${format}]`;
  if (name === "method") return `"${format}`;
  if (name === "protocol") return `${format}"`;
  return quoted.has(name) ? `"${format}"` : format;
}

/** The labels of an OpenTelemetry record. */
export function attributesOf(labels: Readonly<Record<string, unknown>>): Message {
  const values = Object.entries(labels).map(([key, value]) => ({ key, value: attributeValue(value) }));
  return { values };
}

function attributeValue(value: unknown): Message {
  if (Array.isArray(value)) return { arrayValue: { values: value.map(attributeValue) } };
  if (typeof value === "object" && value !== null)
    return { kvlistValue: attributesOf(value as Record<string, unknown>) };
  return { stringValue: String(value) };
}

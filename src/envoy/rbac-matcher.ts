// What each attribute of an AuthorizationPolicy becomes in Envoy's RBAC: one row an attribute.

import { typed, type Message } from "./proto/api.ts";

export type RbacSide = "permission" | "principal";

/** Matches values of one attribute, each by itself or all in one message. Undefined: the value cannot be understood. */
export type ValueMatcher = {
  readonly side: RbacSide;
  readonly httpOnly: boolean;
} & (
  | { readonly kind: "each"; readonly match: (value: string) => Message | undefined }
  | { readonly kind: "together"; readonly match: (values: readonly string[]) => Message | undefined }
);

const jwtFilter = "envoy.filters.http.jwt_authn";

/** The matcher of an attribute, or undefined for one that Istio does not know. */
export function matcherFor(key: string, policyNamespace: string): ValueMatcher | undefined {
  const fixed = fixedMatchers[key];
  if (fixed !== undefined) return fixed;
  if (key === "source.serviceAccount")
    return principal((value) => authenticated(regex(serviceAccountRegex(policyNamespace, value))));
  if (key.startsWith("request.headers")) return headerMatcher(key.slice("request.headers".length));
  if (key.startsWith("request.auth.claims"))
    return claimMatcher(bracketed(key.slice("request.auth.claims".length)));
  if (key.startsWith("experimental.envoy.filters.")) return metadataMatcher(key);
  return undefined;
}

const fixedMatchers: Readonly<Record<string, ValueMatcher>> = {
  "destination.ip": permission((value) => wrappedRange("destinationIp", value)),
  "destination.port": permission(destinationPort),
  "connection.sni": permission((value) => ({ requestedServerName: text(value) })),
  "request.host": permission((value) => ({ header: header(":authority", value, true) }), true),
  "request.method": permission((value) => ({ header: header(":method", value) }), true),
  "request.path": permission(path, true),
  "source.ip": principal((value) => wrappedRange("directRemoteIp", value)),
  "remote.ip": principal((value) => wrappedRange("remoteIp", value)),
  "source.namespace": principal((value) =>
    authenticated(regex(`.*/ns/${value.split("*").map(quoted).join(".*")}/.*`)),
  ),
  "source.principal": principal((value) => authenticated(text(value, "spiffe://"))),
  "source.trustDomain": principal(trustDomain),
  "request.auth.principal": {
    side: "principal",
    httpOnly: true,
    kind: "together",
    match: (values) => {
      const principals = values.map(requestPrincipal);
      return principals.length === 1 ? principals[0] : { orIds: { ids: principals } };
    },
  },
  "request.auth.audiences": claimMatcher(["aud"]) as ValueMatcher,
  "request.auth.presenter": claimMatcher(["azp"]) as ValueMatcher,
};

function permission(match: (value: string) => Message | undefined, httpOnly = false): ValueMatcher {
  return { side: "permission", httpOnly, kind: "each", match };
}

function principal(match: (value: string) => Message | undefined, httpOnly = false): ValueMatcher {
  return { side: "principal", httpOnly, kind: "each", match };
}

function authenticated(principalName: Message): Message {
  return { authenticated: { principalName } };
}

function destinationPort(value: string): Message | undefined {
  const port = Number(value);
  return /^\d+$/.test(value) && port <= 65_535 ? { destinationPort: port } : undefined;
}

/** `{*}` is one segment, `{**}` any number of them. */
function path(value: string): Message {
  if (!value.includes("{*}") && !value.includes("{**}")) return { urlPath: { path: text(value) } };
  return {
    uriTemplate: {
      name: "uri-template",
      typedConfig: typed("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", {
        pathTemplate: value.replaceAll("{**}", "**").replaceAll("{*}", "*"),
      }),
    },
  };
}

function headerMatcher(inBrackets: string): ValueMatcher | undefined {
  const name = /^\[(.*)\]$/.exec(inBrackets)?.[1];
  return name === undefined ? undefined : principal((value) => ({ header: header(name, value) }), true);
}

function header(name: string, value: string, ignoreCase = false): Message {
  if (value === "*") return { name, presentMatch: true };
  return { name, stringMatch: { ...text(value), ...(ignoreCase ? { ignoreCase } : {}) } };
}

/** `[a][b]` is a nested claim; anything else in brackets is one name. */
function bracketed(texts: string): readonly string[] | undefined {
  if (/^(\[[^[\]]*\])+$/.test(texts)) return texts.slice(1, -1).split("][");
  const whole = /^\[(.*)\]$/.exec(texts)?.[1];
  return whole === undefined ? undefined : [whole];
}

function claimMatcher(claims: readonly string[] | undefined): ValueMatcher | undefined {
  if (claims === undefined) return undefined;
  return {
    side: "principal",
    httpOnly: true,
    kind: "together",
    match: (values) => {
      const value = oneOf(values.map((each) => ({ stringMatch: text(each) })));
      // A claim is a text or a list of texts.
      return claimMetadata(claims, {
        orMatch: { valueMatchers: [{ listMatch: { oneOf: value } }, value] },
      });
    },
  };
}

function claimMetadata(claims: readonly string[], value: Message): Message {
  return {
    metadata: { filter: jwtFilter, path: ["payload", ...claims].map((key) => ({ key })), value },
  };
}

/** `issuer/subject`; the issuer may be a URL, so the last slash divides. */
function requestPrincipal(value: string): Message {
  const at = value.lastIndexOf("/");
  const issuer = at < 0 ? value : value.slice(0, at);
  const subject = at < 0 ? "" : value.slice(at + 1);
  const [iss, sub] = requestPrincipalTexts(value, issuer, subject, at >= 0);
  return {
    andIds: {
      ids: [claimMetadata(["iss"], { stringMatch: iss }), claimMetadata(["sub"], { stringMatch: sub })],
    },
  };
}

function requestPrincipalTexts(
  value: string,
  issuer: string,
  subject: string,
  divided: boolean,
): readonly [Message, Message] {
  const any = regex(".+");
  if (value === "*") return [any, any];
  if (value.startsWith("*"))
    return divided
      ? [issuer === "*" ? any : { suffix: issuer.slice(1) }, { exact: subject }]
      : [any, { suffix: value.slice(1) }];
  if (value.endsWith("*"))
    return divided
      ? [{ exact: issuer }, subject === "*" ? any : { prefix: subject.slice(0, -1) }]
      : [{ prefix: value.slice(0, -1) }, any];
  return [{ exact: issuer }, { exact: subject }];
}

/** `experimental.envoy.filters.a.b[c]`: the dynamic metadata that a filter left; `[v]` matches in a list. */
function metadataMatcher(key: string): ValueMatcher | undefined {
  const parts = /^experimental\.([^[]+)\[(.*)\]$/.exec(key);
  const [, filter, name] = parts ?? [];
  if (filter === undefined || name === undefined) return undefined;
  return {
    side: "permission",
    httpOnly: false,
    kind: "together",
    match: (values) => ({
      metadata: { filter, path: [{ key: name }], value: oneOf(values.map(listOrText)) },
    }),
  };
}

function listOrText(value: string): Message {
  return value.startsWith("[") && value.endsWith("]")
    ? { listMatch: { oneOf: { stringMatch: text(value.slice(1, -1)) } } }
    : { stringMatch: text(value) };
}

function oneOf(values: readonly Message[]): Message {
  return values.length === 1 ? (values[0] as Message) : { orMatch: { valueMatchers: values } };
}

function trustDomain(value: string): Message {
  if (value === "*") return authenticated({ prefix: "spiffe://" });
  if (!value.includes("*")) return authenticated({ prefix: `spiffe://${value}/` });
  const [before = "", after = ""] = value.split("*", 2);
  return authenticated(regex(`spiffe://${quoted(before)}[^/]*${quoted(after)}/.*`));
}

/** `name` in the policy's own namespace, or `namespace/name`. */
function serviceAccountRegex(policyNamespace: string, value: string): string {
  const at = value.indexOf("/");
  const namespace = at < 0 ? policyNamespace : value.slice(0, at);
  const name = at < 0 ? value : value.slice(at + 1);
  return `spiffe://.+/ns/${quoted(namespace)}/(.+/|)sa/${quoted(name)}(/.+)?`;
}

/** Istio's texts: `*` is anything but nothing, `*x` a suffix, `x*` a prefix, everything else exact. */
function text(value: string, prefix = ""): Message {
  if (value === "*") return regex(".+");
  if (value.startsWith("*"))
    return prefix === "" ? { suffix: value.slice(1) } : regex(`${prefix}.*${quoted(value.slice(1))}`);
  if (value.endsWith("*")) return { prefix: prefix + value.slice(0, -1) };
  return { exact: prefix + value };
}

function regex(pattern: string): Message {
  return { safeRegex: { regex: pattern } };
}

/** Escapes what RE2 reads as syntax. */
function quoted(literal: string): string {
  return literal.replace(/[\\.+*?()|[\]{}^$]/g, "\\$&");
}

function wrappedRange(field: string, value: string): Message | undefined {
  const range = addressRange(value);
  return range === undefined ? undefined : { [field]: range };
}

/** A CidrRange of an address or a prefix in CIDR notation. */
export function addressRange(value: string): Message | undefined {
  const [address = "", length, ...rest] = value.split("/");
  const bits = /^\d{1,3}(\.\d{1,3}){3}$/.test(address)
    ? 32
    : /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*$/.test(address)
      ? 128
      : 0;
  const prefixLength = length === undefined ? bits : Number(length);
  const known = bits > 0 && rest.length === 0 && (length === undefined || /^\d+$/.test(length));
  return known && prefixLength <= bits
    ? { addressPrefix: address, prefixLen: { value: prefixLength } }
    : undefined;
}

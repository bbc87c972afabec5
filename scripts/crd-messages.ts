// What the API server answers when a CEL rule of a schema is broken, in our words. A rule without a row answers with itself.

const messages: Readonly<Record<string, string>> = {
  "duration(self) >= duration('1ms')": "must be a duration of at least 1ms, such as 5s or 250ms",
  "self.size() == 0": "must be empty: a policy can only name targets of its own namespace",
  "0 < self && self <= 65535": "must be a port, from 1 to 65535",
  'self.all(key, !key.contains("*"))': "a label's key cannot hold a wildcard",
  "self.all(key, key.size() != 0)": "a label's key cannot be empty",
  '!self.contains("*")': "a label's value cannot hold a wildcard",
  "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1":
    "set only one of selector, targetRef and targetRefs",
  "(has(self.selector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1":
    "set only one of selector and targetRefs",
  "(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1":
    "set only one of workloadSelector and targetRefs",
  "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1":
    "set only one of workloadSelector and endpoints",
  '(has(self.address) ? self.address : "").startsWith("unix://") ? !has(self.ports) : true':
    "a Unix socket has no ports",
  'self.startsWith("unix://") ? (self.substring(7, 8) == "/" || self.substring(7, 8) == "@") : true':
    "a Unix socket must be an absolute path, or an abstract name that begins with @",
  'self.startsWith("unix://") ? !self.endsWith("/") : true': "a Unix socket cannot be a directory",
  'self.all(key, size(key) < 63 && key.matches("^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$"))':
    "a port's name must be at most 62 letters, digits and inner hyphens",
  '(has(self.valueFrom) ? self.valueFrom : "") != "HOST" || !has(self.value)':
    "value goes with valueFrom INLINE only",
  "(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1":
    "set only one of tlsCertificates and credentialNames",
  "(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1":
    "set only one of credentialName and credentialNames",
  "(has(self.credentialNames) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1":
    "set only one of credentialNames and tlsCertificates",
  "has(self.address) || has(self.network)": "set an address, or the network behind whose gateway it lies",
  'url(self).getScheme() in ["http", "https"]': "must be a URL that begins with http:// or https://",
  "has(self.wasm) != has(self.lua)": "set exactly one of wasm and lua",
  'has(self.context) ? ((self.context == "WAYPOINT") ? has(self.waypoint) : !has(self.waypoint)) : !has(self.waypoint)':
    "waypoint goes with context WAYPOINT only, and that with nothing else",
  '!((has(self.addresses) ? self.addresses : []).exists(k, k.contains("/")) && !((has(self.resolution) ? self.resolution : "NONE") in ["STATIC", "NONE"]))':
    "addresses may be CIDR blocks only with resolution NONE or STATIC",
  '((has(self.resolution) ? self.resolution : "NONE") == "NONE") ? !has(self.endpoints) : true':
    "resolution NONE takes no endpoints",
  '((has(self.resolution) ? self.resolution : "") == "DNS_ROUND_ROBIN") ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true':
    "resolution DNS_ROUND_ROBIN takes at most one endpoint",
  'self != "*"': "must name a host: a bare * is too wide here",
  "self.all(l1, self.exists_one(l2, l1.number == l2.number))": "each port's number may stand only once",
  'self in ["", "HTTP", "HTTPS"]': "must be HTTP or HTTPS",
  "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true":
    "portLevelMtls needs a selector",
  "self.all(key, 0 < int(key) && int(key) <= 65535)": "each key must be a port, from 1 to 65535",
  "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1":
    "set only one of jwks and jwksUri",
  '((has(self.operation) ? self.operation : "") == "UPSERT") ? (self.value != "") : true':
    "operation UPSERT needs a value",
  '((has(self.operation) ? self.operation : "") == "REMOVE") ? !has(self.value) : true':
    "operation REMOVE takes no value",
};

const patterns: readonly (readonly [RegExp, string])[] = [
  [/^isURL\(self\) \?/, "must be a URL of one of the schemes oci, http, https, file, or none"],
  [/has\(self\.serviceAccounts\) \|\|/, "serviceAccounts cannot stand beside principals or namespaces"],
];

/** Undefined: the rule itself is the message. */
export function messageOf(rule: string): string | undefined {
  return messages[rule] ?? patterns.find(([pattern]) => pattern.test(rule))?.[1];
}

// The string formats that the API server checks; others are accepted, as there.

import { isIP, isIPv4, isIPv6 } from "node:net";

const checks: Readonly<Record<string, (text: string) => boolean>> = {
  "date-time": (text) =>
    /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.test(text) &&
    !Number.isNaN(Date.parse(text)),
  date: (text) => /^\d{4}-\d\d-\d\d$/.test(text) && !Number.isNaN(Date.parse(text)),
  byte: (text) =>
    /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text.replaceAll(/\s/g, "")),
  ipv4: isIPv4,
  ipv6: isIPv6,
  cidr: (text) => isIP(text.split("/")[0] ?? "") !== 0 && /\/\d{1,3}$/.test(text),
  hostname: (text) =>
    /^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$/.test(text),
  email: (text) => /^[^@\s]+@[^@\s]+$/.test(text),
  uuid: (text) => /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i.test(text),
  uri: (text) => URL.canParse(text) || text.startsWith("/"),
  duration: (text) => /^-?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+$/.test(text) || text === "0",
};

/** What is wrong with the text, undefined when it has the format or the format is not one that is checked. */
export function formatError(format: string, text: string): string | undefined {
  return (checks[format]?.(text) ?? true) ? undefined : JSON.stringify(text);
}

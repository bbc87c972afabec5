import assert from "node:assert/strict";
import { test } from "node:test";
import { renderCleanup, renderRestore, rulesFor } from "./rules.ts";
import { defaultSettings, parseCapture } from "./settings.ts";

const host = { dnsServers: ["10.96.0.10"], ipv6: false, env: {} };
const usual = [
  "-p",
  "15001",
  "-z",
  "15006",
  "-u",
  "1337",
  "-m",
  "REDIRECT",
  "-i",
  "*",
  "-x",
  "",
  "-b",
  "*",
  "-d",
  "15090,15021",
];

test("the injector's flags capture everything but the proxy, its ports and loopback", () => {
  const { settings } = parseCapture([...usual, "--log_output_level=default:info"], host);
  const text = renderRestore(rulesFor(settings, "ipv4"));
  assert.match(text, /-A PREROUTING -p tcp -j ISTIO_INBOUND\n/);
  assert.match(
    text,
    /-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n.*15021 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT/,
  );
  assert.match(text, /-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n/);
  assert.match(text, /-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n/);
});

test("the proxy's group is its user unless it is named", () => {
  assert.deepEqual(parseCapture(["-u", "2000"], host).settings.proxyGids, ["2000"]);
  assert.deepEqual(parseCapture(["-u", "2000", "-g", "3000"], host).settings.proxyGids, ["3000"]);
});

test("excluded ports and ranges are let go before anything is taken", () => {
  const { settings } = parseCapture(["-i", "*", "-x", "10.0.0.0/8", "-o", "3306", "-q", "80"], host);
  const output = rulesFor(settings, "ipv4").get("nat")?.get("ISTIO_OUTPUT") ?? [];
  assert.equal(output[0], "-p tcp --dport 3306 -j RETURN");
  assert.ok(output.indexOf("-d 10.0.0.0/8 -j RETURN") < output.indexOf("-j ISTIO_REDIRECT"));
});

test("DNS is captured only when asked for, and only towards the pod's own servers", () => {
  assert.ok(
    !renderRestore(rulesFor(parseCapture(usual, host).settings, "ipv4")).includes("53"),
    "15053 or 53",
  );
  const { settings } = parseCapture([...usual, "--redirect-dns"], host);
  const text = renderRestore(rulesFor(settings, "ipv4"));
  assert.match(text, /-p udp --dport 53 -d 10\.96\.0\.10\/32 -j REDIRECT --to-ports 15053/);
  assert.match(text, /\*raw/);
});

test("nothing but ports, ranges and names reaches iptables", () => {
  assert.throws(() => parseCapture(["-b", "80 -j ACCEPT"], host), /is not a port/);
  assert.throws(() => parseCapture(["-x", "1.2.3.4\n-F"], host), /is not an address range/);
  assert.throws(() => parseCapture(["-k", "eth0;reboot"], host), /is not an interface/);
  assert.throws(() => parseCapture(["--what", "1"], host), /--what is not known/);
});

test("cleaning up takes our jumps first and our chains last, and leaves others' rules", () => {
  const saved = [
    "*nat",
    ":PREROUTING ACCEPT [0:0]",
    ":ISTIO_OUTPUT - [0:0]",
    "-A PREROUTING -p tcp -j OTHER",
    "-A OUTPUT -j ISTIO_OUTPUT",
    "-A ISTIO_OUTPUT -j RETURN",
    "COMMIT",
  ].join("\n");
  const expected = "*nat\n-D OUTPUT -j ISTIO_OUTPUT\n-F ISTIO_OUTPUT\n-X ISTIO_OUTPUT\nCOMMIT\n";
  assert.equal(renderCleanup(saved, defaultSettings), expected);
  assert.equal(renderCleanup("*nat\nCOMMIT\n", defaultSettings), "");
});

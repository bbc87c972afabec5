// The capture rules in the kernel: two network namespaces, a pod and its peer, and who ends up where. The agent sets the rules twice,
// as a restarted init container does, and takes them away at the end.

import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { dirname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { whyNoEndToEnd } from "./able.ts";

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const reason = whyNoEndToEnd();
const skip = reason === undefined ? false : reason;

const pod = `mizzen-capture-${process.pid}`;
const peer = `${pod}-peer`;
const podIp = "10.213.7.1";
const peerIp = "10.213.7.2";
const proxyUid = 1337;
const appUid = 1000;
const appPort = 8080;

/** Answers each connection with a word of its port, as the given user. */
const serverScript = `
  const net = require("node:net");
  const [uid, ...ports] = process.argv.slice(1);
  let open = 0;
  process.setgid(Number(uid)); process.setuid(Number(uid));
  for (const pair of ports) {
    const [port, word] = pair.split("=");
    net.createServer((socket) => { socket.on("error", () => {}); socket.end(word); })
      .listen(Number(port), "0.0.0.0", () => { open += 1; if (open === ports.length) console.log("ready"); });
  }
`;

/** Connects as the given user and prints what it gets. */
const clientScript = `
  const net = require("node:net");
  const [uid, host, port, localAddress] = process.argv.slice(1);
  process.setgid(Number(uid)); process.setuid(Number(uid));
  const socket = net.connect({ host, port: Number(port), localAddress: localAddress || undefined });
  socket.setTimeout(2000, () => socket.destroy(new Error("timed out")));
  socket.on("data", (chunk) => process.stdout.write(chunk));
  socket.on("error", (error) => process.stdout.write(error.code || error.message));
`;

describe("captured traffic", { skip }, () => {
  const servers: ChildProcess[] = [];
  before(async () => {
    for (const name of [pod, peer]) ip("netns", "add", name);
    ip("-n", pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", peer);
    for (const [name, address] of [
      [pod, podIp],
      [peer, peerIp],
    ] as const) {
      ip("-n", name, "address", "add", `${address}/24`, "dev", "eth0");
      ip("-n", name, "link", "set", "eth0", "up");
      ip("-n", name, "link", "set", "lo", "up");
    }
    servers.push(await serve(pod, proxyUid, ["15001=outbound", "15006=inbound", "15020=agent"]));
    servers.push(await serve(pod, appUid, [`${appPort}=application`]));
    servers.push(await serve(peer, appUid, [`${appPort}=peer`]));
    capture(
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
      "15020",
    );
    capture(
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
      "15020",
    );
  });
  after(() => {
    for (const server of servers) server.kill("SIGKILL");
    for (const name of [pod, peer]) ip("netns", "delete", name);
  });

  test("what the application sends out goes to the outbound port", () => {
    assert.equal(ask(pod, appUid, peerIp, appPort), "outbound");
    assert.equal(ask(pod, appUid, peerIp, 9999), "outbound");
  });

  test("what comes in goes to the inbound port, but for the agent's own", () => {
    assert.equal(ask(peer, appUid, podIp, appPort), "inbound");
    assert.equal(ask(peer, appUid, podIp, 15020), "agent");
  });

  test("the proxy itself goes where it wants", () => {
    assert.equal(ask(pod, proxyUid, peerIp, appPort), "peer");
    assert.equal(ask(pod, proxyUid, "127.0.0.1", appPort), "application");
  });

  test("the proxy reaches the application from 127.0.0.6, and its own inbound side otherwise", () => {
    assert.equal(ask(pod, proxyUid, podIp, appPort, "127.0.0.6"), "application");
    assert.equal(ask(pod, proxyUid, podIp, appPort), "inbound");
  });

  test("the application reaches itself untouched", () => {
    assert.equal(ask(pod, appUid, "127.0.0.1", appPort), "application");
    assert.equal(ask(pod, appUid, podIp, appPort), "application");
  });

  test("without the rules everything is as before", () => {
    capture("--cleanup-only");
    assert.equal(ask(pod, appUid, peerIp, appPort), "peer");
    assert.equal(ask(peer, appUid, podIp, appPort), "application");
    const saved = inNamespace(pod, "iptables-save");
    assert.doesNotMatch(saved, /ISTIO|-A /);
  });
});

function capture(...args: readonly string[]): void {
  inNamespace(pod, process.execPath, join(root, "src/apps/agent/main.ts"), "capture", ...args);
}

function ask(namespace: string, uid: number, host: string, port: number, from = ""): string {
  return inNamespace(namespace, process.execPath, "-e", clientScript, String(uid), host, String(port), from);
}

async function serve(namespace: string, uid: number, listening: readonly string[]): Promise<ChildProcess> {
  const args = ["netns", "exec", namespace, process.execPath, "-e", serverScript, String(uid), ...listening];
  const server = spawn("ip", args, { stdio: ["ignore", "pipe", "inherit"] });
  await new Promise<void>((resolve, reject) => {
    server.stdout.once("data", () => resolve());
    server.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return server;
}

function inNamespace(namespace: string, ...command: readonly string[]): string {
  return execFileSync("ip", ["netns", "exec", namespace, ...command], { encoding: "utf8" });
}

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "inherit"] });
}

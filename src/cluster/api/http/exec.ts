// `kubectl exec`: a command in a container, its streams carried by SPDY/3.1, as Kubernetes' clients speak it since ever. Clients that
// try WebSocket first fall back to it.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex, Readable, Writable } from "node:stream";
import { badRequest, notOffered } from "../errors.ts";
import { SpdyConnection, type SpdyStream } from "./spdy.ts";

/** What a node is asked for when somebody runs a command. */
export interface ExecAsk {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly command: readonly string[];
}

/** A command that runs. */
export interface ExecProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Resolves with its exit code once its output has ended, too. */
  readonly exited: Promise<number>;
  kill(): void;
}

/** Starts a command; throws with one sentence when the container does not run here. */
export type ExecProvider = (ask: ExecAsk) => ExecProcess;

/** A connection that its client wants to use for another protocol. */
export interface Upgrade {
  readonly socket: Duplex;
  readonly head: Buffer;
}

const protocol = "v4.channel.k8s.io";
/** How long a client may take for opening its streams, and for closing the connection after the end. */
const streamsMaxMs = 30_000;
const lingerMs = 5_000;

interface Wanted {
  readonly names: readonly string[];
  readonly ask: ExecAsk;
}

/** Answers the request by changing the protocol. Throws ApiError where that cannot be. */
export function serveExec(
  request: IncomingMessage,
  response: ServerResponse,
  upgrade: Upgrade | undefined,
  query: URLSearchParams,
  place: Omit<ExecAsk, "command">,
  provider: ExecProvider,
): void {
  const offered = String(request.headers["x-stream-protocol-version"] ?? "").split(/\s*,\s*/);
  if (upgrade === undefined || String(request.headers.upgrade).toLowerCase() !== "spdy/3.1")
    throw badRequest("exec needs an upgrade of the connection to SPDY/3.1");
  if (!offered.includes(protocol)) throw badRequest(`exec needs the stream protocol ${protocol}`);
  if (flag(query, "tty"))
    throw notOffered("a terminal is not offered by the standalone cluster: exec without -t");
  const command = query.getAll("command");
  if (command.length === 0) throw badRequest("you must specify at least 1 command for the container");
  const names = ["error", ...["stdin", "stdout", "stderr"].filter((name) => flag(query, name))];
  response.detachSocket(upgrade.socket as never);
  const lines = [
    "HTTP/1.1 101 Switching Protocols",
    "Connection: Upgrade",
    "Upgrade: SPDY/3.1",
    `X-Stream-Protocol-Version: ${protocol}`,
  ];
  upgrade.socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  carry(upgrade, { names, ask: { ...place, command } }, provider);
}

function flag(query: URLSearchParams, name: string): boolean {
  return ["true", "1"].includes(query.get(name) ?? "");
}

function carry({ socket, head }: Upgrade, { names, ask }: Wanted, provider: ExecProvider): void {
  const streams = new Map<string, SpdyStream>();
  let process: ExecProcess | undefined;
  const waiting = setTimeout(() => connection.close(), streamsMaxMs);
  const connection = new SpdyConnection(socket, head, {
    onStream: (stream) => {
      streams.set(stream.headers["streamtype"] ?? "", stream);
      if (process !== undefined || !names.every((name) => streams.has(name))) return;
      clearTimeout(waiting);
      process = started(connection, streams, ask, provider);
    },
    onClose: () => {
      clearTimeout(waiting);
      process?.kill();
    },
  });
}

function started(
  connection: SpdyConnection,
  streams: ReadonlyMap<string, SpdyStream>,
  ask: ExecAsk,
  provider: ExecProvider,
): ExecProcess | undefined {
  const finish = (status: object): void => {
    const error = streams.get("error")!;
    connection.write(error, Buffer.from(JSON.stringify(status)));
    for (const stream of streams.values()) connection.end(stream);
    setTimeout(() => connection.close(), lingerMs).unref();
  };
  let process: ExecProcess;
  try {
    process = provider(ask);
  } catch (error) {
    finish(failure("InternalError", error instanceof Error ? error.message : String(error)));
    return undefined;
  }
  const stdin = streams.get("stdin");
  // A command that does not read its input closes it first: that is its right.
  process.stdin.on("error", () => undefined);
  if (stdin === undefined) process.stdin.end();
  else {
    stdin.onData = (chunk) => process.stdin.write(chunk);
    stdin.onEnd = () => process.stdin.end();
  }
  const pumps = [
    pump(process.stdout, connection, streams.get("stdout")),
    pump(process.stderr, connection, streams.get("stderr")),
  ];
  // All of the output goes before the word that it is over.
  void Promise.all([process.exited, ...pumps]).then(([code]) =>
    finish(code === 0 ? { metadata: {}, status: "Success" } : exitStatus(code)),
  );
  return process;
}

/** Output that nobody asked for is read all the same: the command must not wait for it. */
async function pump(from: Readable, connection: SpdyConnection, to: SpdyStream | undefined): Promise<void> {
  try {
    for await (const chunk of from as AsyncIterable<Buffer>)
      if (to !== undefined && !connection.write(to, chunk)) await connection.drained();
  } catch {
    // The command was killed: what it wrote until then is there.
  }
}

function exitStatus(code: number): object {
  return {
    ...failure("NonZeroExitCode", `command terminated with non-zero exit code: exit status ${code}`),
    details: { causes: [{ reason: "ExitCode", message: String(code) }] },
  };
}

function failure(reason: string, message: string): object {
  return { metadata: {}, status: "Failure", reason, message };
}

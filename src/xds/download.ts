// Whole bodies by GET beside gRPC, over the same connections and to the same callers: what a proxy fetches by a data source of its
// configuration.

import http2 from "node:http2";
import type { Logger } from "#base";
import { GrpcError, grpcStatus, type GrpcPeer } from "./grpc-api.ts";
import { downloadMs, type ReachXdsLimit } from "./limits.ts";

/** @param name what follows the prefix in the path. Rejects with GrpcError */
export type DownloadMethod = (name: string, peer: GrpcPeer) => Promise<Uint8Array>;

export interface Downloads {
  /** Of the paths. */
  readonly prefix: string;
  readonly find: DownloadMethod;
}

export interface Download {
  readonly stream: http2.ServerHttp2Stream;
  readonly name: string;
  readonly peer: GrpcPeer;
  readonly find: DownloadMethod;
  readonly log: Logger;
  readonly reached: ReachXdsLimit;
}

/** What is handed over at a time; the next goes when the network has taken it. */
const pieceBytes = 64 * 1024;

const statusOf: Readonly<Record<number, number>> = {
  [grpcStatus.unauthenticated]: 401,
  [grpcStatus.permissionDenied]: 403,
  [grpcStatus.notFound]: 404,
  [grpcStatus.resourceExhausted]: 503,
  [grpcStatus.unavailable]: 503,
};

export async function serveDownload({ stream, name, peer, find, log, reached }: Download): Promise<void> {
  const timer = setTimeout(() => {
    reached("download");
    stream.close(http2.constants.NGHTTP2_CANCEL);
  }, downloadMs).unref();
  stream.once("close", () => clearTimeout(timer));
  // A request without a body ends only once it is read.
  stream.resume();
  try {
    send(stream, await find(name, peer));
  } catch (error) {
    if (!(error instanceof GrpcError)) log.error({ error: String(error) }, "download failed");
    refuseDownload(stream, error instanceof GrpcError ? error.code : grpcStatus.internal);
  }
}

export function refuseDownload(stream: http2.ServerHttp2Stream, code: number): void {
  if (stream.destroyed || stream.headersSent) return;
  stream.respond({ ":status": statusOf[code] ?? 500 }, { endStream: true });
}

/** The pieces are views of the bytes, which many callers share. */
function send(stream: http2.ServerHttp2Stream, bytes: Uint8Array): void {
  if (stream.destroyed) return;
  const type = "application/octet-stream";
  stream.respond({ ":status": 200, "content-type": type, "content-length": bytes.length });
  let at = 0;
  const go = (): void => {
    while (at < bytes.length && !stream.destroyed) {
      const piece = bytes.subarray(at, at + pieceBytes);
      at += piece.length;
      if (!stream.write(piece)) {
        stream.once("drain", go);
        return;
      }
    }
    stream.end();
  };
  go();
}

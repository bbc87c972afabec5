// A program of its own for tests: gRPC calls through @grpc/grpc-js-xds, which reads its bootstrap from the environment once
// a process. It is told its target as an argument, and which calls to make by messages.

import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { register } from "@grpc/grpc-js-xds";

/** A call to make: the metadata to send. */
export interface CallOrder {
  readonly id: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface CallResult {
  readonly id: number;
  /** gRPC's code by name. */
  readonly code: string;
  /** What the server answered, or the error's text. */
  readonly text: string;
}

export const whoAmI = "/mizzen.test.Echo/WhoAmI";

const deadlineMs = 5_000;

const target = process.argv[2];
if (process.send !== undefined && target !== undefined) {
  register();
  const client = new Client(target, credentials.createInsecure());
  const answer = (result: CallResult): void => {
    process.send?.(result);
  };
  process.on("message", ({ id, metadata }: CallOrder) => {
    const sent = new Metadata();
    for (const [name, value] of Object.entries(metadata)) sent.set(name, value);
    const deadline = Date.now() + deadlineMs;
    client.makeUnaryRequest(
      whoAmI,
      (text: string) => Buffer.from(text),
      (bytes: Buffer) => bytes.toString(),
      "who",
      sent,
      { deadline },
      (error, text) =>
        answer({ id, code: status[error?.code ?? 0] ?? "", text: error?.details ?? text ?? "" }),
    );
  });
  process.on("disconnect", () => process.exit(0));
}

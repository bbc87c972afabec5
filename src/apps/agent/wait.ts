// `wait`: ends when the proxy of this pod is ready. A hook of the proxy's container runs it where the application is to be held back, as
// the next container starts only after it (Istio's `pilot-agent wait`).

import { get } from "node:http";
import { ports } from "#base";

const pollMs = 100;
const timeoutMsDefault = 60_000;

/** Returns the exit code: 1 when the proxy is not ready in time. `--timeoutSeconds` is Istio's flag. */
export async function runWait(args: readonly string[]): Promise<number> {
  const flag = /^--timeoutSeconds=(\d+)$/.exec(args[0] ?? "")?.[1];
  const timeoutMs = flag === undefined ? timeoutMsDefault : Number(flag) * 1_000;
  const endMs = performance.now() + timeoutMs;
  while (performance.now() < endMs) {
    if (await isReady()) return 0;
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
  process.stderr.write(`the proxy was not ready within ${timeoutMs / 1_000} s\n`);
  return 1;
}

function isReady(): Promise<boolean> {
  return new Promise((resolve) => {
    const question = get(
      { host: "127.0.0.1", port: ports.ready, path: "/healthz/ready", agent: false, timeout: 1_000 },
      (answer) => {
        answer.resume();
        resolve(answer.statusCode === 200);
      },
    );
    question.on("timeout", () => question.destroy());
    question.on("error", () => resolve(false));
  });
}

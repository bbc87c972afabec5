// Ports for servers of tests. They lie below those that the kernel gives to connections and to servers that ask for any, or a test that
// runs beside would have one of them by the time that it is listened at.

import { createServer } from "node:net";

const lowest = 20_000;
const count = 10_000;
const given = new Set<number>();

/** Ports of 127.0.0.1 that nobody listens at, by TCP. */
export async function freePorts(wanted: number): Promise<number[]> {
  const found: number[] = [];
  while (found.length < wanted) {
    const port = lowest + Math.floor(Math.random() * count);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    found.push(port);
  }
  return found;
}

function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  return new Promise((resolve) => {
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

// Keeps a machine that cannot run the end-to-end tests from looking as if it had.

import { test } from "node:test";
import { whyNoEndToEnd } from "./able.ts";

test("this machine can run the end-to-end tests", (context) => {
  const reason = whyNoEndToEnd();
  if (reason !== undefined) context.skip(`the end-to-end part cannot run here: ${reason}`);
});

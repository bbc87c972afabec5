import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { silentLog } from "#base";
import { ListenerLimits } from "./listener-limits.ts";

function limitsOn(listeners: readonly string[]) {
  const asked: string[] = [];
  const state = { listeners, restarts: 0, answers: true };
  const limits = new ListenerLimits({
    clock: { nowMs: () => 0, monotonicMs: () => 0, after: () => () => {} },
    log: silentLog,
    admin: {
      ask: (path, method = "GET") => {
        if (!state.answers) return Promise.reject(new Error("nobody there"));
        if (method === "POST") asked.push(path);
        const listener_statuses = state.listeners.map((name) => ({ name }));
        return Promise.resolve({ status: 200, body: JSON.stringify({ listener_statuses }) });
      },
    },
    limit: 5,
    restarts: () => state.restarts,
  });
  return { limits, state, asked };
}

const limited = (name: string) => `envoy.resource_limits.listener.${name}.connection_limit=5`;

describe("limits of a router's listeners", () => {
  test("each listener is limited once, when it has come, and the agent's own never", async () => {
    const { limits, state, asked } = limitsOn(["envoy_ready", "envoy_prometheus", "0.0.0.0_8080"]);
    await limits.look();
    await limits.look();
    assert.deepEqual(asked, [`/runtime_modify?${limited("0.0.0.0_8080")}`]);
    state.listeners = ["0.0.0.0_8080", "0.0.0.0_8443", "::_8443"];
    await limits.look();
    assert.deepEqual(asked.slice(1), [
      `/runtime_modify?${limited("0.0.0.0_8443")}&${limited("%3A%3A_8443")}`,
    ]);
  });

  test("an Envoy that was started again is told anew, and one that does not answer is asked again", async () => {
    const { limits, state, asked } = limitsOn(["0.0.0.0_8080"]);
    state.answers = false;
    await limits.look();
    assert.deepEqual(asked, []);
    state.answers = true;
    await limits.look();
    state.restarts = 1;
    await limits.look();
    assert.equal(asked.length, 2);
  });
});

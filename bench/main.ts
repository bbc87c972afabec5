// `npm run bench -- [xds|data-plane|start|envoy|soak|on-demand] [--services N --proxies P --minutes M] [--json FILE]`: figures, never a
// test. `xds` also takes `--only route,churn` and `--profiles FOLDER`.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { renderTable, type Table } from "./table.ts";
import { benchDataPlane } from "./data-plane/run.ts";
import { benchEnvoy } from "./envoy/run.ts";
import { benchOnDemand } from "./on-demand/run.ts";
import { benchSoak } from "./soak/run.ts";
import { benchStart } from "./start/run.ts";
import { benchXds } from "./xds/run.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    services: { type: "string", default: "1000" },
    proxies: { type: "string", default: "300" },
    rounds: { type: "string", default: "10" },
    "churn-seconds": { type: "string", default: "20" },
    "idle-seconds": { type: "string", default: "30" },
    port: { type: "string", default: "27080" },
    connections: { type: "string", default: "16" },
    only: { type: "string" },
    profiles: { type: "string" },
    minutes: { type: "string", default: "30" },
    json: { type: "string" },
  },
});

const benches: Readonly<Record<string, () => Promise<Table>>> = {
  xds: () =>
    benchXds({
      services: Number(values.services),
      proxies: Number(values.proxies),
      rounds: Number(values.rounds),
      churnSeconds: Number(values["churn-seconds"]),
      idleSeconds: Number(values["idle-seconds"]),
      only: values.only === undefined ? undefined : new Set(values.only.split(",")),
      profiles: values.profiles,
      log: (line) => console.error(line),
    }),
  "data-plane": () =>
    benchDataPlane({
      rounds: Number(values.rounds),
      connections: Number(values.connections),
      roundMs: 3_000,
      log: (line) => console.error(line),
    }),
  start: () => benchStart({ port: Number(values.port), log: (line) => console.error(line) }),
  envoy: () =>
    benchEnvoy({
      services: Number(values.services),
      only: values.only,
      rounds: Number(values.rounds),
      log: (line) => console.error(line),
    }),
  soak: () =>
    benchSoak({
      minutes: Number(values.minutes),
      services: Number(values.services),
      proxies: Number(values.proxies),
      log: (line) => console.error(line),
    }),
  "on-demand": () =>
    benchOnDemand({
      minutes: Number(values.minutes),
      services: Number(values.services),
      log: (line) => console.error(line),
    }),
};

const [name = "xds"] = positionals;
const bench = benches[name];
if (bench === undefined) {
  console.error(`no bench is called '${name}'; there are: ${Object.keys(benches).join(", ")}`);
  process.exit(2);
}
const table = await bench();
console.log(renderTable(table));
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(table, undefined, 2)}\n`);

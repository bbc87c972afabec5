// The demo's programs, one bundle: `demo productpage|details|reviews|ratings|httpbin --version v1 --port 9080`, `demo echo ...`,
// `demo client --url URL --rate 200 --seconds 30`.

import { parseArgs } from "node:util";
import { details, ratings, reviews, type ServiceOptions } from "./backends.ts";
import { runClient } from "./client.ts";
import { advancedHelp, runAdvancedClient, runAdvancedServer } from "./echo/advanced.ts";
import { echoHelp, runEcho } from "./echo/program.ts";
import { httpbin } from "./httpbin.ts";
import { productpage } from "./productpage.ts";
import { type Route, serve } from "./web.ts";

const services: Readonly<Record<string, (options: ServiceOptions) => Route>> = {
  productpage,
  details,
  reviews,
  ratings,
  httpbin,
};
const defaultPort: Readonly<Record<string, number>> = { httpbin: 8080 };

const help = `usage: demo <program> [flags]
  productpage|details|reviews|ratings|httpbin [--version v1] [--port 9080]
  ${echoHelp}
  ${advancedHelp}
  client --url URL [--rate 10] [--seconds 10] [--header name:value] [--timeout-ms 15000]
    sends requests at a rate and prints a JSON report: sent, failed, outcomes, p50Ms, p99Ms, failures
    example: demo client --url http://productpage:9080/productpage --rate 200 --seconds 30`;

async function main(): Promise<number> {
  const [program = "", ...args] = process.argv.slice(2);
  const service = services[program];
  if (service !== undefined) {
    startService(program, service, args);
    return 0;
  }
  if (program === "echo") {
    await runEcho(args);
    return 0;
  }
  if (program === "echo-advanced") {
    await runAdvancedServer(args);
    return 0;
  }
  if (program === "echo-client") return runAdvancedClient(args);
  if (program === "client") return client(args);
  console.error(help);
  return program === "--help" || program === "help" ? 0 : 2;
}

function startService(name: string, service: (options: ServiceOptions) => Route, args: string[]): void {
  const { values } = parseArgs({
    args,
    options: { version: { type: "string", default: "v1" }, port: { type: "string" } },
  });
  // go-httpbin's image is told its port by the environment.
  const port = Number(values.port ?? process.env.PORT ?? defaultPort[name] ?? 9080);
  serve(name, port, service({ version: values.version, addressOf }));
}

/** Where another service is: as Bookinfo's manifests say it by environment. */
function addressOf(service: string): string {
  const upper = service.toUpperCase();
  const domain = process.env.SERVICES_DOMAIN ?? "";
  const host = process.env[`${upper}_HOSTNAME`] ?? (domain === "" ? service : `${service}.${domain}`);
  // Kubernetes sets <NAME>_SERVICE_PORT too, by itself, with the same meaning.
  return `${host}:${process.env[`${upper}_SERVICE_PORT`] ?? "9080"}`;
}

async function client(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      url: { type: "string", default: "" },
      rate: { type: "string", default: "10" },
      seconds: { type: "string", default: "10" },
      header: { type: "string", multiple: true, default: [] },
      "timeout-ms": { type: "string", default: "15000" },
    },
  });
  if (!URL.canParse(values.url)) {
    console.error(
      `demo client: --url is '${values.url}'; a URL is expected, as http://productpage:9080/productpage`,
    );
    return 2;
  }
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
  const headers = Object.fromEntries(
    values.header.map((text) => text.split(/:\s*(.*)/s).slice(0, 2) as [string, string]),
  );
  const report = await runClient(
    {
      url: values.url,
      perSecond: Number(values.rate),
      seconds: Number(values.seconds),
      headers,
      timeoutMs: Number(values["timeout-ms"]),
    },
    stop.signal,
  );
  console.log(JSON.stringify(report));
  return report.failed === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (cause) {
  console.error(`demo: ${cause instanceof Error ? cause.message : String(cause)}`);
  process.exitCode = 2;
}

// The part of httpbin's interface that sample manifests and tests call: what did you see, answer with this status, answer late.

import { setTimeout as sleep } from "node:timers/promises";
import { json, readBody, type Route } from "./web.ts";

const delayMaxMs = 10_000;

export function httpbin(): Route {
  return async (url, incoming) => {
    const [, verb = "", argument = ""] = url.pathname.split("/");
    const seen = {
      args: Object.fromEntries(url.searchParams),
      headers: incoming.headers,
      method: incoming.method,
      origin: incoming.socket.remoteAddress,
      url: `http://${incoming.headers.host ?? ""}${incoming.url ?? ""}`,
    };
    switch (verb) {
      case "get":
      case "":
        return json(200, seen);
      case "anything":
      case "post":
      case "put":
      case "patch":
      case "delete":
        return json(200, { ...seen, data: await readBody(incoming) });
      case "headers":
        return json(200, { headers: incoming.headers });
      case "ip":
        return json(200, { origin: seen.origin });
      case "user-agent":
        return json(200, { "user-agent": incoming.headers["user-agent"] });
      case "status":
        return { status: validStatus(argument), body: "" };
      case "delay":
        await sleep(Math.min(Number(argument) * 1_000 || 0, delayMaxMs));
        return json(200, seen);
      case "html":
        return {
          status: 200,
          headers: { "content-type": "text/html" },
          body: "<!doctype html><title>httpbin</title><h1>httpbin</h1>",
        };
      default:
        return undefined;
    }
  };
}

function validStatus(text: string): number {
  const status = Number(text);
  return Number.isInteger(status) && status >= 200 && status <= 599 ? status : 400;
}

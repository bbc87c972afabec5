// The three services behind the product page, with the HTTP interface of Istio's Bookinfo sample.

import { hostname } from "node:os";
import { get, json, passOn, type Route } from "./web.ts";

/** What a service is told on its command line and by its environment. */
export interface ServiceOptions {
  readonly version: string;
  /** Host and port of another service, from `<NAME>_HOSTNAME`, `<NAME>_SERVICE_PORT` and `SERVICES_DOMAIN`. */
  readonly addressOf: (service: string) => string;
}

export function details(): Route {
  return (url) => {
    if (url.pathname === "/health") return json(200, { status: "Details is healthy" });
    const id = idIn(url, "details");
    if (id === undefined) return undefined;
    if (Number.isNaN(id)) return json(400, { error: "please provide numeric product ID" });
    return json(200, {
      id,
      author: "William Shakespeare",
      year: 1595,
      type: "paperback",
      pages: 200,
      publisher: "PublisherA",
      language: "English",
      "ISBN-10": "1234567890",
      "ISBN-13": "123-1234567890",
    });
  };
}

export function ratings(): Route {
  return (url) => {
    if (url.pathname === "/health") return json(200, { status: "Ratings is healthy" });
    const id = idIn(url, "ratings");
    if (id === undefined) return undefined;
    if (Number.isNaN(id)) return json(400, { error: "please provide numeric product ID" });
    return json(200, { id, ratings: { Reviewer1: 5, Reviewer2: 4 } });
  };
}

const texts = [
  {
    reviewer: "Reviewer1",
    text: "Twins, mistaken letters and a very long day: I laughed until the last act.",
  },
  { reviewer: "Reviewer2", text: "Fast and funny, though not the deepest that he wrote." },
] as const;

/** v1 shows no stars and asks nobody; v2 black ones, patient; v3 red ones, impatient. Both ask `ratings`. */
export function reviews({ version, addressOf }: ServiceOptions): Route {
  const color = version === "v1" ? undefined : version === "v2" ? "black" : "red";
  const timeoutMs = color === "red" ? 2_500 : 10_000;
  return async (url, incoming) => {
    if (url.pathname === "/health") return json(200, { status: "Reviews is healthy" });
    const id = idIn(url, "reviews");
    if (id === undefined) return undefined;
    if (Number.isNaN(id)) return json(400, { error: "please provide numeric product ID" });
    const stars =
      color === undefined
        ? undefined
        : await askRatings(
            `http://${addressOf("ratings")}/ratings/${id}`,
            passOn(incoming.headers),
            timeoutMs,
          );
    return json(200, {
      id: String(id),
      podname: hostname(),
      clustername: process.env.CLUSTER_NAME ?? "null",
      version,
      reviews: texts.map(({ reviewer, text }) => {
        if (color === undefined) return { reviewer, text };
        const given = stars?.[reviewer];
        const rating =
          given === undefined
            ? { error: "Ratings service is currently unavailable" }
            : { stars: given, color };
        return { reviewer, text, rating };
      }),
    });
  };
}

/** Undefined when `ratings` fails or is too slow: the reviews are shown without. */
async function askRatings(
  url: string,
  headers: Record<string, string>,
  timeoutMs: number,
): Promise<Record<string, number> | undefined> {
  try {
    const { status, body } = await get(url, headers, timeoutMs);
    if (status !== 200) return undefined;
    const parsed: unknown = JSON.parse(body);
    const given =
      typeof parsed === "object" && parsed !== null && "ratings" in parsed ? parsed.ratings : undefined;
    if (typeof given !== "object" || given === null) return undefined;
    return Object.fromEntries(Object.entries(given).map(([reviewer, stars]) => [reviewer, Number(stars)]));
  } catch (cause) {
    console.error(`reviews: ${url}: ${String(cause)}`);
    return undefined;
  }
}

/** The number in `/<service>/<number>`; NaN when it is none; undefined for other paths. */
function idIn(url: URL, service: string): number | undefined {
  const match = new RegExp(`^/${service}/([^/]+)$`).exec(url.pathname);
  if (match === null) return undefined;
  return /^\d+$/.test(match[1] ?? "") ? Number(match[1]) : Number.NaN;
}

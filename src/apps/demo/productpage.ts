// The product page: the one service that people see. Its HTTP interface is that of Istio's Bookinfo sample.

import type { IncomingMessage } from "node:http";
import { hostname } from "node:os";
import type { ServiceOptions } from "./backends.ts";
import { indexPage, productPage } from "./page.ts";
import { type Answer, type Fetched, get, json, passOn, readBody, type Route } from "./web.ts";

export interface BookDetails {
  readonly [field: string]: string | number | undefined;
}

export interface Review {
  readonly reviewer: string;
  readonly text: string;
  readonly rating?: { readonly stars?: number; readonly color?: string; readonly error?: string };
}

export interface Reviews {
  readonly podname?: string;
  readonly version?: string;
  readonly reviews: readonly Review[];
}

/** What a backend answered, or how it failed. */
export type Part<T> =
  | { readonly kind: "shown"; readonly value: T }
  | { readonly kind: "failed"; readonly status: number };

export const product = { id: 0, title: "The Comedy of Errors" };
const backendTimeoutMs = 3_000;

export function productpage(options: ServiceOptions): Route {
  return async (url, incoming) => {
    const { pathname } = url;
    if (pathname === "/" || pathname === "/index.html") return page(indexPage());
    if (pathname === "/health")
      return { status: 200, headers: { "content-type": "text/html" }, body: "Product page is healthy" };
    if (pathname === "/productpage") return showProduct(options, incoming);
    if (pathname === "/login") return login(incoming);
    if (pathname === "/logout") return redirect("session=; Max-Age=0; Path=/");
    return api(pathname, options, incoming);
  };
}

async function showProduct(options: ServiceOptions, incoming: IncomingMessage): Promise<Answer> {
  const headers = headersFor(incoming);
  const [details, reviews] = await Promise.all([
    fetchDetails(options, headers),
    fetchReviews(options, headers),
  ]);
  return page(
    productPage({
      user: userOf(incoming),
      details: part<BookDetails>(details),
      reviews: part<Reviews>(reviews),
      servedBy: hostname(),
      version: options.version,
    }),
  );
}

async function api(
  pathname: string,
  options: ServiceOptions,
  incoming: IncomingMessage,
): Promise<Answer | undefined> {
  const match = /^\/api\/v1\/products(?:\/(\d+)(?:\/(reviews|ratings))?)?$/.exec(pathname);
  if (match === null) return undefined;
  const [, id, child] = match;
  if (id === undefined) return json(200, [product]);
  const headers = headersFor(incoming);
  if (child === undefined) return relay(await fetchDetails(options, headers), "product details");
  if (child === "reviews") return relay(await fetchReviews(options, headers), "product reviews");
  return relay(
    await attempt(`http://${options.addressOf("ratings")}/ratings/${id}`, headers),
    "product ratings",
  );
}

/** Any user name will do: the demo shows routing by user, not passwords. */
async function login(incoming: IncomingMessage): Promise<Answer> {
  const form = new URLSearchParams(incoming.method === "POST" ? await readBody(incoming) : "");
  const user = (form.get("username") ?? form.get("user") ?? "").replaceAll(/[^\w.@-]/g, "").slice(0, 64);
  return redirect(`session=${user}; Path=/; HttpOnly; SameSite=Lax`);
}

function redirect(cookie: string): Answer {
  return { status: 302, headers: { location: "/productpage", "set-cookie": cookie }, body: "" };
}

function userOf(incoming: IncomingMessage): string {
  return /(?:^|;\s*)session=([\w.@-]+)/.exec(incoming.headers.cookie ?? "")?.[1] ?? "";
}

function headersFor(incoming: IncomingMessage): Record<string, string> {
  const headers = passOn(incoming.headers);
  const user = userOf(incoming);
  // Routes match on this header.
  if (user !== "") headers["end-user"] = user;
  return headers;
}

function fetchDetails(options: ServiceOptions, headers: Record<string, string>): Promise<Fetched> {
  return attempt(`http://${options.addressOf("details")}/details/${product.id}`, headers);
}

/** Two attempts, as the original page makes: with a delay injected behind it, that shows where time-outs do not fit together. */
async function fetchReviews(options: ServiceOptions, headers: Record<string, string>): Promise<Fetched> {
  const url = `http://${options.addressOf("reviews")}/reviews/${product.id}`;
  const first = await attempt(url, headers);
  return first.status === 200 ? first : attempt(url, headers);
}

async function attempt(url: string, headers: Record<string, string>): Promise<Fetched> {
  try {
    return await get(url, headers, backendTimeoutMs);
  } catch (cause) {
    console.error(`productpage: ${url}: ${String(cause)}`);
    return { status: 500, body: "" };
  }
}

function part<T>({ status, body }: Fetched): Part<T> {
  if (status !== 200) return { kind: "failed", status };
  try {
    return { kind: "shown", value: JSON.parse(body) as T };
  } catch {
    return { kind: "failed", status: 502 };
  }
}

function relay({ status, body }: Fetched, what: string): Answer {
  if (status === 200) return { status, headers: { "content-type": "application/json" }, body };
  return json(status, { error: `Sorry, ${what} are currently unavailable for this book.` });
}

function page(body: string): Answer {
  return { status: 200, headers: { "content-type": "text/html; charset=utf-8" }, body };
}

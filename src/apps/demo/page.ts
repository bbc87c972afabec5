// The product page as HTML: one self-contained document, without scripts or anything fetched from elsewhere.

import { type BookDetails, type Part, product, type Review, type Reviews } from "./productpage.ts";

export interface ProductView {
  /** "" when nobody is signed in. */
  readonly user: string;
  readonly details: Part<BookDetails>;
  readonly reviews: Part<Reviews>;
  readonly servedBy: string;
  readonly version: string;
}

const style = `
:root { --ink:#1d2433; --soft:#5b6478; --line:#e3e6ee; --paper:#fff; --ground:#f5f6fa; --accent:#2f5bd8; --bad:#b3261e; --badground:#fdeceb }
@media (prefers-color-scheme: dark) { :root { --ink:#e8ebf4; --soft:#9aa4bb; --line:#2c3448; --paper:#171d2b; --ground:#0f1420; --accent:#7fa0ff; --bad:#ffb4ab; --badground:#3b1a18 } }
* { box-sizing:border-box }
body { margin:0; background:var(--ground); color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif }
header { display:flex; align-items:center; gap:1rem; padding:.9rem clamp(1rem,4vw,3rem); background:var(--paper); border-bottom:1px solid var(--line) }
header .brand { font-weight:700; letter-spacing:.01em; margin-right:auto } header .brand span { color:var(--accent) }
header form { display:flex; gap:.5rem; margin:0 } header .who { color:var(--soft) }
input,button { font:inherit; padding:.35rem .7rem; border-radius:.5rem; border:1px solid var(--line); background:var(--ground); color:inherit; max-width:9rem }
button { background:var(--accent); border-color:var(--accent); color:var(--paper); cursor:pointer }
main { max-width:62rem; margin:0 auto; padding:clamp(1rem,4vw,3rem); display:grid; gap:1.5rem; grid-template-columns:repeat(auto-fit,minmax(19rem,1fr)) }
.hero { grid-column:1/-1 } h1 { font:700 clamp(1.8rem,5vw,2.7rem)/1.15 Georgia,serif; margin:0 0 .4rem } .hero p { color:var(--soft); max-width:42rem; margin:0 }
section { background:var(--paper); border:1px solid var(--line); border-radius:.9rem; padding:1.4rem }
h2 { font-size:1rem; margin:0 0 1rem; display:flex; justify-content:space-between; align-items:baseline; gap:1rem }
h2 small { font-weight:400; color:var(--soft); font-size:.8rem; overflow-wrap:anywhere; text-align:right }
dl { display:grid; grid-template-columns:auto 1fr; gap:.35rem 1.2rem; margin:0 } dt { color:var(--soft) } dd { margin:0 }
blockquote { margin:0 0 1.2rem; padding:0 0 0 1rem; border-left:3px solid var(--line) } blockquote:last-child { margin-bottom:0 }
blockquote p { margin:0 0 .3rem } cite { color:var(--soft); font-style:normal; font-size:.9rem }
.stars { letter-spacing:.12em; font-size:1.15rem; display:block } .black { color:var(--ink) } .red { color:#d6352b }
.failed { background:var(--badground); border-color:var(--bad) } .failed h2, .note { color:var(--bad) } .note { font-size:.9rem }
footer { text-align:center; color:var(--soft); font-size:.85rem; padding:0 1rem 2rem }`;

export function productPage(view: ProductView): string {
  return documentOf(
    product.title,
    `${banner(view.user)}
<main>
<div class="hero"><h1>${product.title}</h1>
<p>Two pairs of twins, each parted at birth, meet in one town without knowing it. Everybody takes everybody for somebody else, and by evening there is an arrest, a locked door and a gold chain to be explained.</p></div>
${detailsSection(view.details)}
${reviewsSection(view.reviews)}
</main>
<footer>productpage ${escape(view.version)} on pod ${escape(view.servedBy)}</footer>`,
  );
}

export function indexPage(): string {
  return documentOf(
    "Bookinfo",
    `${banner("")}<main><div class="hero"><h1>Bookinfo</h1><p>Four small services that show a mesh at work. <a href="/productpage">To the product page</a></p></div></main>`,
  );
}

function documentOf(title: string, body: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${title}</title><style>${style}</style></head>
<body>${body}</body></html>
`;
}

function banner(user: string): string {
  const form =
    user === ""
      ? `<form method="post" action="/login"><input name="username" placeholder="jason" aria-label="User name"><button>Sign in</button></form>`
      : `<span class="who">signed in as <b>${escape(user)}</b></span><form action="/logout"><button>Sign out</button></form>`;
  return `<header><span class="brand">Book<span>info</span></span>${form}</header>`;
}

function detailsSection(details: Part<BookDetails>): string {
  if (details.kind === "failed") {
    return failure(
      "Error fetching product details!",
      "Sorry, product details are currently unavailable for this book.",
      details.status,
    );
  }
  const rows = Object.entries(details.value)
    .filter(([name]) => name !== "id")
    .map(
      ([name, value]) =>
        `<dt>${escape(name[0]?.toUpperCase() + name.slice(1))}</dt><dd>${escape(String(value))}</dd>`,
    );
  return `<section><h2>Book Details</h2><dl>${rows.join("")}</dl></section>`;
}

function reviewsSection(reviews: Part<Reviews>): string {
  if (reviews.kind === "failed") {
    return failure(
      "Error fetching product reviews!",
      "Sorry, product reviews are currently unavailable for this book.",
      reviews.status,
    );
  }
  const { podname = "", version, reviews: list } = reviews.value;
  const from = `reviews${version === undefined ? "" : ` ${escape(version)}`} on pod ${escape(podname)}`;
  return `<section><h2>Book Reviews <small>Reviews served by: ${from}</small></h2>${list.map(quote).join("")}</section>`;
}

function quote({ reviewer, text, rating }: Review): string {
  return `<blockquote><p>${escape(text)}</p>${stars(rating)}<cite>${escape(reviewer)}</cite></blockquote>`;
}

function stars(rating: Review["rating"]): string {
  if (rating === undefined) return "";
  if (rating.stars === undefined) return `<p class="note">${escape(rating.error ?? "")}</p>`;
  const given = Math.min(5, Math.max(0, Math.round(rating.stars)));
  const color = rating.color === "red" ? "red" : "black";
  return `<span class="stars ${color}" role="img" aria-label="${given} of 5 stars, ${color}">${"★".repeat(given)}${"☆".repeat(5 - given)}</span>`;
}

function failure(title: string, text: string, status: number): string {
  return `<section class="failed"><h2>${title} <small>HTTP ${status}</small></h2><p>${text}</p></section>`;
}

function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replaceAll(/[&<>"']/g, (character) => entities[character] ?? character);
}

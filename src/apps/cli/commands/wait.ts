// `mizzen wait`: until an object has reached the proxies that it is for.

import { kinds, resourceName, type KindInfo, type KubeObject } from "#objects";
import { askControlPlanes, openAccess, type Access } from "../access.ts";
import { clusterFlags, type Command, numberFlag, textFlag, UsageError } from "../command.ts";
import { waitUntil } from "../wait.ts";

/** One replica's answer of /debug/distributionz. */
interface Distribution {
  readonly generation?: number;
  readonly proxies: number;
  readonly holding: number;
  readonly waiting: readonly string[];
}

const waitingNamedMax = 3;

export const wait: Command = {
  name: "wait",
  summary: "until an object has reached every proxy that it is for",
  arguments: "<object> [name]",
  flags: [
    ...clusterFlags,
    { syntax: "-n, --namespace <namespace>", help: "the object's namespace", default: "default" },
    {
      syntax: "--for <state>",
      help: "what to wait for",
      default: "distribution",
      choices: ["distribution"],
    },
    { syntax: "--generation <number>", help: "wait for this generation (default: the object's own)" },
    { syntax: "--timeout <seconds>", help: "how long to wait, as 30 or 30s", default: "30s" },
  ],
  examples: [
    { line: "mizzen wait --for=distribution vs/reviews", does: "until all proxies have it as it is now" },
    { line: "mizzen wait destinationrule reviews.bookinfo --timeout 10s", does: "of another namespace" },
  ],
  async run(invocation) {
    const { args, flags, io } = invocation;
    const object = parseObject(args[0] ?? "", args[1], textFlag(flags, "namespace") ?? "default");
    const timeoutMs = parseTimeout(textFlag(flags, "timeout") ?? "30s");
    const access = await openAccess(invocation);
    const generation = numberFlag(flags, "generation") ?? (await generationOf(access, object));
    let last = { proxies: 0, holding: 0 };
    await waitUntil(`the distribution of ${object.text}`, timeoutMs, async () => {
      const answers = await distributions(access, object);
      last = sumOf(answers);
      return missing(answers, generation);
    });
    io.out(
      last.proxies === 0
        ? `${object.text} generation ${generation} concerns no connected proxy`
        : `${object.text} generation ${generation} is held by ${last.holding} of ${last.proxies} proxies`,
    );
  },
};

interface Wanted {
  readonly kind: KindInfo;
  readonly namespace: string;
  readonly name: string;
  readonly text: string;
}

/** `vs/reviews`, or `virtualservice reviews.default` as istioctl has it. */
function parseObject(first: string, second: string | undefined, namespace: string): Wanted {
  const [word = "", name = ""] = second === undefined ? first.split("/") : [first, second];
  const lower = word.toLowerCase();
  // Istio's kinds go before those of Gateway API that have the same name.
  const kind = kinds
    .filter(({ family }) => family !== "kubernetes")
    .find((info) =>
      [info.kind.toLowerCase(), info.plural, resourceName(info), ...info.shortNames].includes(lower),
    );
  if (kind === undefined || name === "")
    throw new UsageError(`'${first}' names no object; write it as vs/reviews or virtualservice reviews`);
  const [own = "", ...rest] = name.split(".");
  const place = second === undefined || rest.length === 0 ? namespace : rest.join(".");
  const shown = second === undefined ? name : own;
  return { kind, namespace: place, name: shown, text: `${kind.kind} ${place}/${shown}` };
}

function parseTimeout(text: string): number {
  const [, digits, unit = "s"] = /^(\d+)(ms|s|m)?$/.exec(text) ?? [];
  if (digits === undefined) throw new UsageError(`--timeout is '${text}'; write it as 30 or 30s`);
  return Number(digits) * { ms: 1, s: 1_000, m: 60_000 }[unit as "ms" | "s" | "m"];
}

async function generationOf(access: Access, { kind, namespace, name }: Wanted): Promise<number> {
  const path = `/apis/${kind.group}/${kind.storageVersion}/namespaces/${namespace}/${kind.plural}/${name}`;
  const { metadata } = await access.kube.get<KubeObject>(path);
  return metadata.generation ?? 0;
}

async function distributions(access: Access, { kind, namespace, name }: Wanted): Promise<Distribution[]> {
  const query = new URLSearchParams({ kind: kind.kind, namespace, name });
  const answers = await askControlPlanes(access, `/debug/distributionz?${query}`);
  return answers.map(({ answer }) => answer as Distribution);
}

function sumOf(answers: readonly Distribution[]): { readonly proxies: number; readonly holding: number } {
  return {
    proxies: answers.reduce((sum, { proxies }) => sum + proxies, 0),
    holding: answers.reduce((sum, { holding }) => sum + holding, 0),
  };
}

/** What is waited for still; undefined when nothing. */
function missing(answers: readonly Distribution[], generation: number): string | undefined {
  const behind = answers.filter((one) => (one.generation ?? -1) < generation).length;
  if (behind > 0) return `${behind} of ${answers.length} control planes to read generation ${generation}`;
  const { proxies, holding } = sumOf(answers);
  if (holding >= proxies) return undefined;
  const names = answers.flatMap(({ waiting }) => waiting.map((id) => id.split("~")[2] ?? id));
  const shown = names.slice(0, waitingNamedMax).join(", ");
  return `${proxies - holding} of ${proxies} proxies: ${shown}${names.length > waitingNamedMax ? ", ..." : ""}`;
}

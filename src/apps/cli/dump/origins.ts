// Which objects a resource of a proxy is made from, as the control plane says it: shown as comments, so that what is printed stays
// Envoy's own configuration.

import { Document, isCollection, isMap, isSeq, type Node } from "yaml";
import { askControlPlanes, type Access } from "../access.ts";

/** By type and name: lines such as `EnvoyFilter default/own spec.configPatches[0]`. */
export type Origins = Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>;

/** The control plane's name for what a part of a dump shows. */
const typeOfPart: Readonly<Record<string, string>> = {
  clusters: "cluster",
  listeners: "listener",
  routes: "route",
  endpoints: "endpoint",
};

/** Empty when no control plane knows the pod, or none can be asked: the dump is worth showing without. */
export async function originsOfPod(access: Access, pod: string): Promise<Origins> {
  try {
    const answers = await askControlPlanes(access, `/debug/originz?proxyID=${encodeURIComponent(pod)}`);
    return Object.assign({}, ...answers.map(({ answer }) => answer as Origins)) as Origins;
  } catch {
    return {};
  }
}

/** The parts as YAML, each resource under a comment that says where it comes from. */
export function renderWithOrigins(
  parts: Readonly<Record<string, unknown>>,
  origins: Origins,
  single: boolean,
): string {
  const document = new Document(single ? Object.values(parts)[0] : parts);
  for (const part of Object.keys(parts)) {
    const list: unknown = single ? document.contents : document.get(part, true);
    const ofType = origins[typeOfPart[part] ?? ""] ?? {};
    const hosts = part === "routes" ? (origins["virtualHost"] ?? {}) : {};
    if (!isSeq(list)) continue;
    for (const item of list.items) {
      if (!isMap(item)) continue;
      const name = String(item.get("name") ?? item.get("cluster_name") ?? "");
      const ofHosts = Object.entries(hosts).flatMap(([host, lines]) =>
        host.startsWith(`${name}/`) ? lines.map((line) => `${host.slice(name.length + 1)}: ${line}`) : [],
      );
      comment(item, [...(ofType[name] ?? []), ...ofHosts]);
    }
  }
  return document.toString().trimEnd();
}

function comment(item: Node, lines: readonly string[]): void {
  if (lines.length > 0 && isCollection(item))
    item.commentBefore = lines.map((line) => ` from ${line}`).join("\n");
}

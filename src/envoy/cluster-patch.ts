// Patches of clusters. What Envoy keeps in two places, an older field and a newer one, is merged into the one that the mesh uses,
// since Envoy would not look at the other.

import type { ReadyPatch } from "./envoy-filter.ts";
import { listMerge } from "./list-patch.ts";
import { mergeAnys, mergeMessages, type ListMerge } from "./merge.ts";
import { typePrefix, type Message } from "./proto/api.ts";

const clusterName = "envoy.config.cluster.v3.Cluster";
const optionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

export function patchCluster(cluster: Message, { operation, value }: ReadyPatch): Message {
  if (!operation.startsWith("MERGE")) return cluster;
  const lists = listMerge(operation);
  const { transportSocket, ...rest } = value;
  const plain = withProtocolOptions(cluster, rest);
  const offering = value["http2ProtocolOptions"] === undefined ? {} : offeringHttp2(cluster);
  const merged = mergeMessages(clusterName, { ...cluster, ...offering }, plain, lists);
  return transportSocket === undefined
    ? merged
    : withTransportSocket(merged, transportSocket as Message, lists);
}

/** The older fields for HTTP options, in the form of the newer one where the cluster has that. */
function withProtocolOptions(cluster: Message, value: Message): Message {
  const options = cluster["typedExtensionProtocolOptions"] as Readonly<Record<string, Message>> | undefined;
  if (options?.[optionsName] === undefined && value["http2ProtocolOptions"] === undefined) return value;
  const {
    http2ProtocolOptions,
    httpProtocolOptions,
    commonHttpProtocolOptions,
    upstreamHttpProtocolOptions,
    ...rest
  } = value;
  const explicit =
    http2ProtocolOptions !== undefined
      ? { explicitHttpConfig: { http2ProtocolOptions } }
      : httpProtocolOptions !== undefined
        ? { explicitHttpConfig: { httpProtocolOptions } }
        : {};
  const moved = {
    ...explicit,
    ...(commonHttpProtocolOptions === undefined ? {} : { commonHttpProtocolOptions }),
    ...(upstreamHttpProtocolOptions === undefined ? {} : { upstreamHttpProtocolOptions }),
  };
  if (Object.keys(moved).length === 0) return value;
  const own = rest["typedExtensionProtocolOptions"] as Readonly<Record<string, Message>> | undefined;
  const newer = mergeAnys(
    { "@type": typePrefix + optionsName, ...moved },
    own?.[optionsName] ?? { "@type": typePrefix + optionsName },
  );
  return { ...rest, typedExtensionProtocolOptions: { ...own, [optionsName]: newer } };
}

/** What the proxy offers in its TLS hello has to be what it will speak. */
function offeringHttp2({ transportSocket, transportSocketMatches }: Message): Message {
  const matches = transportSocketMatches as readonly Message[] | undefined;
  return {
    ...(transportSocket === undefined ? {} : { transportSocket: withHttp2Names(transportSocket as Message) }),
    ...(matches === undefined
      ? {}
      : {
          transportSocketMatches: matches.map((match) => ({
            ...match,
            transportSocket: withHttp2Names(match["transportSocket"] as Message),
          })),
        }),
  };
}

const http2Names: Readonly<Record<string, string>> = { "istio-http/1.1": "istio-h2", "http/1.1": "h2" };

function withHttp2Names(socket: Message): Message {
  const config = socket["typedConfig"] as Message | undefined;
  const common = config?.["commonTlsContext"] as Message | undefined;
  const alpn = common?.["alpnProtocols"] as readonly string[] | undefined;
  if (alpn === undefined) return socket;
  const alpnProtocols = alpn.map((name) => http2Names[name] ?? name);
  return { ...socket, typedConfig: { ...config, commonTlsContext: { ...common, alpnProtocols } } };
}

/** As Istio has it: into the socket of that name, be it one of several; a cluster never gets a second one beside those. */
function withTransportSocket(cluster: Message, socket: Message, lists: ListMerge): Message {
  const merge = (under: Message): Message => ({
    ...under,
    typedConfig: mergeAnys(
      under["typedConfig"] as Message | undefined,
      socket["typedConfig"] as Message,
      lists,
    ),
  });
  const matches = (cluster["transportSocketMatches"] ?? []) as readonly Message[];
  if (matches.length > 0) {
    const at = matches.findIndex((match) => isNamed(match["transportSocket"] as Message | undefined, socket));
    const match = matches[at];
    if (match === undefined) return cluster;
    const changed = { ...match, transportSocket: merge(match["transportSocket"] as Message) };
    return { ...cluster, transportSocketMatches: matches.toSpliced(at, 1, changed) };
  }
  const own = cluster["transportSocket"] as Message | undefined;
  return { ...cluster, transportSocket: own !== undefined && isNamed(own, socket) ? merge(own) : socket };
}

function isNamed(one: Message | undefined, other: Message): boolean {
  return one !== undefined && one["name"] === other["name"] && other["typedConfig"] !== undefined;
}

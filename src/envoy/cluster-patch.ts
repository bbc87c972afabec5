// EnvoyFilters that turn a cluster to HTTP/2 by the field that Envoy had for it first. Where the newer options stand beside
// it, Envoy does not look at it; users of Istio write it still, and mean it.

import { mergeMessages } from "./merge.ts";
import { typed, type Message, type TypedMessage } from "./proto/api.ts";
import { messageNameOf } from "./resource.ts";

const optionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

export function mergeCluster(cluster: Message, patch: Message): Message {
  const merged = mergeMessages(messageNameOf("cluster"), cluster, patch);
  const { http2ProtocolOptions, ...rest } = merged;
  if (http2ProtocolOptions === undefined) return merged;
  const all = (rest["typedExtensionProtocolOptions"] ?? {}) as Readonly<Record<string, TypedMessage>>;
  const {
    useDownstreamProtocolConfig: _client,
    autoConfig: _automatic,
    explicitHttpConfig: _explicit,
    ...kept
  } = all[optionsName] ?? typed(optionsName);
  const options = { ...kept, explicitHttpConfig: { http2ProtocolOptions } };
  return {
    ...rest,
    ...sockets(rest),
    typedExtensionProtocolOptions: { ...all, [optionsName]: options },
  };
}

/** What the proxy offers in its TLS hello has to be what it will speak. */
function sockets({ transportSocket, transportSocketMatches }: Message): Message {
  const matches = transportSocketMatches as readonly Message[] | undefined;
  return {
    ...(transportSocket === undefined ? {} : { transportSocket: offeringHttp2(transportSocket as Message) }),
    ...(matches === undefined
      ? {}
      : {
          transportSocketMatches: matches.map((match) => ({
            ...match,
            transportSocket: offeringHttp2(match["transportSocket"] as Message),
          })),
        }),
  };
}

const http2Names: Readonly<Record<string, string>> = { "istio-http/1.1": "istio-h2", "http/1.1": "h2" };

function offeringHttp2(socket: Message): Message {
  const config = socket["typedConfig"] as Message | undefined;
  const common = config?.["commonTlsContext"] as Message | undefined;
  const alpn = common?.["alpnProtocols"] as readonly string[] | undefined;
  if (alpn === undefined) return socket;
  const alpnProtocols = alpn.map((name) => http2Names[name] ?? name);
  return { ...socket, typedConfig: { ...config, commonTlsContext: { ...common, alpnProtocols } } };
}

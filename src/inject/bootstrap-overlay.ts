// What EnvoyFilters change in Envoy's bootstrap goes into the pod when it is made, since an Envoy reads it once, at its start:
// as the environment of the proxy's container, for its agent.

import { bootstrapOverlayVariable } from "#base";
import { findContainer, proxyContainerName, type Pod } from "./pod.ts";

/** The proxy of a pod, as far as patches are chosen by it. */
export interface InjectedProxy {
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly isGateway: boolean;
  /** Its metadata, by name, as far as it stands in the pod. */
  readonly facts: Readonly<Record<string, string>>;
}

/** A pod that is larger is hard on the API server: such an overlay is left out. */
const overlayLengthMax = 65_536;

/**
 * The pod with the overlay for its proxy, which the callback finds; the same pod where there is none, or no proxy, or where it
 * is too long.
 */
export function withBootstrapOverlay(
  pod: Pod,
  namespace: string,
  overlayFor: (proxy: InjectedProxy) => object | undefined,
): { readonly pod: Pod; readonly tooLong: boolean } {
  const container = findContainer(pod, proxyContainerName);
  if (container === undefined) return { pod, tooLong: false };
  const env = container.env ?? [];
  const labels = pod.metadata?.labels ?? {};
  const isGateway = (container.args ?? []).includes("router");
  const overlay = overlayFor({ namespace, labels, isGateway, facts: factsIn(env, pod) });
  if (overlay === undefined) return { pod, tooLong: false };
  const value = JSON.stringify(overlay);
  if (value.length > overlayLengthMax) return { pod, tooLong: true };
  const others = env.filter(({ name }) => name !== bootstrapOverlayVariable);
  const changed = { ...container, env: [...others, { name: bootstrapOverlayVariable, value }] };
  const replaced = <C>(list: readonly C[] | undefined): C[] | undefined =>
    list?.map((one) => ((one as unknown) === container ? (changed as C) : one));
  const { containers, initContainers } = pod.spec ?? {};
  return {
    pod: {
      ...pod,
      spec: {
        ...pod.spec,
        ...(containers === undefined ? {} : { containers: replaced(containers) }),
        ...(initContainers === undefined ? {} : { initContainers: replaced(initContainers) }),
      },
    } as Pod,
    tooLong: false,
  };
}

const metaPrefix = "ISTIO_META_";

function factsIn(
  env: readonly { readonly name: string; readonly value?: string }[],
  pod: Pod,
): Readonly<Record<string, string>> {
  const said = env.flatMap(({ name, value }) =>
    name.startsWith(metaPrefix) && value !== undefined ? [[name.slice(metaPrefix.length), value]] : [],
  );
  const account = (pod.spec as { readonly serviceAccountName?: string } | undefined)?.serviceAccountName;
  return { ...Object.fromEntries(said), SERVICE_ACCOUNT: account ?? "default" };
}

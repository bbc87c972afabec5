// What the host side and the cluster's process tell each other over their IPC channel. Closing the channel tells the cluster to end.

export type FromCluster =
  | { readonly kind: "ready"; readonly kubeconfigTemplate: string }
  | { readonly kind: "failed"; readonly text: string };

export type ToCluster = { readonly kind: "stop" };

/** Stands in the kubeconfig for the address that only the host side knows. */
export const apiUrlMark = "https://api-address.invalid";

export function isFromCluster(message: unknown): message is FromCluster {
  return (
    typeof message === "object" &&
    message !== null &&
    "kind" in message &&
    (message.kind === "ready" || message.kind === "failed")
  );
}

export function isStop(message: unknown): message is ToCluster {
  return typeof message === "object" && message !== null && "kind" in message && message.kind === "stop";
}

// How machines outside of the cluster are entered: Istio's annotations of WorkloadEntries that a WorkloadGroup makes.

export const machineAnnotations = {
  /** The WorkloadGroup by which the entry was made; who makes an entry by hand leaves it away. */
  group: "istio.io/autoRegistrationGroup",
  /** The replica of the control plane that the machine is connected to. */
  controller: "istio.io/workloadController",
  connectedAt: "istio.io/connectedAt",
  disconnectedAt: "istio.io/disconnectedAt",
  /** `true`: the entry serves only while it is known to be healthy. */
  healthChecks: "proxy.istio.io/health-checks-enabled",
} as const;

/** The condition of a WorkloadEntry's status that says whether its workload is healthy. */
export const healthyCondition = "Healthy";

/** Istio's name for the entry of a machine: group, address and network. */
export function machineEntryName(group: string, address: string, network: string): string {
  const place = address.replaceAll(":", "-").replaceAll(".", "-");
  const text = `${group}-${place}${network === "" ? "" : `-${network}`}`.toLowerCase();
  return text.replace(/[^a-z0-9.-]/g, "-").slice(0, 253);
}

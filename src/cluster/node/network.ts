// The pod network. It lives whole inside one network namespace of its own, which has no way out: a bridge, and for every Pod a
// namespace joined to it by a veth pair. A Pod's address is a /32 and everything goes through the bridge's address, so that even
// traffic between two Pods is routed by the node: that is where a ClusterIP is translated, there and on the way back.

import { run } from "./command.ts";
import { podKey, podNetns, type ClusterLayout } from "./names.ts";

export interface NetworkPlan {
  readonly podCidr: string;
  readonly serviceCidr: string;
  /** The bridge's address: the node's own, the Pods' gateway, where the API server listens. */
  readonly nodeIp: string;
  readonly dnsIp: string;
  /** The ClusterIP of `default/kubernetes`. */
  readonly apiServiceIp: string;
}

const bridge = "mizzen0";

/** Derives the fixed addresses from the two ranges: first of the pods' for the node, first and tenth of the services' for API and DNS. */
export function planNetwork(podCidr = "10.244.0.0/16", serviceCidr = "10.96.0.0/16"): NetworkPlan {
  return {
    podCidr,
    serviceCidr,
    nodeIp: addressIn(podCidr, 1),
    dnsIp: addressIn(serviceCidr, 10),
    apiServiceIp: addressIn(serviceCidr, 1),
  };
}

/** The `index`-th address of an IPv4 range. Throws when the range is not one or has not that many. */
export function addressIn(cidr: string, index: number): string {
  const [base = "", bitsText = ""] = cidr.split("/");
  const bits = Number(bitsText);
  const octets = base.split(".").map(Number);
  if (
    octets.length !== 4 ||
    octets.some((octet) => !(octet >= 0 && octet <= 255)) ||
    !(bits >= 8 && bits <= 30)
  ) {
    throw new Error(`${cidr} is not an IPv4 range such as 10.244.0.0/16`);
  }
  const size = 2 ** (32 - bits);
  if (index >= size) throw new Error(`${cidr} has no address number ${index}`);
  const first = octets.reduce((sum, octet) => sum * 256 + octet, 0);
  const value = first - (first % size) + index;
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}

/** Makes the node's namespace with its bridge and base rules. The caller has removed any earlier one of that name. */
export async function createNodeNetwork(layout: ClusterLayout, plan: NetworkPlan): Promise<void> {
  await run("ip", ["netns", "add", layout.nodeNetns]);
  const bits = plan.podCidr.split("/")[1];
  const links = [
    "link set lo up",
    `link add ${bridge} type bridge`,
    `address add ${plan.nodeIp}/${bits} dev ${bridge}`,
    `address add ${plan.dnsIp}/32 dev ${bridge}`,
    `link set ${bridge} up`,
    // The node's own processes reach ClusterIPs too: without a route their packets never get as far as the translation.
    `route add ${plan.serviceCidr} dev ${bridge} src ${plan.nodeIp}`,
  ].join("\n");
  // Redirects would tell Pods to bypass the router that translates for them.
  const sysctls =
    "cd /proc/sys/net/ipv4 && echo 0 >conf/all/send_redirects && echo 0 >conf/default/send_redirects && echo 1 >ip_forward";
  const script = `${sysctls} && ip -batch - <<'END'\n${links}\nEND\niptables-restore -w 5 --noflush <<'END'\n${baseRules(plan)}END\n`;
  await run("ip", ["netns", "exec", layout.nodeNetns, "sh", "-ec", script]);
}

/** The chains that service rules hang in, and the refusal of every ClusterIP that no rule translated. */
function baseRules(plan: NetworkPlan): string {
  return [
    "*nat",
    ":MZ-SERVICES - [0:0]",
    ":MZ-HAIRPIN - [0:0]",
    "-A PREROUTING -j MZ-SERVICES",
    "-A OUTPUT -j MZ-SERVICES",
    "-A POSTROUTING -j MZ-HAIRPIN",
    "COMMIT",
    "*filter",
    // A translated packet no longer bears the ClusterIP, so what still does has no endpoint (or no such service or port).
    `-A FORWARD -d ${plan.serviceCidr} -j REJECT --reject-with icmp-port-unreachable`,
    `-A OUTPUT -d ${plan.serviceCidr} ! -o lo -j REJECT --reject-with icmp-port-unreachable`,
    "COMMIT",
    "",
  ].join("\n");
}

/** Called from inside the node's namespace. Idempotence is not needed: a Pod's namespace is made once and removed once. */
export async function addPodNetwork(
  layout: ClusterLayout,
  plan: NetworkPlan,
  uid: string,
  podIp: string,
): Promise<string> {
  const netns = podNetns(layout, uid);
  const link = `v${podKey(uid)}`;
  const outside = [
    `netns add ${netns}`,
    `link add ${link} type veth peer name eth0 netns ${netns}`,
    `link set ${link} master ${bridge} up`,
  ].join("\n");
  const inside = [
    "link set lo up",
    `address add ${podIp}/32 dev eth0`,
    "link set eth0 up",
    `route add ${plan.nodeIp} dev eth0 scope link`,
    `route add default via ${plan.nodeIp} dev eth0`,
  ].join("\n");
  const script = `ip -batch - <<'END'\n${outside}\nEND\nip -n ${netns} -batch - <<'END'\n${inside}\nEND\n`;
  await run("sh", ["-ec", script]);
  return netns;
}

/** The veth pair goes with the namespace, but only once its last socket is gone: so the link is removed first, by name. */
export async function removePodNetwork(layout: ClusterLayout, uid: string): Promise<void> {
  const script = `ip link delete v${podKey(uid)} 2>/dev/null; ip netns delete ${podNetns(layout, uid)}`;
  await run("sh", ["-c", script]).catch(() => {}); // it may never have been made
}

/** Hands out the Pods' addresses, lowest free first after the last one given, so that an address rests before it is used again. */
export class AddressPool {
  readonly #cidr: string;
  readonly #size: number;
  readonly #used = new Set<number>([0, 1]); // the network itself and the node
  readonly #indexOf = new Map<string, number>();
  #last = 1;

  constructor(cidr: string) {
    this.#cidr = cidr;
    this.#size = 2 ** (32 - Number(cidr.split("/")[1])) - 1; // the last address is the broadcast address
  }

  /** Throws when every address of the range is in use. */
  take(): string {
    for (let step = 1; step <= this.#size; step++) {
      const index = (this.#last + step) % this.#size;
      if (this.#used.has(index)) continue;
      this.#used.add(index);
      this.#last = index;
      const address = addressIn(this.#cidr, index);
      this.#indexOf.set(address, index);
      return address;
    }
    throw new Error(`no pod address is free in ${this.#cidr}`);
  }

  giveBack(address: string): void {
    const index = this.#indexOf.get(address);
    if (index === undefined) return;
    this.#indexOf.delete(address);
    this.#used.delete(index);
  }
}

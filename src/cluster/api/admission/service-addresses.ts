// Gives Services their cluster addresses and node ports. It looks at what is stored, in the same step that stores, so two Services
// never get the same, and nothing has to be freed.

import type { Database } from "../database.ts";
import { forbidden, invalid, invalidValue } from "../errors.ts";
import { recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { ApiObject } from "../store.ts";

const serviceSubject = { group: "", plural: "services", kind: "Service" };
const nodePortMin = 30_000;
const nodePortMax = 32_767;
// The first addresses are left to those who ask for one by name: the API server's Service takes .1, the cluster's DNS .10.
const reservedAddresses = 16;

export class ServiceAddresses {
  readonly #database: Database;
  readonly #first: number;
  readonly #size: number;

  /** `cidr` as `10.96.0.0/16`. */
  constructor(database: Database, cidr: string) {
    const [address, bits] = cidr.split("/");
    this.#database = database;
    this.#first = numberOf(address ?? "");
    this.#size = 2 ** (32 - Number(bits));
  }

  /** The address of the API server's own Service. */
  get apiServerAddress(): string {
    return textOf(this.#first + 1);
  }

  /** Fills spec.clusterIP, clusterIPs and nodePorts in place. Throws ApiError 422 for what is taken or out of range. */
  assign(service: ApiObject, previous: ApiObject | undefined): void {
    const spec = { ...recordOf(service["spec"]) };
    service["spec"] = spec;
    const name = service.metadata.name;
    const type = spec["type"];
    if (type === "ExternalName") {
      delete spec["clusterIP"];
      delete spec["clusterIPs"];
      return;
    }
    const asked = stringOf(spec["clusterIP"]);
    if (asked === "") spec["clusterIP"] = this.#freeAddress(name);
    else if (asked !== "None" && asked !== valueAt(previous, "spec", "clusterIP")) this.#claim(name, asked);
    spec["clusterIPs"] = [spec["clusterIP"]];
    const wantsPorts =
      type === "NodePort" || (type === "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] !== false);
    const taken = wantsPorts ? this.#takenPorts(service) : new Set<number>();
    spec["ports"] = recordsOf(spec["ports"]).map((port, i) => {
      if (!wantsPorts) return withoutNodePort(port, type);
      const wanted = Number(port["nodePort"] ?? 0);
      if (wanted !== 0) this.#checkPort(name, wanted, i, taken);
      const nodePort = wanted === 0 ? freePort(name, taken) : wanted;
      taken.add(nodePort);
      return { ...port, nodePort };
    });
    if ((spec["ports"] as unknown[]).length === 0) delete spec["ports"];
  }

  #taken(): Set<string> {
    return new Set(
      this.#database.list("services").map((service) => stringOf(valueAt(service, "spec", "clusterIP"))),
    );
  }

  #freeAddress(name: string): string {
    const taken = this.#taken();
    for (let offset = reservedAddresses; offset < this.#size - 1; offset += 1) {
      const address = textOf(this.#first + offset);
      if (!taken.has(address)) return address;
    }
    throw forbidden(serviceSubject, name, "no address is left in the range of the cluster's Services");
  }

  #claim(name: string, asked: string): void {
    const offset = numberOf(asked) - this.#first;
    const isInside = offset > 0 && offset < this.#size - 1;
    if (isInside && !this.#taken().has(asked)) return;
    const why = isInside
      ? `failed to allocate IP ${asked}: provided IP is already allocated`
      : `failed to allocate IP ${asked}: the provided IP is not in the range of the cluster's Services (${textOf(this.#first)}/${32 - Math.log2(this.#size)})`;
    throw invalid(serviceSubject, name, [invalidValue("spec.clusterIPs", [asked], why)]);
  }

  #takenPorts(self: ApiObject): Set<number> {
    const others = this.#database
      .list("services")
      .filter((service) => service.metadata.uid !== self.metadata.uid);
    return new Set(
      others.flatMap((service) =>
        recordsOf(valueAt(service, "spec", "ports")).map((port) => Number(port["nodePort"] ?? 0)),
      ),
    );
  }

  #checkPort(name: string, port: number, i: number, taken: ReadonlySet<number>): void {
    const path = `spec.ports[${i}].nodePort`;
    if (port < nodePortMin || port > nodePortMax) {
      const text = `provided port is not in the valid range. The range of valid ports is ${nodePortMin}-${nodePortMax}`;
      throw invalid(serviceSubject, name, [invalidValue(path, port, text)]);
    }
    if (taken.has(port)) {
      throw invalid(serviceSubject, name, [invalidValue(path, port, "provided port is already allocated")]);
    }
  }
}

function withoutNodePort(port: Record<string, unknown>, type: unknown): Record<string, unknown> {
  if (type === "LoadBalancer") return port;
  const { nodePort: _nodePort, ...rest } = port;
  return rest;
}

function freePort(name: string, taken: ReadonlySet<number>): number {
  for (let port = nodePortMin; port <= nodePortMax; port += 1) if (!taken.has(port)) return port;
  throw forbidden(serviceSubject, name, "no node port is left");
}

function numberOf(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

function textOf(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

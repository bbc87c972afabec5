// Services: Kubernetes' defaults and checks. Addresses and node ports are given out by `admission/service-addresses.ts`.

import { isIP } from "node:net";
import { duplicate, invalidValue, notSupported, required } from "../errors.ts";
import type { FieldError } from "../errors.ts";
import { arrayOf, isRecord, recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { ApiObject } from "../store.ts";
import type { KindHooks } from "./kind.ts";
import { nameErrors } from "./names.ts";
import { portErrors, setDefault } from "./pod.ts";

const types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

export const serviceHooks: KindHooks = { defaults, prepareUpdate, validate };

function defaults(service: ApiObject): void {
  const spec = recordOf(service["spec"]);
  service["spec"] = spec;
  setDefault(spec, "sessionAffinity", "None");
  setDefault(spec, "type", "ClusterIP");
  const type = spec["type"];
  if (type !== "ExternalName") {
    setDefault(spec, "internalTrafficPolicy", "Cluster");
    setDefault(spec, "ipFamilyPolicy", "SingleStack");
    setDefault(spec, "ipFamilies", ["IPv4"]);
  }
  if (type === "NodePort" || type === "LoadBalancer") setDefault(spec, "externalTrafficPolicy", "Cluster");
  if (type === "LoadBalancer") setDefault(spec, "allocateLoadBalancerNodePorts", true);
  for (const port of recordsOf(spec["ports"])) {
    setDefault(port, "protocol", "TCP");
    if (port["targetPort"] === undefined || port["targetPort"] === 0 || port["targetPort"] === "") {
      port["targetPort"] = port["port"];
    }
  }
  setDefault(service, "status", { loadBalancer: {} });
}

/** Clients update Services without the addresses that the server gave: those stay. */
function prepareUpdate(service: ApiObject, previous: ApiObject): void {
  const spec = recordOf(service["spec"]);
  const old = recordOf(previous["spec"]);
  if (spec["type"] === "ExternalName") return;
  for (const field of ["clusterIP", "clusterIPs"]) {
    if (spec[field] === undefined || spec[field] === "") spec[field] = old[field];
  }
  const needsNodePorts = spec["type"] === "NodePort" || spec["type"] === "LoadBalancer";
  for (const port of recordsOf(spec["ports"])) {
    const before = recordsOf(old["ports"]).find(
      (other) => other["port"] === port["port"] && other["protocol"] === (port["protocol"] ?? "TCP"),
    );
    if (needsNodePorts && !port["nodePort"] && before?.["nodePort"]) port["nodePort"] = before["nodePort"];
  }
}

function validate(service: ApiObject, previous: ApiObject | undefined): FieldError[] {
  const spec = recordOf(service["spec"]);
  const errors: FieldError[] = [];
  const ports = recordsOf(spec["ports"]);
  const type = stringOf(spec["type"]);
  const headless = spec["clusterIP"] === "None";
  if (!types.includes(type)) errors.push(notSupported("spec.type", type, types));
  if (type === "ExternalName" && stringOf(spec["externalName"]) === "")
    errors.push(required("spec.externalName"));
  if (ports.length === 0 && !headless && type !== "ExternalName") errors.push(required("spec.ports"));
  errors.push(...validatePorts(ports));
  if (!["ClientIP", "None"].includes(stringOf(spec["sessionAffinity"]))) {
    errors.push(notSupported("spec.sessionAffinity", spec["sessionAffinity"], ["ClientIP", "None"]));
  }
  const address = stringOf(spec["clusterIP"]);
  if (address !== "" && !headless && isIP(address) === 0) {
    errors.push(
      invalidValue(
        "spec.clusterIPs[0]",
        address,
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
      ),
    );
  }
  const before = stringOf(valueAt(previous, "spec", "clusterIP"));
  const wasExternal = valueAt(previous, "spec", "type") === "ExternalName";
  if (previous && type !== "ExternalName" && !wasExternal && before !== "" && address !== before) {
    errors.push(invalidValue("spec.clusterIPs[0]", arrayOf(spec["clusterIPs"]), "may not change once set"));
  }
  return errors;
}

function validatePorts(ports: readonly Record<string, unknown>[]): FieldError[] {
  const errors: FieldError[] = [];
  const names = new Set<string>();
  const numbers = new Set<string>();
  ports.forEach((port, i) => {
    const path = `spec.ports[${i}]`;
    const name = stringOf(port["name"]);
    if (ports.length > 1 && name === "") errors.push(required(`${path}.name`));
    if (name !== "") errors.push(...nameErrors(name, `${path}.name`, "label"));
    if (name !== "" && names.has(name)) errors.push(duplicate(`${path}.name`, name));
    names.add(name);
    errors.push(...portErrors(port["port"], `${path}.port`));
    const protocol = stringOf(port["protocol"]);
    if (!["SCTP", "TCP", "UDP"].includes(protocol)) {
      errors.push(notSupported(`${path}.protocol`, protocol, ["SCTP", "TCP", "UDP"]));
    }
    const target = port["targetPort"];
    if (typeof target === "number") errors.push(...portErrors(target, `${path}.targetPort`));
    const key = `${protocol}/${String(port["port"])}`;
    if (numbers.has(key))
      errors.push(duplicate(path, isRecord(port) ? { port: port["port"], protocol } : port));
    numbers.add(key);
  });
  return errors;
}

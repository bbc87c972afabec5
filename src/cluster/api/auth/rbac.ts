// Role-based access control: a request is allowed when a role bound to the user, one of its groups or its service account says so.

import type { UserInfo } from "../context.ts";
import { mastersGroup } from "../context.ts";
import type { Database } from "../database.ts";
import { arrayOf, recordsOf, stringOf } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import { matchesLabels, selectorRequirements } from "../selectors.ts";
import type { ApiObject } from "../store.ts";

export type Access =
  | {
      readonly kind: "resource";
      readonly verb: string;
      readonly group: string;
      /** The plural; with a subresource in `subresource`. */
      readonly resource: string;
      readonly subresource: string;
      readonly namespace: string;
      /** "" where the request names none. */
      readonly name: string;
    }
  | { readonly kind: "path"; readonly verb: string; readonly path: string };

const rbacGroup = "rbac.authorization.k8s.io";

export class Authorizer {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  allows(user: UserInfo, access: Access): boolean {
    if (user.groups.includes(mastersGroup)) return true;
    return this.rulesFor(user, access.kind === "resource" ? access.namespace : "").some((rule) =>
      permits(rule, access),
    );
  }

  /** Every rule that holds for the user in a namespace; "" is the cluster. */
  rulesFor(user: UserInfo, namespace: string): JsonRecord[] {
    const ofCluster = this.#database
      .list(`clusterrolebindings.${rbacGroup}`)
      .filter((binding) => binds(binding, user))
      .flatMap((binding) => this.#rulesOf(binding));
    if (namespace === "") return ofCluster;
    const ofNamespace = this.#database
      .list(`rolebindings.${rbacGroup}`, namespace)
      .filter((binding) => binds(binding, user))
      .flatMap((binding) => this.#rulesOf(binding));
    return [...ofCluster, ...ofNamespace];
  }

  #rulesOf(binding: ApiObject): JsonRecord[] {
    const { kind, name } = binding["roleRef"] as { kind?: string; name?: string };
    const role =
      kind === "Role"
        ? this.#database.get(`roles.${rbacGroup}`, binding.metadata.namespace ?? "", name ?? "")
        : this.#database.get(`clusterroles.${rbacGroup}`, "", name ?? "");
    return role ? [...recordsOf(role["rules"]), ...this.#aggregated(role)] : [];
  }

  /** The rules of the roles that an aggregating role gathers by label. */
  #aggregated(role: ApiObject): JsonRecord[] {
    const selectors = recordsOf(
      (role["aggregationRule"] as JsonRecord | undefined)?.["clusterRoleSelectors"],
    );
    if (selectors.length === 0) return [];
    return this.#database
      .list(`clusterroles.${rbacGroup}`)
      .filter((other) => other.metadata.name !== role.metadata.name)
      .filter((other) =>
        selectors.some((selector) =>
          matchesLabels(selectorRequirements(selector), other.metadata.labels ?? {}),
        ),
      )
      .flatMap((other) => recordsOf(other["rules"]));
  }
}

function binds(binding: ApiObject, user: UserInfo): boolean {
  return recordsOf(binding["subjects"]).some((subject) => {
    const name = stringOf(subject["name"]);
    switch (subject["kind"]) {
      case "User":
        return name === user.username;
      case "Group":
        return user.groups.includes(name);
      case "ServiceAccount": {
        const namespace = stringOf(subject["namespace"]) || (binding.metadata.namespace ?? "");
        return user.username === `system:serviceaccount:${namespace}:${name}`;
      }
      default:
        return false;
    }
  });
}

function permits(rule: JsonRecord, access: Access): boolean {
  if (!names(rule["verbs"], access.verb)) return false;
  if (access.kind === "path") {
    return arrayOf(rule["nonResourceURLs"])
      .map(stringOf)
      .some((pattern) => pathMatches(pattern, access.path));
  }
  const resource = access.subresource === "" ? access.resource : `${access.resource}/${access.subresource}`;
  const resources = arrayOf(rule["resources"]);
  const named = arrayOf(rule["resourceNames"]);
  return (
    names(rule["apiGroups"], access.group) &&
    (names(resources, resource) ||
      (access.subresource !== "" && resources.includes(`*/${access.subresource}`))) &&
    (named.length === 0 || named.includes(access.name))
  );
}

function names(list: unknown, wanted: string): boolean {
  const all = arrayOf(list);
  return all.includes("*") || all.includes(wanted);
}

function pathMatches(pattern: string, path: string): boolean {
  return pattern.endsWith("*") ? path.startsWith(pattern.slice(0, -1)) : path === pattern;
}

// Gives Pods their service account, and a token, the cluster's CA and the namespace's name where programs look for them.

import type { Database } from "../database.ts";
import { forbidden } from "../errors.ts";
import { copyOf, isRecord, recordOf, recordsOf, stringOf, valueAt } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import { randomSuffix } from "../objects.ts";
import type { ApiObject } from "../store.ts";

const mountPath = "/var/run/secrets/kubernetes.io/serviceaccount";
const volumePrefix = "kube-api-access-";
// As Kubernetes asks for: an hour and seven seconds, so that the token is known as one of these.
const tokenSeconds = 3_607;

/** The Pod with account, volume and mounts. Throws ApiError 403 when its account does not exist. Containers added later are mounted by a second call. */
export function withServiceAccount(pod: ApiObject, database: Database): ApiObject {
  const result = copyOf(pod);
  const spec = recordOf(result["spec"]);
  const name = stringOf(spec["serviceAccountName"]) || "default";
  const account = database.get("serviceaccounts", pod.metadata.namespace ?? "", name);
  if (!account) {
    const why = `error looking up service account ${pod.metadata.namespace}/${name}: serviceaccount "${name}" not found`;
    throw forbidden({ group: "", plural: "pods", kind: "Pod" }, pod.metadata.name, why);
  }
  spec["serviceAccountName"] = name;
  spec["serviceAccount"] = name;
  if (spec["imagePullSecrets"] === undefined && Array.isArray(account["imagePullSecrets"])) {
    spec["imagePullSecrets"] = copyOf(account["imagePullSecrets"]);
  }
  const wanted = spec["automountServiceAccountToken"] ?? account["automountServiceAccountToken"] ?? true;
  if (wanted !== false) mountToken(spec);
  return result;
}

function mountToken(spec: JsonRecord): void {
  const volumes = recordsOf(spec["volumes"]);
  const present = volumes.find(isTokenVolume);
  const name = present ? stringOf(present["name"]) : `${volumePrefix}${randomSuffix()}`;
  const containers = [...recordsOf(spec["initContainers"]), ...recordsOf(spec["containers"])];
  const bare = containers.filter((container) => !recordsOf(container["volumeMounts"]).some(isTokenMount));
  if (bare.length === 0) return;
  if (!present) spec["volumes"] = [...volumes, tokenVolume(name)];
  for (const container of bare) {
    container["volumeMounts"] = [
      ...recordsOf(container["volumeMounts"]),
      { name, readOnly: true, mountPath },
    ];
  }
}

function isTokenVolume(volume: JsonRecord): boolean {
  return stringOf(volume["name"]).startsWith(volumePrefix) && isRecord(valueAt(volume, "projected"));
}

function isTokenMount(mount: JsonRecord): boolean {
  return mount["mountPath"] === mountPath;
}

function tokenVolume(name: string): JsonRecord {
  return {
    name,
    projected: {
      defaultMode: 0o644,
      sources: [
        { serviceAccountToken: { expirationSeconds: tokenSeconds, path: "token" } },
        { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
        {
          downwardAPI: {
            items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }],
          },
        },
      ],
    },
  };
}

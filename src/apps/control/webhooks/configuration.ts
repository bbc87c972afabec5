// What istiod writes into its own webhook configurations: the authority that signed its certificate, and, once it answers, that an object
// nobody could check is refused. Until then the validator fails open, so that a first installation can apply everything in one go.

import { fieldOf } from "./review.ts";

export const injectorConfigurationName = "istio-sidecar-injector";
export const validatorConfigurationName = "istio-validator-istio-d";

export interface JsonPatchOperation {
  readonly op: "add" | "test";
  readonly path: string;
  readonly value: unknown;
}

/**
 * Webhooks without which an object is taken: the one that only warns, on objects of Kubernetes itself, which must not wait for us; and
 * the one of the mesh's settings, which must be mendable while they keep us down.
 */
const dispensable: ReadonlySet<unknown> = new Set([
  "metadata.validation.istio.io",
  "mesh.validation.istio.io",
]);

/**
 * The JSON patch that brings a Mutating- or ValidatingWebhookConfiguration up to date; undefined when it is. Only webhooks that point at
 * a Service named istiod... are touched. `test` on the resource version makes a concurrent change win: its watch event brings us back.
 */
export function webhookConfigurationPatch(
  configuration: object,
  caPem: string,
): JsonPatchOperation[] | undefined {
  const caBundle = Buffer.from(caPem).toString("base64");
  const isValidator = fieldOf(configuration, "kind") === "ValidatingWebhookConfiguration";
  const webhooks = fieldOf(configuration, "webhooks");
  const operations: JsonPatchOperation[] = [];
  for (const [index, webhook] of (Array.isArray(webhooks) ? webhooks : []).entries()) {
    const client = fieldOf(webhook, "clientConfig");
    const service = fieldOf(fieldOf(client, "service"), "name");
    if (typeof service !== "string" || !service.startsWith("istiod")) continue;
    if (fieldOf(client, "caBundle") !== caBundle) {
      operations.push({ op: "add", path: `/webhooks/${index}/clientConfig/caBundle`, value: caBundle });
    }
    const refuses = isValidator && !dispensable.has(fieldOf(webhook, "name"));
    if (refuses && fieldOf(webhook, "failurePolicy") !== "Fail") {
      operations.push({ op: "add", path: `/webhooks/${index}/failurePolicy`, value: "Fail" });
    }
  }
  if (operations.length === 0) return undefined;
  const version = fieldOf(fieldOf(configuration, "metadata"), "resourceVersion");
  return version === undefined
    ? operations
    : [{ op: "test", path: "/metadata/resourceVersion", value: version }, ...operations];
}

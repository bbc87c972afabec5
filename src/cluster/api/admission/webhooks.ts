// Admission webhooks: who is asked about a request, what they are sent, and what their answers do.

import { randomUUID } from "node:crypto";
import { request as httpsRequest } from "node:https";
import type { Clock } from "#base";
import type { Database } from "../database.ts";
import { ApiError, badRequest, internalError } from "../errors.ts";
import { arrayOf, copyOf, isRecord, recordOf, recordsOf, sameJson, stringOf, valueAt } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import { apiVersionOf, inVersion } from "../kinds/kind.ts";
import { applyJsonPatch } from "../patch/merge.ts";
import { evaluate, toCel } from "../schema/cel.ts";
import { matchesLabels, selectorRequirements } from "../selectors.ts";
import type { ApiObject } from "../store.ts";
import type { Admission, AdmissionRequest } from "./admission.ts";
import { withServiceAccount } from "./service-account.ts";

const admissionGroup = "admissionregistration.k8s.io";
// A webhook's answer beyond it is an error of the webhook.
const answerBytesMax = 4 * 1024 * 1024;

export type ResolveService = (
  namespace: string,
  name: string,
  port: number,
) => { readonly host: string; readonly port: number } | undefined;

export interface WebhookParts {
  readonly database: Database;
  readonly clock: Clock;
  readonly resolveService: ResolveService;
}

export class WebhookAdmission implements Admission {
  readonly #parts: WebhookParts;

  constructor(parts: WebhookParts) {
    this.#parts = parts;
  }

  async mutate(request: AdmissionRequest): Promise<ApiObject | undefined> {
    const isNewPod = request.kind.resource === "pods" && request.operation === "CREATE";
    const built = (object: ApiObject): ApiObject =>
      isNewPod ? withServiceAccount(object, this.#parts.database) : object;
    if (!request.object) return undefined;
    let object = built(request.object);
    if (isExempt(request)) return object;
    const webhooks = this.#matching(`mutatingwebhookconfigurations.${admissionGroup}`, {
      ...request,
      object,
    });
    const asked: Array<{ webhook: Webhook; seen: ApiObject }> = [];
    for (const webhook of webhooks) {
      object = await this.#mutateBy(webhook, { ...request, object });
      asked.push({ webhook, seen: object });
    }
    const before = object;
    object = built(object);
    for (const { webhook, seen } of asked) {
      // A webhook that wants it is asked again, once, when others changed the object after it.
      if (webhook.reinvocationPolicy !== "IfNeeded" || sameJson(seen, object)) continue;
      object = await this.#mutateBy(webhook, { ...request, object });
    }
    return before === object ? object : built(object);
  }

  async #mutateBy(webhook: Webhook, request: AdmissionRequest): Promise<ApiObject> {
    const response = await this.#ask(webhook, request);
    const patch = response?.["patch"];
    if (patch === undefined || request.object === undefined) return request.object!;
    if (response?.["patchType"] !== "JSONPatch")
      throw internalError(`admission webhook "${webhook.name}" sent a patch without patchType JSONPatch`);
    const operations: unknown = JSON.parse(Buffer.from(stringOf(patch), "base64").toString("utf8"));
    return applyJsonPatch(request.object, operations);
  }

  async validate(request: AdmissionRequest): Promise<void> {
    if (isExempt(request)) return;
    const webhooks = this.#matching(`validatingwebhookconfigurations.${admissionGroup}`, request);
    await Promise.all(webhooks.map((webhook) => this.#ask(webhook, request)));
  }

  #matching(resource: string, request: AdmissionRequest): Webhook[] {
    return this.#parts.database
      .list(resource)
      .flatMap((configuration) =>
        recordsOf(configuration["webhooks"]).map((one) => webhookOf(one, configuration)),
      )
      .filter((webhook) => ruleMatches(webhook.spec, request))
      .filter((webhook) => this.#selectorsMatch(webhook.spec, request))
      .filter((webhook) => conditionsMatch(webhook, request));
  }

  #selectorsMatch(spec: JsonRecord, request: AdmissionRequest): boolean {
    const objects = selectorRequirements(spec["objectSelector"]);
    const labelled = [request.object, request.oldObject].some(
      (object) => object !== undefined && matchesLabels(objects, object.metadata.labels ?? {}),
    );
    if (!labelled) return false;
    const namespaces = selectorRequirements(spec["namespaceSelector"]);
    if (namespaces.length === 0) return true;
    const isNamespace = request.kind.resource === "namespaces";
    if (!request.kind.namespaced && !isNamespace) return true;
    const namespace = isNamespace
      ? (request.object ?? request.oldObject)
      : this.#parts.database.get("namespaces", "", request.namespace);
    return matchesLabels(namespaces, namespace?.metadata.labels ?? {});
  }

  /** The webhook's `response`; undefined when it failed and its failurePolicy ignores that. Throws ApiError when it refuses. */
  async #ask(webhook: Webhook, request: AdmissionRequest): Promise<JsonRecord | undefined> {
    let response: JsonRecord;
    try {
      response = await this.#call(webhook, request);
    } catch (cause) {
      if (webhook.failurePolicy === "Ignore") return undefined;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw internalError(`failed calling webhook "${webhook.name}": failed to call webhook: ${why}`, cause);
    }
    for (const warning of arrayOf(response["warnings"])) request.warn(stringOf(warning));
    if (response["allowed"] === true) return response;
    const status = recordOf(response["status"]);
    const message = stringOf(status["message"]) || stringOf(status["reason"]);
    const text = `admission webhook "${webhook.name}" denied the request${message === "" ? " without explanation" : `: ${message}`}`;
    const code = Number(status["code"] ?? 403);
    throw new ApiError(
      code >= 400 && code < 600 ? code : 403,
      stringOf(status["reason"]) || "Forbidden",
      text,
      recordOf(status["details"]),
    );
  }

  async #call(webhook: Webhook, request: AdmissionRequest): Promise<JsonRecord> {
    const uid = randomUUID();
    const body = JSON.stringify({
      apiVersion: "admission.k8s.io/v1",
      kind: "AdmissionReview",
      request: reviewOf(uid, request),
    });
    const target = this.#targetOf(webhook);
    const text = await post(target, body, webhook.timeoutSeconds * 1000);
    const response = valueAt(JSON.parse(text), "response");
    if (!isRecord(response)) throw new Error("the answer has no response");
    if (response["uid"] !== uid) throw new Error(`the answer is for another request: expected uid ${uid}`);
    return response;
  }

  #targetOf(webhook: Webhook): PostTarget {
    const config = recordOf(webhook.spec["clientConfig"]);
    const bundle = stringOf(config["caBundle"]);
    const ca = bundle === "" ? undefined : Buffer.from(bundle, "base64").toString("utf8");
    if (typeof config["url"] === "string") {
      const url = new URL(config["url"]);
      const port = Number(url.port || 443);
      return { host: url.hostname, port, path: url.pathname + url.search, servername: undefined, ca };
    }
    const service = recordOf(config["service"]);
    const [namespace, name] = [stringOf(service["namespace"]), stringOf(service["name"])];
    const found = this.#parts.resolveService(namespace, name, Number(service["port"] ?? 443));
    if (!found) throw new Error(`no endpoints available for service "${name}"`);
    return { ...found, path: stringOf(service["path"]) || "/", servername: `${name}.${namespace}.svc`, ca };
  }
}

interface Webhook {
  readonly name: string;
  readonly spec: JsonRecord;
  readonly failurePolicy: string;
  readonly reinvocationPolicy: string;
  readonly timeoutSeconds: number;
}

function webhookOf(spec: JsonRecord, _configuration: ApiObject): Webhook {
  return {
    name: stringOf(spec["name"]),
    spec,
    failurePolicy: stringOf(spec["failurePolicy"]) || "Fail",
    reinvocationPolicy: stringOf(spec["reinvocationPolicy"]) || "Never",
    timeoutSeconds: Number(spec["timeoutSeconds"] ?? 10),
  };
}

/** Webhook configurations are never sent to webhooks: a broken one must stay removable. */
function isExempt({ kind }: AdmissionRequest): boolean {
  return kind.group === admissionGroup && kind.kind.endsWith("WebhookConfiguration");
}

function ruleMatches(spec: JsonRecord, request: AdmissionRequest): boolean {
  const { kind, subresource } = request;
  const has = (list: unknown, wanted: string): boolean =>
    arrayOf(list).includes("*") || arrayOf(list).includes(wanted);
  const plural = subresource === "" ? kind.plural : `${kind.plural}/${subresource}`;
  // matchPolicy Equivalent: a rule for any version of the kind catches all of them, as they have one shape.
  const versions =
    spec["matchPolicy"] === "Exact" ? [request.version] : kind.versions.map((version) => version.name);
  return recordsOf(spec["rules"]).some((rule) => {
    const scope = stringOf(rule["scope"]) || "*";
    const resources = arrayOf(rule["resources"]);
    return (
      has(rule["operations"], request.operation) &&
      has(rule["apiGroups"], kind.group) &&
      versions.some((version) => has(rule["apiVersions"], version)) &&
      (scope === "*" || (scope === "Namespaced") === kind.namespaced) &&
      (resources.includes("*/*") ||
        resources.includes(plural) ||
        (subresource === "" && resources.includes("*")) ||
        (subresource !== "" &&
          (resources.includes(`*/${subresource}`) || resources.includes(`${kind.plural}/*`))))
    );
  });
}

function conditionsMatch(webhook: Webhook, request: AdmissionRequest): boolean {
  return recordsOf(webhook.spec["matchConditions"]).every((condition) => {
    const context = {
      object: request.object ? toCel(request.object, {}) : null,
      oldObject: request.oldObject ? toCel(request.oldObject, {}) : null,
      request: toCel(reviewOf("", request), {}),
    };
    try {
      return evaluate(stringOf(condition["expression"]), context) === true;
    } catch (cause) {
      if (webhook.failurePolicy === "Ignore") return false;
      throw badRequest(
        `matchCondition "${stringOf(condition["name"])}" of webhook "${webhook.name}" failed: ${cause instanceof Error ? cause.message : ""}`,
      );
    }
  });
}

function reviewOf(uid: string, request: AdmissionRequest): JsonRecord {
  const { kind, version, subresource, namespace, name, operation, user, dryRun } = request;
  const groupKind = { group: kind.group, version, kind: kind.kind };
  const resource = { group: kind.group, version, resource: kind.plural };
  const shown = (object: ApiObject | undefined): unknown =>
    object ? copyOf(inVersion(object, kind, version)) : null;
  return {
    uid,
    kind: groupKind,
    resource,
    ...(subresource === "" ? {} : { subResource: subresource, requestSubResource: subresource }),
    requestKind: groupKind,
    requestResource: resource,
    ...(name === "" ? {} : { name }),
    ...(namespace === "" ? {} : { namespace }),
    operation,
    userInfo: { username: user.username, uid: user.uid, groups: user.groups, extra: user.extra },
    object: shown(request.object),
    oldObject: shown(request.oldObject),
    dryRun,
    options: {
      apiVersion: apiVersionOf("meta.k8s.io", "v1"),
      kind: `${operation[0]}${operation.slice(1).toLowerCase()}Options`,
    },
  };
}

interface PostTarget {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  /** The name that the certificate must carry; absent: the host's. */
  readonly servername: string | undefined;
  readonly ca: string | undefined;
}

function post(target: PostTarget, body: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = httpsRequest(
      {
        host: target.host,
        port: target.port,
        path: target.path,
        method: "POST",
        ...(target.servername === undefined ? {} : { servername: target.servername }),
        ca: target.ca,
        headers: {
          "content-type": "application/json",
          accept: "application/json",
          host: target.servername ?? `${target.host}:${target.port}`,
          "content-length": Buffer.byteLength(body),
        },
        signal: AbortSignal.timeout(timeoutMs),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          bytes += chunk.length;
          if (bytes > answerBytesMax) call.destroy(new Error("the answer is too long"));
          chunks.push(chunk);
        });
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          if (response.statusCode === 200) resolve(text);
          else reject(new Error(`the webhook answered ${response.statusCode}: ${text.slice(0, 200)}`));
        });
      },
    );
    call.on("error", (error) =>
      reject(
        error.name === "TimeoutError" || error.name === "AbortError"
          ? new Error("context deadline exceeded")
          : error,
      ),
    );
    call.end(body);
  });
}

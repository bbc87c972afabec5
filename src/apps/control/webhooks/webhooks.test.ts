import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { silentLog } from "#base";
import { mergeValues, type Pod } from "#inject";
import jsonPatch from "fast-json-patch";
import { startWebhooks, webhookConfigurationPatch, type WebhookOptions } from "./index.ts";

/** A self-signed certificate for 127.0.0.1. */
function certificate(context: TestContext): { certPem: string; keyPem: string } {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-webhooks-"));
  context.after(() => rmSync(dir, { recursive: true }));
  const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
  const flags = [
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "1",
  ];
  const subject = ["-subj", "/CN=istiod", "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync("openssl", ["req", ...flags, ...subject, "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { certPem: readFileSync(cert, "utf8"), keyPem: readFileSync(key, "utf8") };
}

interface Reply {
  status: number;
  body: string;
}

async function start(
  context: TestContext,
  change: Partial<WebhookOptions> = {},
): Promise<(path: string, body: unknown) => Promise<Reply>> {
  const own = certificate(context);
  const server = await startWebhooks({
    port: 0,
    host: "127.0.0.1",
    certificate: () => own,
    namespaceLabels: () => ({ "istio-injection": "enabled" }),
    injectionConfig: () => ({ values: mergeValues(), mesh: {}, revision: "", nativeSidecars: true }),
    validateObject: () => [],
    log: silentLog,
    ...change,
  });
  context.after(() => server.close());
  return (path, body) =>
    new Promise((resolve, reject) => {
      const options = {
        port: server.port,
        host: "127.0.0.1",
        path,
        method: "POST",
        ca: own.certPem,
        agent: false,
      };
      const outgoing = request(options, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part: string) => (text += part));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
      });
      outgoing.on("error", reject);
      outgoing.end(JSON.stringify(body));
    });
}

function review(kind: string, object: unknown): unknown {
  const request = {
    uid: "u1",
    kind: { group: "", version: "v1", kind },
    namespace: "default",
    operation: "CREATE",
    object,
  };
  return { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", request };
}

interface Answered {
  response: {
    uid: string;
    allowed: boolean;
    patch?: string;
    status?: { message: string };
    warnings?: string[];
  };
}

test("a pod gets a patch that adds its sidecar", async (context) => {
  const ask = await start(context);
  const pod: Pod = { metadata: { generateName: "a-" }, spec: { containers: [{ name: "a", image: "a" }] } };
  const { response } = JSON.parse((await ask("/inject", review("Pod", pod))).body) as Answered;
  assert.equal(response.uid, "u1");
  const operations = JSON.parse(Buffer.from(response.patch ?? "", "base64").toString()) as Parameters<
    typeof jsonPatch.applyPatch
  >[1];
  const patched: Pod = jsonPatch.applyPatch(structuredClone(pod), [...operations]).newDocument;
  assert.deepEqual(
    patched.spec?.initContainers?.map(({ name }) => name),
    ["istio-init", "istio-proxy"],
  );
});

test("a pod gets what EnvoyFilters lay over its proxy's bootstrap, unless it is too long", async (context) => {
  const pod: Pod = { metadata: { labels: { app: "a" } }, spec: { containers: [{ name: "a", image: "a" }] } };
  for (const [length, isThere] of [
    [10, true],
    [100_000, false],
  ] as const) {
    const overlay = { node: { cluster: "x".repeat(length) } };
    const ask = await start(context, {
      bootstrapOverlay: ({ namespace, labels, isGateway }) =>
        namespace === "default" && labels["app"] === "a" && !isGateway ? overlay : undefined,
    });
    const { response } = JSON.parse((await ask("/inject", review("Pod", pod))).body) as Answered;
    const patch = Buffer.from(response.patch ?? "", "base64").toString();
    assert.equal(patch.includes("MIZZEN_BOOTSTRAP_OVERLAY"), isThere);
    assert.equal(
      (response.warnings ?? []).some((text) => text.includes("too long")),
      !isThere,
    );
  }
});

test("a pod whose annotations cannot work is refused with the reason", async (context) => {
  const ask = await start(context);
  const pod = {
    metadata: { annotations: { "status.sidecar.istio.io/port": "many" } },
    spec: { containers: [] },
  };
  const { response } = JSON.parse((await ask("/inject", review("Pod", pod))).body) as Answered;
  assert.equal(response.allowed, false);
  assert.match(response.status?.message ?? "", /a whole number is expected/);
});

test("a wrong object is refused with the field's path, and warnings are shown", async (context) => {
  const at = { path: "spec.hosts" };
  const ask = await start(context, {
    validateObject: () => [
      { code: "MZ1", severity: "error", at, text: "it is empty" },
      { code: "MZ2", severity: "warning", at, text: "it has no effect yet" },
    ],
  });
  const { response } = JSON.parse(
    (await ask("/validate", review("VirtualService", { metadata: { name: "v" } }))).body,
  ) as Answered;
  assert.deepEqual([response.allowed, response.status?.message], [false, "spec.hosts: it is empty [MZ1]"]);
  assert.deepEqual(response.warnings, ["spec.hosts: it has no effect yet [MZ2]"]);
});

test("what is no AdmissionReview gets 400, another path 404", async (context) => {
  const ask = await start(context);
  assert.equal((await ask("/inject", { hello: 1 })).status, 400);
  assert.equal((await ask("/other", {})).status, 404);
});

test("the webhook configuration gets the authority once, and the validator then fails closed", () => {
  const webhook = {
    clientConfig: { service: { name: "istiod", namespace: "istio-d" } },
    failurePolicy: "Ignore",
  };
  const foreign = { clientConfig: { service: { name: "other" } } };
  const warning = { ...webhook, name: "metadata.validation.istio.io" };
  const settings = { ...webhook, name: "mesh.validation.istio.io" };
  const configuration = {
    kind: "ValidatingWebhookConfiguration",
    metadata: { resourceVersion: "7" },
    webhooks: [webhook, foreign, warning, settings],
  };
  const operations = webhookConfigurationPatch(configuration, "PEM") ?? [];
  assert.deepEqual(
    operations.map(({ path }) => path),
    [
      "/metadata/resourceVersion",
      "/webhooks/0/clientConfig/caBundle",
      "/webhooks/0/failurePolicy",
      "/webhooks/2/clientConfig/caBundle",
      "/webhooks/3/clientConfig/caBundle",
    ],
  );
  const patched = jsonPatch.applyPatch(structuredClone(configuration), [...operations]).newDocument;
  assert.equal(webhookConfigurationPatch(patched, "PEM"), undefined);
});

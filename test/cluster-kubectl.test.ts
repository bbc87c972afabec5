import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import type { LogAsk } from "#cluster";
import { hasKubectl, kubectlPath, startTestServer } from "../src/cluster/api/testing.ts";
import type { TestServer } from "../src/cluster/api/testing.ts";

const why = hasKubectl ? false : "kubectl is not in .cache/bin; npm run set-up brings it";

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: "web:1", ports: [{containerPort: 80}], env: [{name: COLOUR, value: red}, {name: SIZE, value: big}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`;

const crd = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.test.mizzen.dev}
spec:
  group: test.mizzen.dev
  scope: Namespaced
  names: {plural: boats, kind: Boat, shortNames: [bt]}
  versions:
  - &v
    name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.oars, statusReplicasPath: .status.oars}}
    additionalPrinterColumns: [{name: Masts, type: integer, jsonPath: .spec.masts}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: What the boat should be.
            required: [masts]
            x-kubernetes-validations: [{rule: "self.masts > 0 || self.oars > 0", message: a boat needs a drive}]
            properties:
              masts: {type: integer, minimum: 0, maximum: 7}
              oars: {type: integer, default: 0}
              rig: {type: string, enum: [sloop, ketch]}
              crew:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, rank: {type: string}}}
          status: {type: object, properties: {oars: {type: integer}, afloat: {type: boolean}}}
  - name: v1beta1
    served: true
    storage: false
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`;

function boat(name: string, spec: string): string {
  return `{apiVersion: test.mizzen.dev/v1, kind: Boat, metadata: {name: ${name}}, spec: ${spec}}`;
}

/** What a node would hand out: a line of the past, and with follow one more. */
async function* nodeLogs(ask: LogAsk): AsyncGenerator<string> {
  yield `${ask.pod}/${ask.container} tail=${ask.tailLines ?? "all"} previous=${ask.previous}\n`;
  if (ask.follow) yield "and on\n";
}

describe("real kubectl against the standalone API server", { skip: why }, () => {
  let cluster: TestServer;
  before(async () => {
    cluster = await startTestServer({ logs: nodeLogs });
  });
  after(() => cluster.close());

  async function run(args: string, stdin?: string, env?: Record<string, string>): Promise<string> {
    const result = await cluster.kubectl(args.split(" "), stdin, env);
    assert.equal(result.code, 0, `kubectl ${args}: ${result.err}`);
    return result.out;
  }

  async function fails(args: string, stdin?: string): Promise<string> {
    const result = await cluster.kubectl(args.split(" "), stdin);
    assert.notEqual(result.code, 0, `kubectl ${args} was to fail and said ${result.out}`);
    return result.err;
  }

  it("apply creates, then changes only what the manifest changed, then finds nothing to do", async () => {
    assert.match(await run("apply -f -", web), /deployment.apps\/web created/);
    const changed = web.replace("replicas: 2", "replicas: 3").replace("value: red", "value: blue");
    assert.match(await run("apply -f -", changed), /deployment.apps\/web configured/);
    const path =
      "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].env[*].value} {.metadata.generation}";
    const got = await cluster.kubectl(["get", "deploy", "web", "-o", path]);
    assert.equal(got.out, "3 blue big 2");
    assert.match(await run("apply -f -", changed), /deployment.apps\/web unchanged/);
  });

  it("get shows the columns that users know", async () => {
    assert.match(
      await run("get svc web"),
      /NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE\nweb +ClusterIP +10\.96\.\d+\.\d+ +<none> +80\/TCP/,
    );
    assert.match(
      await run("get deploy -o wide"),
      /READY +UP-TO-DATE +AVAILABLE +AGE +CONTAINERS +IMAGES +SELECTOR\nweb +0\/3/,
    );
    assert.match(await run("get ns"), /default +Active/);
  });

  it("edit, label, annotate, scale, set image and patch reach the stored object", async () => {
    await run("edit deploy web", undefined, { EDITOR: "sed -i s/big/small/" });
    await run("label deploy web tier=front");
    await run("annotate deploy web note=hello");
    await run("scale deploy web --replicas=5");
    await run("set image deploy/web main=web:2");
    await run(
      'patch deploy web --type=json -p [{"op":"replace","path":"/spec/minReadySeconds","value":7}]'.replace(
        'replace"',
        'add"',
      ),
    );
    const path =
      "jsonpath={.metadata.labels.tier} {.metadata.annotations.note} {.spec.replicas} {.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].env[1].value} {.spec.minReadySeconds}";
    const got = await cluster.kubectl(["get", "deploy", "web", "-o", path]);
    assert.equal(got.out, "front hello 5 web:2 small 7");
  });

  it("rollout status waits for what the controller reports", async () => {
    const { store } = cluster.server;
    const waiting = cluster.kubectl(["rollout", "status", "deploy/web", "--timeout=20s"]);
    const deployment = store.get("deployments.apps", "default", "web")!;
    const status = {
      observedGeneration: deployment.metadata.generation,
      replicas: 5,
      updatedReplicas: 5,
      readyReplicas: 5,
      availableReplicas: 5,
    };
    await store.updateStatus("deployments.apps", { ...deployment, status });
    assert.match((await waiting).out, /successfully rolled out/);
  });

  it("get -w shows additions, changes and deletions as they come", async () => {
    const child = spawn(kubectlPath, ["get", "cm", "-w", "--output-watch-events", "-l", "watched=yes"], {
      env: { PATH: process.env["PATH"], HOME: cluster.dir, KUBECONFIG: join(cluster.dir, "kubeconfig") },
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
    const until = async (pattern: RegExp): Promise<void> => {
      while (!pattern.test(text)) await once(child.stdout, "data");
    };
    const { store } = cluster.server;
    const metadata = { name: "seen", namespace: "default", labels: { watched: "yes" } };
    // The watch may begin before or after the object is there; both begin with ADDED.
    await store.create("configmaps", { apiVersion: "v1", kind: "ConfigMap", metadata, data: { a: "1" } });
    await until(/ADDED +seen +1/);
    await store.patch("configmaps", "default", "seen", { data: { b: "2" } });
    await until(/MODIFIED +seen +2/);
    await store.delete("configmaps", "default", "seen");
    await until(/DELETED +seen/);
    child.kill();
    await once(child, "exit");
  });

  it("wait returns when the condition holds and when the object is gone", async () => {
    const { store } = cluster.server;
    const spec = { nodeName: "here", containers: [{ name: "c", image: "i" }] };
    const pod = await store.create("pods", {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "p", namespace: "default" },
      spec,
    });
    const ready = cluster.kubectl(["wait", "pod/p", "--for=condition=Ready", "--timeout=20s"]);
    await store.updateStatus("pods", {
      ...pod,
      status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
    });
    assert.match((await ready).out, /condition met/);
    const gone = cluster.kubectl(["delete", "pod", "p", "--timeout=20s"]);
    while (store.get("pods", "default", "p")?.metadata.deletionTimestamp === undefined)
      await new Promise(setImmediate);
    assert.equal(store.get("pods", "default", "p")?.metadata.deletionGracePeriodSeconds, 30);
    await store.delete("pods", "default", "p", { gracePeriodSeconds: 0 });
    assert.match((await gone).out, /deleted/);
  });

  it("a CustomResourceDefinition is served at once, with its schema, defaults, columns and versions", async () => {
    assert.match(await run("apply -f -", crd), /created/);
    await run("wait --for=condition=established crd/boats.test.mizzen.dev --timeout=5s");
    assert.match(await run("apply -f -", boat("ada", "{masts: 1, rig: sloop}")), /created/);
    assert.match(await run("get bt"), /NAME +MASTS\nada +1/);
    assert.equal((await cluster.kubectl(["get", "boat", "ada", "-o", "jsonpath={.spec.oars}"])).out, "0");
    assert.match(
      await run("get boats.v1beta1.test.mizzen.dev ada -o yaml"),
      /apiVersion: test.mizzen.dev\/v1beta1/,
    );
    assert.match(await run("explain boat.spec"), /What the boat should be[\s\S]*masts\t<integer> -required-/);
    await run("scale boat ada --replicas=4");
    assert.equal(
      (await cluster.kubectl(["get", "boat", "ada", "-o", "jsonpath={.spec.oars} {.metadata.generation}"]))
        .out,
      "4 2",
    );
  });

  it("an object that breaks its schema is refused with the path of each field", async () => {
    assert.match(
      await fails("apply -f -", boat("bad", "{masts: 9, rig: barge}")),
      /spec\.masts: Invalid value: 9: spec\.masts in body should be less than or equal to 7[\s\S]*spec\.rig: Unsupported value: "barge": supported values: "sloop", "ketch"/,
    );
    assert.match(await fails("apply -f -", boat("bad", "{masts: 0}")), /a boat needs a drive/);
    assert.match(
      await fails("apply -f -", boat("bad", "{masts: 1, sails: 2}")),
      /unknown field "spec\.sails"/,
    );
    assert.match(
      await fails("apply -f -", boat("bad", "{masts: many}")),
      /spec\.masts in body must be of type integer/,
    );
    assert.match(
      await fails("apply -f -", boat("Bad_", "{masts: 1}")),
      /metadata\.name: Invalid value: "Bad_"/,
    );
    assert.match(await fails("get boat bad"), /boats.test.mizzen.dev "bad" not found/);
  });

  it("server-side apply names the manager it conflicts with, and takes over by force", async () => {
    const crew = boat("eve", "{masts: 1, crew: [{name: ann, rank: mate}]}");
    await run("apply --server-side --field-manager=one -f -", crew);
    const other = boat("eve", "{masts: 2, crew: [{name: bob}]}");
    assert.match(
      await fails("apply --server-side --field-manager=two -f -", other),
      /conflict with "one": \.spec\.masts/,
    );
    await run("apply --server-side --force-conflicts --field-manager=two -f -", other);
    const names = async (): Promise<string> =>
      (await cluster.kubectl(["get", "boat", "eve", "-o", "jsonpath={.spec.masts} {.spec.crew[*].name}"]))
        .out;
    assert.equal(await names(), "2 ann bob");
    await run("apply --server-side --field-manager=one -f -", boat("eve", "{masts: 2}"));
    assert.equal(await names(), "2 bob", "what its only applier no longer names goes");
  });

  it("a namespace goes with everything in it", async () => {
    await run("apply -f -", "{apiVersion: v1, kind: Namespace, metadata: {name: island}}");
    await run("apply -n island -f -", boat("ann", "{masts: 1}"));
    await run(
      "apply -n island -f -",
      "{apiVersion: v1, kind: ConfigMap, metadata: {name: map, finalizers: [test.mizzen.dev/hold]}}",
    );
    const going = cluster.kubectl(["delete", "ns", "island", "--timeout=20s"]);
    const { store } = cluster.server;
    while (store.get("configmaps", "island", "map")?.metadata.deletionTimestamp === undefined)
      await new Promise(setImmediate);
    const late = await cluster.kubectl(["apply", "-n", "island", "-f", "-"], boat("late", "{masts: 1}"));
    assert.match(late.err, /being terminated/);
    await store.patch("configmaps", "island", "map", { metadata: { finalizers: [] } });
    assert.equal((await going).code, 0);
    assert.equal(store.get("namespaces", "", "island"), undefined);
    assert.equal(store.get("boats.test.mizzen.dev", "island", "ann"), undefined);
  });

  it("typed creations, which kubectl sends as protobuf, arrive too", async () => {
    await run("create namespace made");
    await run("create configmap settings -n made --from-literal=a=b");
    await run("create secret generic key -n made --from-literal=k=v");
    await run("create serviceaccount robot -n made");
    await run("create deployment app -n made --image=app:1 --port=80 --replicas=2");
    await run("create service clusterip app -n made --tcp=80:8080");
    assert.match(await run("create token robot -n made"), /^ey/);
    assert.match(await run("auth can-i list pods"), /yes/);
    assert.match(await run("auth whoami"), /kubernetes-admin/);
    const path =
      "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} {.spec.template.spec.containers[0].ports[0].containerPort}";
    assert.equal(
      (await cluster.kubectl(["get", "deploy", "app", "-n", "made", "-o", path])).out,
      "2 app:1 80",
    );
    assert.equal(
      (await cluster.kubectl(["get", "secret", "key", "-n", "made", "-o", "jsonpath={.data.k}"])).out,
      "dg==",
    );
    assert.match((await cluster.kubectl(["get", "svc", "app", "-n", "made"])).out, /80\/TCP/);
  });

  it("logs come from the node, with what was asked of them", async () => {
    const { store } = cluster.server;
    const spec = {
      containers: [
        { name: "one", image: "i" },
        { name: "two", image: "i" },
      ],
    };
    await store.create("pods", {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "talker", namespace: "default" },
      spec,
    });
    assert.equal(await run("logs talker -c two --tail=5"), "talker/two tail=5 previous=false\n");
    assert.equal(await run("logs talker -c one -f"), "talker/one tail=all previous=false\nand on\n");
    assert.equal(await run("logs talker -c one --previous"), "talker/one tail=all previous=true\n");
    assert.match(await fails("logs talker -c three"), /container three is not valid for pod talker/);
    await run("delete pod talker");
  });

  it("--as is what a role lets the impersonated user do, no more", async () => {
    assert.match(await fails("get pods --as=nobody"), /User "nobody" cannot list resource "pods"/);
    assert.match(await fails("auth can-i list pods --as=system:serviceaccount:default:default"), /^$/);
    await run("create clusterrolebinding lookers --clusterrole=view --group=lookers");
    assert.match(await run("auth can-i list pods --as=nobody --as-group=lookers"), /yes/);
  });

  it("the namespaces that everything counts on stay", async () => {
    assert.match(await fails("delete ns default"), /this namespace may not be deleted/);
  });

  it("a kind that does not exist is said so", async () => {
    assert.match(await fails("get submarines"), /the server doesn't have a resource type "submarines"/);
    assert.match(
      await fails("apply -f -", "{apiVersion: x.io/v1, kind: Submarine, metadata: {name: a}}"),
      /no matches for kind "Submarine"/,
    );
  });

  it("diff and dry runs store nothing", async () => {
    const manifest = join(cluster.dir, "dry.yaml");
    writeFileSync(manifest, boat("dry", "{masts: 1}"));
    assert.match(await run(`apply --dry-run=server -f ${manifest}`), /created \(server dry run\)/);
    const diff = await cluster.kubectl(["diff", "-f", manifest]);
    assert.equal(diff.code, 1);
    assert.match(diff.out, /\+ +masts: 1/);
    assert.match(await fails("get boat dry"), /not found/);
  });
});

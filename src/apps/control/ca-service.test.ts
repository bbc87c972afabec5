import * as grpc from "@grpc/grpc-js";
import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { silentLog, type Clock } from "#base";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import { certificateService, certificateServiceDefinition, createAuthenticator } from "./ca-service.ts";
import type { TokenReviewResult } from "./ca-service.ts";

const clock: Clock = { nowMs: () => Date.now(), monotonicMs: () => 0, after: () => () => {} };
const facts = {
  workload: "sleep",
  namespace: "default",
  app: "sleep",
  version: "v1",
  canonicalService: "sleep",
  canonicalRevision: "v1",
  cluster: "Kubernetes",
};
const reviews: Record<string, TokenReviewResult> = {
  good: {
    authenticated: true,
    username: "system:serviceaccount:default:sleep",
    audiences: ["istio-ca"],
    podName: "sleep-1",
    podUid: "u1",
  },
  expired: { authenticated: false, error: "token has expired" },
  foreign: { authenticated: true, username: "system:serviceaccount:default:sleep", audiences: ["vault"] },
  person: { authenticated: true, username: "alice", audiences: ["istio-ca"] },
};
const counted: string[] = [];
const server = new grpc.Server();
let port = 0;
/** Made once by the agent's own code; a request holds nothing secret. */
const csr = `-----BEGIN CERTIFICATE REQUEST-----
MIH6MIGgAgEAMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQOSC8pGDYMh257
rZJfY/nXv3j11FiKBmJ5/vfYnOWiHdtHS5Z5OJOcfzk1G0UIBpXw5nj5rV+cGc9D
0pT1wCZvoD4wPAYJKoZIhvcNAQkOMS8wLTArBgNVHREEJDAihiBzcGlmZmU6Ly9j
bHVzdGVyLmxvY2FsL25zL2Evc2EvYjAKBggqhkjOPQQDAgNJADBGAiEAsarb/RTS
yi+0MsYG5b/tQCh4c8/+V+52qjjQUeBXS/MCIQDuF/QWnEx+J2QrDbZUBdDd1iCt
tIJYSWqrhKoO+1I8jA==
-----END CERTIFICATE REQUEST-----
`;

describe("the certificate service", () => {
  before(async () => {
    const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
    const service = certificateService({
      ca: () => ca,
      authenticate: createAuthenticator({
        trustDomain: "cluster.local",
        reviewToken: (token) =>
          Promise.resolve(reviews[token] ?? { authenticated: false, error: "unknown token" }),
      }),
      lookupPod: (_namespace, name) => (name === "sleep-1" ? facts : undefined),
      log: silentLog,
      metrics: {
        csr: () => {},
        issued: () => counted.push("issued"),
        unauthenticated: (reason) => counted.push(reason),
        refused: (reason) => counted.push(reason),
      },
    });
    server.addService(certificateServiceDefinition, service);
    port = await new Promise((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
  });
  after(() => server.forceShutdown());

  function create(token: string | undefined, request: string): Promise<readonly string[]> {
    const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    const metadata = new grpc.Metadata();
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    const { path, requestSerialize, responseDeserialize } = certificateServiceDefinition.CreateCertificate;
    return new Promise<readonly string[]>((resolve, reject) => {
      const message = { csr: request, validitySeconds: 3_600 };
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        message,
        metadata,
        (error, chain) => (error === null ? resolve(chain ?? []) : reject(error)),
      );
    }).finally(() => client.close());
  }

  test("a token of the right audience gets a certificate for its account and its Pod", async () => {
    const [leaf = ""] = await create("good", csr);
    const certificate = new X509Certificate(leaf);
    assert.equal(certificate.subjectAltName, "URI:spiffe://cluster.local/ns/default/sa/sleep");
    assert.match(certificate.subject, /sleep\|default\|sleep\|v1\|sleep\|v1\|Kubernetes/);
    assert.equal(counted.at(-1), "issued");
  });

  test("expired, foreign and personal tokens, and no token at all, are refused and counted", async () => {
    const cases: [string | undefined, string, RegExp][] = [
      ["expired", "token_refused", /has expired/],
      ["foreign", "wrong_audience", /audience istio-ca/],
      ["person", "not_a_service_account", /alice is not a service account/],
      [undefined, "no_credential", /neither/],
    ];
    for (const [token, reason, message] of cases) {
      await assert.rejects(create(token, csr), (error: grpc.ServiceError) => {
        assert.equal(error.code, grpc.status.UNAUTHENTICATED);
        assert.match(error.details, message);
        return true;
      });
      assert.equal(counted.at(-1), reason);
    }
  });

  test("a garbled request is refused as such", async () => {
    await assert.rejects(create("good", "nonsense"), (error: grpc.ServiceError) => {
      assert.equal(error.code, grpc.status.INVALID_ARGUMENT);
      return true;
    });
    assert.equal(counted.at(-1), "csr");
  });
});

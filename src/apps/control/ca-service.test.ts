import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { test } from "node:test";
import { silentLog, type Clock } from "#base";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import { GrpcError, grpcStatus, type UnaryMethod } from "#xds";
import protobuf from "protobufjs/minimal.js";
import { createAuthenticator, createCertificateMethod } from "./ca-service.ts";
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
  early: {
    authenticated: true,
    username: "system:serviceaccount:default:sleep",
    audiences: ["istio-ca"],
    podName: "not-seen-yet",
  },
  person: { authenticated: true, username: "alice", audiences: ["istio-ca"] },
};
const counted: string[] = [];
/** Made once by the agent's own code; requests hold nothing secret. */
const csr = `-----BEGIN CERTIFICATE REQUEST-----
MIIBBDCBqgIBADAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIPUGeZf3N7Ot
V8gAPd4Pwf92LgeiJbaRoUxhRvjKnUnhh1+uUTqRaeGvkJHa/3/wU/eaRqMR4LIw
JBrO2Ygw9qBIMEYGCSqGSIb3DQEJDjE5MDcwNQYDVR0RBC4wLIYqc3BpZmZlOi8v
Y2x1c3Rlci5sb2NhbC9ucy9kZWZhdWx0L3NhL3NsZWVwMAoGCCqGSM49BAMCA0kA
MEYCIQCqJNSaKWTzyRKDbXTb9aimFBI72Vb7XEHRljuYyX3y4gIhAN9EXgZAliPL
AzBRHf9kqvM/o5o8LpGLuy2PQJJ7I9bX
-----END CERTIFICATE REQUEST-----
`;
const csrOfAnother = `-----BEGIN CERTIFICATE REQUEST-----
MIH6MIGgAgEAMAAwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQOSC8pGDYMh257
rZJfY/nXv3j11FiKBmJ5/vfYnOWiHdtHS5Z5OJOcfzk1G0UIBpXw5nj5rV+cGc9D
0pT1wCZvoD4wPAYJKoZIhvcNAQkOMS8wLTArBgNVHREEJDAihiBzcGlmZmU6Ly9j
bHVzdGVyLmxvY2FsL25zL2Evc2EvYjAKBggqhkjOPQQDAgNJADBGAiEAsarb/RTS
yi+0MsYG5b/tQCh4c8/+V+52qjjQUeBXS/MCIQDuF/QWnEx+J2QrDbZUBdDd1iCt
tIJYSWqrhKoO+1I8jA==
-----END CERTIFICATE REQUEST-----
`;

async function method(): Promise<UnaryMethod> {
  const ca = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  return createCertificateMethod({
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
}

interface Credential {
  readonly token?: string;
  readonly certificate?: Uint8Array;
}

/** Asks as the wire does; resolves to the leaf. */
async function create(credential: Credential, request: string): Promise<X509Certificate> {
  const writer = protobuf.Writer.create().uint32(0x0a).string(request).uint32(0x18).int64(3_600);
  const { token, certificate } = credential;
  const authorization = token === undefined ? undefined : `Bearer ${token}`;
  const answer = await (
    await method()
  )(writer.finish(), { address: "127.0.0.1:1", authorization, certificate });
  const reader = protobuf.Reader.create(answer);
  reader.uint32();
  return new X509Certificate(reader.string());
}

function refusal(code: number, message: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof GrpcError && error.code === code && message.test(error.message);
}

test("a token of the right audience gets a certificate for its account and its Pod", async () => {
  const certificate = await create({ token: "good" }, csr);
  assert.equal(certificate.subjectAltName, "URI:spiffe://cluster.local/ns/default/sa/sleep");
  assert.match(certificate.subject, /sleep\|default\|sleep\|v1\|sleep\|v1\|Kubernetes/);
  assert.equal(counted.at(-1), "issued");
});

test("a certificate of the mesh gets the same identity and facts again", async () => {
  const first = await create({ token: "good" }, csr);
  const again = await create({ certificate: first.raw }, csr);
  assert.equal(again.subjectAltName, first.subjectAltName);
  assert.equal(again.subject, first.subject);
});

test("expired, foreign and personal tokens, foreign certificates and nothing at all are refused and counted", async () => {
  const foreign = await createSelfSignedMaterial(clock);
  const cases: [Credential, string, RegExp][] = [
    [{ token: "expired" }, "token_refused", /has expired/],
    [{ token: "foreign" }, "wrong_audience", /audience istio-ca/],
    [{ token: "person" }, "not_a_service_account", /alice is not a service account/],
    [{ certificate: new X509Certificate(foreign.caCert).raw }, "foreign_certificate", /names no identity/],
    [{}, "no_credential", /neither/],
  ];
  for (const [credential, reason, message] of cases) {
    await assert.rejects(create(credential, csr), refusal(grpcStatus.unauthenticated, message));
    assert.equal(counted.at(-1), reason);
  }
});

test("a garbled request is refused as such", async () => {
  await assert.rejects(create({ token: "good" }, "nonsense"), refusal(grpcStatus.invalidArgument, /unfit/));
  assert.equal(counted.at(-1), "csr");
});

test("a request for another's identity is refused and counted", async () => {
  counted.length = 0;
  await assert.rejects(
    create({ token: "good" }, csrOfAnother),
    refusal(grpcStatus.invalidArgument, /is for spiffe:\/\/cluster\.local\/ns\/a\/sa\/b/),
  );
  assert.deepEqual(counted, ["csr"]);
});

test("a Pod that is not known yet gets its identity, and a short life so that the facts come soon", async () => {
  const certificate = await create({ token: "early" }, csr);
  assert.equal(certificate.subject, undefined);
  assert.match(certificate.subjectAltName ?? "", /sa\/sleep/);
  const minutes = (certificate.validToDate.getTime() - Date.now()) / 60_000;
  assert.ok(minutes > 9 && minutes <= 10, `${minutes} minutes`);
});

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { AuthorizationPolicy, AuthorizationPolicySpec } from "#objects";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import { httpConnectionManager } from "./filters.ts";
import type { Message } from "./proto/api.ts";
import { httpRbacFilters, tcpRbacFilters } from "./rbac.ts";
import { resource } from "./resource.ts";

function policy(
  spec: AuthorizationPolicySpec,
  annotations: Readonly<Record<string, string>> = {},
): AuthorizationPolicy {
  return {
    apiVersion: "security.istio.io/v1",
    kind: "AuthorizationPolicy",
    metadata: { name: "p", namespace: "foo", annotations },
    spec,
  };
}

interface Rbac {
  readonly rules?: { readonly action: string; readonly policies: Readonly<Record<string, Message>> };
  readonly shadowRules?: { readonly action: string };
}

function configsOf(filters: readonly Message[]): Rbac[] {
  return filters.map(({ typedConfig }) => typedConfig as Rbac);
}

const trustDomains = ["cluster.local", "old"];

describe("AuthorizationPolicies in Envoy", () => {
  test("decide in the order AUDIT, DENY, ALLOW", () => {
    const policies = (["ALLOW", "DENY", "AUDIT"] as const).map((action) => policy({ action, rules: [{}] }));
    const actions = configsOf(httpRbacFilters({ policies, trustDomains })).map(({ rules }) => rules?.action);
    assert.deepEqual(actions, ["LOG", "DENY", "ALLOW"]);
  });

  test("without rules allow nothing", () => {
    const [config] = configsOf(httpRbacFilters({ policies: [policy({})], trustDomains }));
    assert.deepEqual(config?.rules?.policies["ns[foo]-policy[p]-rule[0]"], {
      permissions: [{ notRule: { any: true } }],
      principals: [{ notId: { any: true } }],
    });
  });

  test("read a principal of the mesh as one of each of its trust domains", () => {
    const rules = [{ from: [{ source: { principals: ["cluster.local/ns/a/sa/b"] } }] }];
    const text = JSON.stringify(httpRbacFilters({ policies: [policy({ rules })], trustDomains }));
    assert.match(text, /spiffe:\/\/cluster\.local\/ns\/a\/sa\/b/);
    assert.match(text, /spiffe:\/\/old\/ns\/a\/sa\/b/);
  });

  test("never let anybody in on TCP for an HTTP field that cannot be seen there", () => {
    const rules = [{ to: [{ operation: { methods: ["GET"], ports: ["80"] } }] }, {}];
    const allow = configsOf(tcpRbacFilters({ policies: [policy({ rules })], trustDomains }));
    assert.deepEqual(Object.keys(allow[0]?.rules?.policies ?? {}), ["ns[foo]-policy[p]-rule[1]"]);
    const deny = configsOf(tcpRbacFilters({ policies: [policy({ action: "DENY", rules })], trustDomains }));
    assert.equal(Object.keys(deny[0]?.rules?.policies ?? {}).length, 2);
    assert.deepEqual(deny[0]?.rules?.policies["ns[foo]-policy[p]-rule[0]"]?.["permissions"], [
      { andRules: { rules: [{ orRules: { rules: [{ destinationPort: 80 }] } }] } },
    ]);
  });

  test("only count as dry runs", () => {
    const dry = policy({ action: "DENY", rules: [{}] }, { "istio.io/dry-run": "true" });
    const [config] = configsOf(httpRbacFilters({ policies: [dry], trustDomains }));
    assert.equal(config?.rules, undefined);
    assert.equal(config?.shadowRules?.action, "DENY");
  });

  test("of action CUSTOM deny what they match when nobody can be asked", () => {
    const custom = policy({ action: "CUSTOM", provider: { name: "gone" }, rules: [{}] });
    const [config] = configsOf(httpRbacFilters({ policies: [custom], trustDomains }));
    assert.equal(config?.rules?.action, "DENY");
  });

  test("with every attribute are taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const whens = [
      ["source.ip", "10.0.0.0/8"],
      ["remote.ip", "fd00::/8"],
      ["source.namespace", "a*"],
      ["source.principal", "*b"],
      ["source.trustDomain", "cluster.*"],
      ["source.serviceAccount", "a/b"],
      ["destination.ip", "10.1.1.1"],
      ["destination.port", "80"],
      ["connection.sni", "*.x.com"],
      ["request.headers[x-a]", "v*"],
      ["request.auth.principal", "iss/*"],
      ["request.auth.audiences", "aud"],
      ["request.auth.presenter", "azp"],
      ["request.auth.claims[a][b]", "c"],
      ["experimental.envoy.filters.a.b[c]", "[d]"],
    ] as const;
    const to = [{ operation: { paths: ["/a/{*}/b/{**}"], hosts: ["*.x.com"], notMethods: ["PUT"] } }];
    const when = whens.map(([key, value]) => ({ key, values: [value], notValues: [`${value}`] }));
    const provider = {
      kind: "grpc",
      host: "authz.foo.svc.cluster.local",
      cluster: "BlackHoleCluster",
      settings: { statusOnError: "403", includeRequestBodyInCheck: { maxRequestBytes: 100 } },
    } as const;
    const input = {
      policies: [
        policy({ rules: [{ to, when }] }),
        policy({ action: "CUSTOM", provider: { name: "x" }, rules: [{}] }),
      ],
      trustDomains,
      providers: { x: provider },
    };
    const manager = httpConnectionManager(
      {},
      {
        side: "server",
        statPrefix: "s",
        routes: { kind: "inline", table: { name: "r" } },
        policyFilters: httpRbacFilters(input),
      },
    );
    const listener = resource("listener", "l", {
      name: "l",
      address: { socketAddress: { address: "127.0.0.1", portValue: 0 } },
      filterChains: [{ filters: [...tcpRbacFilters(input), manager] }],
    });
    const cluster = resource("cluster", "BlackHoleCluster", {
      name: "BlackHoleCluster",
      type: "STATIC",
      typedExtensionProtocolOptions: {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
          "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
          explicitHttpConfig: { http2ProtocolOptions: {} },
        },
      },
    });
    assert.equal(envoyComplaint([listener, cluster]), "");
  });
});

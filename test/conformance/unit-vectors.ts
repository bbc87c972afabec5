// Runs the folder `unit-vectors`: tables of pure functions. Each table has one entry below, which answers what a row expects.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

import {
  expandPrincipalAliases,
  expandTrustDomains,
  isTrustDomainEnforced,
  matchesAny,
  parseSpiffeId,
  renderSpiffeId,
  replaceTrustDomain,
  trustDomainOfPrincipal,
} from "#identity";
import {
  alternateHosts,
  conditionFault,
  hostMatches,
  hostsForNamespace,
  hostSubsetOf,
  compareHosts,
  intersectHosts,
  isHttpServer,
  isHttpsServerWithTermination,
  isPassthroughServer,
  isPathTemplate,
  isTcpServerWithTermination,
  isTemplateLiteral,
  isTlsServer,
  labelProblems,
  labelsSubsetOf,
  matchesConflict,
  mayUpgradeToHttp3,
  mergeDelegateRoutes,
  mergeMatches,
  moreSpecificHost,
  parseJwksUri,
  parseProtocol,
  parseRoutingClaim,
  pathTemplateFault,
  protocolOfPort,
  renderLabels,
  resolveGatewayName,
  serviceSelects,
  sortRoutesByPrecedence,
} from "#objects";

import { firstFault, trustDomainValueFault, wildcardValueFault } from "../../src/objects/policy-values.ts";
import type { Failure, Score } from "./score.ts";

const name = "unit-vectors";

/** A row's members have as many types as there are tables; each entry knows its own. */
type Member =
  | "a"
  | "appProto"
  | "b"
  | "delegate"
  | "element"
  | "enableQUICListeners"
  | "expect"
  | "expected"
  | "expectedError"
  | "expectedProto"
  | "expectedURI"
  | "gateway"
  | "glob"
  | "host1"
  | "host2"
  | "hosts"
  | "in"
  | "input"
  | "intersection"
  | "isPathTemplate"
  | "key"
  | "leaf"
  | "left"
  | "list"
  | "name"
  | "namespace"
  | "out"
  | "path"
  | "port"
  | "portName"
  | "principal"
  | "principals"
  | "proto"
  | "resolved"
  | "right"
  | "root"
  | "server"
  | "serviceAccount"
  | "spiffeURI"
  | "startsWith"
  | "tags"
  | "trustDomain"
  | "trustDomainBundle"
  | "trustDomainIn"
  | "trustDomains"
  | "valid"
  | "values"
  | "want"
  | "wantError";
type Row = Readonly<Record<Member, never>>;
type Answer = (row: Row) => { readonly got: unknown; readonly want: unknown };

const server =
  (check: (server: never) => boolean): Answer =>
  (row) => ({ got: check(row.server), want: row.expected });
const faulty =
  (check: (value: string) => string | undefined): Answer =>
  (row) => ({
    got: firstFault(row.values as readonly string[], check) !== undefined,
    want: row.wantError,
  });

const answers: Readonly<Record<string, Answer>> = {
  TestSortHTTPRoutes: (row) => ({ got: sortRoutesByPrecedence(row.in as never[]), want: row.out }),
  TestHasConflict: (row) => ({
    got: matchesConflict(row.root, row.leaf),
    want: row.expected,
  }),
  TestMergeHTTPMatchRequests: (row) => ({
    got: mergeMatches(row.root ?? [], row.delegate ?? []) ?? null,
    want: row.expected,
  }),
  TestMergeHttpRoutes: (row) => ({
    got: mergeDelegateRoutes(row.root, row.delegate),
    want: row.expected,
  }),
  TestResolveGatewayName: (row) => ({
    got: resolveGatewayName(row.gateway, row.namespace),
    want: row.resolved,
  }),
  TestGetTrustDomainFromSpiffeIdentity: (row) => ({
    got: trustDomainOfPrincipal(row.principal),
    want: row.out,
  }),
  TestIsTrustDomainBeingEnforced: (row) => ({
    got: isTrustDomainEnforced(row.principal),
    want: row.want,
  }),
  TestReplaceTrustDomainAliases: (row) => {
    const bundle = row.trustDomainBundle as {
      readonly TrustDomain: string;
      readonly Aliases: readonly string[] | null;
    };
    const domains = { trustDomain: bundle.TrustDomain, aliases: bundle.Aliases ?? [] };
    return { got: expandPrincipalAliases(row.principals, domains), want: row.expect };
  },
  TestReplaceTrustDomainInPrincipal: (row) => ({
    got: replaceTrustDomain(row.trustDomainIn, row.principal) ?? "",
    want: row.out,
  }),
  TestStringMatch: (row) => ({
    got: matchesAny(row.element, row.list),
    want: row.expected,
  }),
  TestIsEligibleForHTTP3Upgrade: (row) => ({
    got: mayUpgradeToHttp3(row.server, row.enableQUICListeners),
    want: row.expected,
  }),
  TestIsHTTPSServerWithTLSTermination: server(isHttpsServerWithTermination),
  TestIsHTTPServer: server(isHttpServer),
  TestIsPassThroughServer: server(isPassthroughServer),
  TestIsTCPServerWithTLSTermination: server(isTcpServerWithTermination),
  TestIsTLSServer: server(isTlsServer),
  TestMoreSpecific: (row) => ({
    got: moreSpecificHost(row.host1, row.host2),
    want: row.expected,
  }),
  TestNameMatches: (row) => ({ got: hostMatches(row.a, row.b), want: row.out }),
  TestNameSubsetOf: (row) => ({ got: hostSubsetOf(row.a, row.b), want: row.out }),
  TestNamesForNamespace: (row) => ({
    got: hostsForNamespace(row.hosts, row.namespace),
    want: row.want,
  }),
  TestNamesIntersection: (row) => ({
    got: intersectHosts(row.a, row.b),
    want: row.intersection,
  }),
  TestNamesSortOrder: (row) => ({
    got: [...(row.in as string[])].toSorted(compareHosts),
    want: row.want,
  }),
  TestConvertProtocol: (row) => ({
    got: protocolOfPort({
      port: row.port,
      name: row.portName,
      protocol: row.proto,
      appProtocol: row.appProto,
    }),
    want: row.expectedProto,
  }),
  TestInstance: (row) => ({
    got: {
      subsetOf: labelsSubsetOf(row.left ?? undefined, row.right ?? undefined),
      selected: serviceSelects(row.left ?? undefined, row.right ?? undefined),
    },
    want: row.expected,
  }),
  TestInstanceValidate: (row) => ({
    got: labelProblems(row.tags ?? undefined).length === 0,
    want: row.valid,
  }),
  TestString: (row) => ({ got: renderLabels(row.input), want: row.expected }),
  TestParse: (row) => ({ got: parseProtocol(row.name), want: row.out }),
  TestCheckTrustDomainValues: faulty(trustDomainValueFault),
  TestCheckValidPathTemplate: faulty(pathTemplateFault),
  TestCheckWildcardValues: faulty(wildcardValueFault),
  TestContainsPathTemplate: (row) => ({
    got: isPathTemplate(row.path),
    want: row.isPathTemplate,
  }),
  TestIsValidLiteral: (row) => ({ got: isTemplateLiteral(row.glob), want: row.expected }),
  TestParseJwksURI: (row) => {
    const found = parseJwksUri(row.in);
    const shape = {
      Hostname: found?.host ?? "",
      Scheme: found?.scheme ?? "",
      Port: found?.port ?? 0,
      UseSSL: found?.tls ?? false,
    };
    return {
      got: { shape, error: found === undefined },
      want: { shape: row.expected, error: row.expectedError },
    };
  },
  TestValidateCondition: (row) => ({
    got: conditionFault(row.key, row.values) !== undefined,
    want: row.wantError,
  }),
  TestBuildAlternateHosts: (row) => ({ got: namesFrom(row.startsWith), want: row.expected }),
  TestToRoutingClaim: (row) => {
    const claim = parseRoutingClaim(row.name);
    const want = row.want as {
      readonly Match: boolean;
      readonly Separator: string | number;
      readonly Claims: unknown;
    };
    if (claim === undefined) return { got: false, want: want.Match };
    return {
      got: [claim.separator === "dot", claim.claims],
      want: want.Match && [want.Separator === "Dot" || want.Separator === 0, want.Claims],
    };
  },
  TestExpandWithTrustDomains: (row) => ({
    got: expandTrustDomains(row.spiffeURI, row.trustDomains),
    want: Object.keys(row.want as object).toSorted(),
  }),
  TestGenSpiffeURI: (row) => ({
    got: spiffeIdOf(row),
    want: row.expectedError === "" ? row.expectedURI : "error",
  }),
  TestIdentity: (row) => {
    const want = row.expected as {
      readonly TrustDomain: string;
      readonly Namespace: string;
      readonly ServiceAccount: string;
    } | null;
    return {
      got: parseSpiffeId(row.input) ?? null,
      want: want && {
        trustDomain: want.TrustDomain,
        namespace: want.Namespace,
        serviceAccount: want.ServiceAccount,
      },
    };
  },
};

function spiffeIdOf(row: Row): string {
  try {
    return renderSpiffeId({
      trustDomain: row.trustDomain,
      namespace: row.namespace,
      serviceAccount: row.serviceAccount,
    });
  } catch {
    return "error";
  }
}

/** What the table's own test fills its name table with, for a proxy of the namespace ns1. */
const services: readonly (readonly [host: string, shortName: string, namespace: string])[] = [
  ["www.google.com", "", ""],
  ["example.ns2.svc.cluster.local", "example", "ns2"],
  ["example.localhost.", "", ""],
  ["details.ns2.svc.cluster.remote", "details", "ns2"],
  ["productpage.ns1.svc.cluster.local", "productpage", "ns1"],
  ["*.wildcard", "", ""],
];

function namesFrom(prefix: string): string[] {
  const proxy = { namespace: "ns1", domain: "svc.cluster.local" };
  return services
    .flatMap(([host, shortName, namespace]) => [
      host,
      ...alternateHosts(host, { shortName, namespace }, proxy),
    ])
    .filter((host) => host.startsWith(prefix))
    .toSorted();
}

export function run(folder: string): Promise<Score> {
  const failures: Failure[] = [];
  let total = 0;
  for (const file of readdirSync(folder)
    .filter((entry) => entry.endsWith(".json"))
    .toSorted()) {
    const { rows } = JSON.parse(readFileSync(join(folder, file), "utf8")) as {
      readonly rows: readonly Row[];
    };
    const answer = answers[file.split(".").at(-2) ?? ""];
    for (const [index, row] of rows.entries()) {
      total++;
      const reason = judge(answer, row);
      if (reason !== undefined) failures.push({ id: `${file.replace(".json", "")}/${index}`, reason });
    }
  }
  return Promise.resolve({
    name,
    passed: total - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  });
}

function judge(answer: Answer | undefined, row: Row): string | undefined {
  if (answer === undefined) return "nothing answers this table";
  const { got, want } = answer(row);
  const [plainGot, plainWant] = [got, want].map(
    (value) => JSON.parse(JSON.stringify(value ?? null)) as unknown,
  );
  return isDeepStrictEqual(plainGot, plainWant)
    ? undefined
    : `got ${JSON.stringify(got)}, expected ${JSON.stringify(want)}`;
}

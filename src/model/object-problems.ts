// What is wrong with an object as the mesh stands: names that lead nowhere, subsets without endpoints, hosts that another
// object has already. What an object says by itself is checked at admission. Read by the status writer: each answer
// depends on the few names that the object mentions, so that a change elsewhere asks nobody.

import type { ObjectRef, Problem } from "#base";
import { defineQuery, sameData, type Read } from "#engine";
import {
  makeProblem,
  refOf,
  type ProblemCode,
  type RequestAuthentication,
  type ServiceEntry,
  type Telemetry,
  type TrafficExtension,
  type WasmPlugin,
} from "#objects";
import { foreignOwnerOf } from "./claims.ts";
import { namespaceOf } from "./core-kinds.ts";
import { destinationRuleProblems } from "./destination-rule-problems.ts";
import { routerProblems } from "./gateway-problems.ts";
import { readMesh } from "./mesh.ts";
import { jwksTable, uriOf } from "./request-authentication.ts";
import { tables } from "./tables.ts";
import { builtInLogProvider } from "./telemetry.ts";
import { extensionRow } from "./traffic-extension.ts";
import { failsOpen, fetchedModules, moduleSourceOf } from "./wasm-module.ts";
import { logServiceSettings, providerService, tracerSettings } from "./tracing.ts";
import { virtualServiceProblems } from "./virtual-service-problems.ts";

/** One problem while it is found: the object is the one that is asked about. */
export interface Found {
  readonly code: ProblemCode;
  readonly path: string;
  readonly text: string;
}

/** Beyond these an object's problems are counted, not listed. */
const problemsPerObjectMax = 20;

/** Problems of an Istio object, asked for by `Kind namespace/name`; none for kinds that only stand for themselves. */
export const objectProblemsOf = defineQuery<readonly Problem[]>(
  "objectProblemsOf",
  (read, text) => {
    const [kind = "", key = ""] = text.split(" ");
    switch (kind) {
      case "VirtualService": {
        const row = read(tables.VirtualService, key);
        return row === undefined ? [] : listed(refOf(row), virtualServiceProblems(read, key, row));
      }
      case "DestinationRule": {
        const row = read(tables.DestinationRule, key);
        return row === undefined ? [] : listed(refOf(row), destinationRuleProblems(read, row));
      }
      case "ServiceEntry": {
        const row = read(tables.ServiceEntry, key);
        return row === undefined ? [] : listed(refOf(row), claimProblems(read, row));
      }
      case "RequestAuthentication": {
        const row = read(tables.RequestAuthentication, key);
        return row === undefined ? [] : listed(refOf(row), keyProblems(read, row));
      }
      case "Telemetry": {
        const row = read(tables.Telemetry, key);
        return row === undefined
          ? []
          : listed(refOf(row), [...providerProblems(read, row), ...tracerProblems(read, row)]);
      }
      case "WasmPlugin":
      case "TrafficExtension": {
        const row = extensionRow(read, { kind, key });
        return row === undefined ? [] : listed(refOf(row), moduleProblems(read, row));
      }
      case "Gateway":
        return gatewayProblems(read, key);
      default:
        return [];
    }
  },
  sameData,
);

/** The key under which an object's problems are asked for. */
export function problemsKey({ kind, namespace, name }: ObjectRef): string {
  return `${kind} ${namespace}/${name}`;
}

/** Hosts and addresses that are another namespace's. */
function claimProblems(read: Read, row: ServiceEntry): Found[] {
  const namespace = namespaceOf(row);
  return (["hosts", "addresses"] as const).flatMap((field) =>
    (row.spec?.[field] ?? []).flatMap((name, at): Found[] => {
      const owner = read(foreignOwnerOf, { name, namespace });
      if (owner === undefined) return [];
      const text = `${name} belongs to namespace ${owner}: only calls from namespace ${namespace} go by this entry.`;
      return [{ code: "MZ0614", path: `spec.${field}[${at}]`, text }];
    }),
  );
}

function keyProblems(read: Read, row: RequestAuthentication): Found[] {
  return (row.spec?.jwtRules ?? []).flatMap((rule, at): Found[] => {
    const failure = read(jwksTable, uriOf(rule))?.failure;
    if (failure === undefined || (rule.jwks ?? "") !== "") return [];
    return [
      {
        code: "MZ0611",
        path: `spec.jwtRules[${at}].jwksUri`,
        text: `The keys cannot be fetched: ${failure}.`,
      },
    ];
  });
}

function moduleProblems(read: Read, row: TrafficExtension | WasmPlugin): Found[] {
  const source = moduleSourceOf(read, row);
  if (source?.kind !== "refused" && source?.kind !== "fetched") return [];
  const { sha256, failure } =
    source.kind === "fetched"
      ? (read(fetchedModules, source.key) ?? {})
      : { sha256: undefined, failure: "its URL names none" };
  if (failure === undefined) return [];
  const { type, failStrategy = "FAIL_CLOSE" } = source.module;
  const closed =
    type === "NETWORK"
      ? "connections that it would see are closed"
      : "what it would see is answered with 503";
  const meanwhile =
    sha256 !== undefined
      ? "the one from before stays in use"
      : failsOpen(source.module)
        ? "all goes on without it, by failStrategy FAIL_OPEN"
        : `${closed}, by failStrategy ${failStrategy}`;
  const text = `The module cannot be fetched: ${failure}; ${meanwhile}.`;
  return [{ code: "MZ0615", path: source.path, text }];
}

function providerProblems(read: Read, { spec }: Telemetry): Found[] {
  const known = readMesh(read, "extensionProviders") ?? [];
  return (spec?.accessLogging ?? []).flatMap(({ providers }, at) =>
    (providers ?? []).flatMap(({ name }, position): Found[] => {
      const provider = known.find((one) => one.name === name);
      if (provider?.envoyFileAccessLog !== undefined) return [];
      if (provider !== undefined && logServiceSettings(provider) !== undefined) return [];
      if (provider === undefined && name === builtInLogProvider) return [];
      const why = provider === undefined ? "is no extension provider" : "is a provider of another kind";
      const path = `spec.accessLogging[${at}].providers[${position}].name`;
      return [{ code: "MZ0612", path, text: `${name} ${why}: it writes no access log.` }];
    }),
  );
}

function tracerProblems(read: Read, { spec }: Telemetry): Found[] {
  const known = readMesh(read, "extensionProviders") ?? [];
  return (spec?.tracing ?? []).flatMap(({ providers }, at) =>
    // Istio goes by the first of several.
    (providers ?? []).slice(0, 1).flatMap(({ name }): Found[] => {
      const provider = known.find((one) => one.name === name);
      const settings = provider === undefined ? undefined : tracerSettings(provider);
      if (settings !== undefined && providerService(read, settings) !== undefined) return [];
      const why =
        provider === undefined
          ? "is no extension provider"
          : settings === undefined
            ? "is not of OpenTelemetry or Zipkin"
            : `has no service in the mesh (${settings.service}:${settings.port})`;
      const path = `spec.tracing[${at}].providers[0].name`;
      return [{ code: "MZ0612", path, text: `${name} ${why}: nothing is traced.` }];
    }),
  );
}

function gatewayProblems(read: Read, key: string): readonly Problem[] {
  const row = read(tables.Gateway, key);
  return row === undefined ? [] : routerProblems(read, row).slice(0, problemsPerObjectMax);
}

function listed(object: ObjectRef, found: readonly Found[]): readonly Problem[] {
  return found
    .slice(0, problemsPerObjectMax)
    .map(({ code, path, text }) => makeProblem(code, text, { object, path }));
}

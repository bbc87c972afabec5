// Telemetry's tracing: to which provider a workload's proxies report spans of its calls, how many, and with which tags.
//
// Levels follow each other as for access logs, entry by entry; of several providers the first counts, as in Istio. A
// provider whose service is not known traces nothing.

import type { ObjectRef } from "#base";
import { defineKeyedQuery, defineQuery, sameData, type Read } from "#engine";
import { refOf, type MeshConfigExtensionProvider, type Telemetry, type TelemetryTracing } from "#objects";
import { readMesh } from "./mesh.ts";
import { servicesOfHost } from "./services.ts";
import { accessLogsOf, levelsOf } from "./telemetry.ts";
import type { ExtensionSide } from "./traffic-extension.ts";
import { workloadText, type WorkloadKey } from "./workload.ts";

/** The service of an extension provider. */
export interface ProviderService {
  /** `namespace/host`. */
  readonly key: string;
  readonly host: string;
  readonly port: number;
}

export interface WorkloadTracing {
  /** The name of one of MeshConfig's extension providers. */
  readonly provider: string;
  readonly service: ProviderService;
  /** Whom the proxy asks how many requests to trace: Dynatrace's sampler. Absent where nobody is asked. */
  readonly sampler?: ProviderService;
  /** Of 100; absent where no Telemetry says it. */
  readonly samplingPercent?: number;
  readonly customTags: NonNullable<TelemetryTracing["customTags"]>;
  /** Whether the request's id decides with, so that all proxies on its way decide alike. */
  readonly byRequestId: boolean;
  /** Whether spans get tags that name the workload. */
  readonly namesWorkload: boolean;
  readonly propagates: boolean;
  readonly objects: readonly ObjectRef[];
}

/** The service behind a provider's `service` (a host, or `namespace/host`) and `port`; undefined for one that is not known. */
export function providerService(
  read: Read,
  { service = "", port = 0 }: { readonly service?: string; readonly port?: number },
): ProviderService | undefined {
  if (service === "" || port === 0) return undefined;
  const [before = "", after] = service.split("/");
  const host = after ?? before;
  const known = read(servicesOfHost, host);
  const key = after === undefined ? known[0] : known.find((one) => one.startsWith(`${before}/`));
  return key === undefined ? undefined : { key, host, port };
}

/** Who serves credentials of the form `sds://name` to gateways: the first such provider, as in Istio. */
export const secretServiceOf = defineQuery<ProviderService | undefined>(
  "secretService",
  (read) => {
    const provider = (readMesh(read, "extensionProviders") ?? []).find(({ sds }) => sds !== undefined);
    return provider?.sds === undefined ? undefined : providerService(read, provider.sds);
  },
  sameData,
);

/** The tracing of a workload on one side of its calls; undefined where nothing asks for it or nobody takes the spans. */
export const tracingOf = defineKeyedQuery<
  { readonly workload: WorkloadKey; readonly side: ExtensionSide },
  WorkloadTracing | undefined
>(
  "tracingOf",
  ({ workload, side }) => `${side} ${workloadText(workload)}`,
  (read, { workload, side }) => {
    const levels = levelsOf(read, workload, ({ spec }: Telemetry) => (spec?.tracing ?? []).length > 0);
    const byDefault = readMesh(read, "defaultProviders")?.tracing ?? [];
    if (levels.length === 0 && byDefault.length === 0) return undefined;
    const entries = levels
      .flatMap(({ spec }) => spec?.tracing ?? [])
      .filter(({ match }) => {
        const mode = match?.mode ?? "CLIENT_AND_SERVER";
        return mode === "CLIENT_AND_SERVER" || mode === side;
      });
    const merged = entries.reduce<TelemetryTracing>(over, { providers: byDefault.map((name) => ({ name })) });
    const [provider] = merged.providers ?? [];
    if (provider === undefined || merged.disableSpanReporting === true) return undefined;
    const found = (readMesh(read, "extensionProviders") ?? []).find(({ name }) => name === provider.name);
    const service = found === undefined ? undefined : providerService(read, tracerSettings(found) ?? {});
    if (service === undefined) return undefined;
    const sampler = samplerOf(read, found, service);
    if (sampler === "nowhere") return undefined;
    const { randomSamplingPercentage: samplingPercent } = merged;
    return {
      provider: provider.name,
      service,
      ...(sampler === undefined ? {} : { sampler }),
      ...(samplingPercent === undefined ? {} : { samplingPercent }),
      customTags: merged.customTags ?? {},
      byRequestId: merged.useRequestIdForTraceSampling !== false,
      namesWorkload: merged.enableIstioTags !== false,
      propagates: merged.disableContextPropagation !== true,
      objects: levels.map(refOf),
    };
  },
  sameData,
);

/** Whether Telemetry, or a default provider of MeshConfig, has a say in a workload's tracing, be it that there is none. */
export const tracedByTelemetry = defineKeyedQuery<WorkloadKey, boolean>(
  "tracedByTelemetry",
  workloadText,
  (read, workload) =>
    (readMesh(read, "defaultProviders")?.tracing ?? []).length > 0 ||
    levelsOf(read, workload, ({ spec }: Telemetry) => (spec?.tracing ?? []).length > 0).length > 0,
);

/** Without a service of its own the sampler asks the one that takes the spans, which has to speak HTTP; as in Istio, or nothing is traced. */
function samplerOf(
  read: Read,
  provider: MeshConfigExtensionProvider | undefined,
  service: ProviderService,
): ProviderService | undefined | "nowhere" {
  const { http, dynatraceSampler } = provider?.opentelemetry ?? {};
  if (dynatraceSampler === undefined) return undefined;
  if (dynatraceSampler.httpService !== undefined)
    return providerService(read, dynatraceSampler.httpService) ?? "nowhere";
  return http === undefined ? "nowhere" : service;
}

/** A field that an entry does not have stays as the entries before it say. */
function over(before: TelemetryTracing, { providers = [], ...entry }: TelemetryTracing): TelemetryTracing {
  return { ...before, ...entry, ...(providers.length === 0 ? {} : { providers }) };
}

/** The settings of a provider that takes spans of a kind that is spoken. */
export function tracerSettings(
  provider: MeshConfigExtensionProvider,
): { readonly service?: string; readonly port?: number } | undefined {
  return provider.zipkin ?? provider.opentelemetry ?? provider.skywalking ?? provider.datadog;
}

/** The settings of a provider that takes access logs as they are written, over the network. */
export function logServiceSettings(
  provider: MeshConfigExtensionProvider,
): { readonly service?: string; readonly port?: number } | undefined {
  return provider.envoyOtelAls ?? provider.envoyHttpAls ?? provider.envoyTcpAls;
}

/** The services that a workload's proxy, as a client, sends spans and access logs to, as `namespace/host`. */
export const telemetryServicesOf = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "telemetryServicesOf",
  workloadText,
  (read, workload) => {
    const tracing = read(tracingOf, { workload, side: "CLIENT" });
    const logs = read(accessLogsOf, { workload, side: "CLIENT" })?.logs ?? [];
    const providers = logs.length === 0 ? [] : (readMesh(read, "extensionProviders") ?? []);
    const logged = providers
      .filter(({ name }) => logs.some(({ provider }) => provider === name))
      .flatMap((provider) => providerService(read, logServiceSettings(provider) ?? {})?.key ?? []);
    const traced = tracing === undefined ? [] : [tracing.service.key, tracing.sampler?.key ?? ""];
    return [...new Set([...traced.filter((key) => key !== ""), ...logged])].toSorted();
  },
  sameData,
);

// Headers for collectors whose values MeshConfig leaves to the control plane's environment, so that tokens need not stand in a ConfigMap.

import type { MeshConfig, ProviderHttpHeader } from "#objects";

type Headers = readonly ProviderHttpHeader[] | undefined;

/** MeshConfig with these values in their places. A variable that is not there gives no value, and such a header is not sent. */
export function withHeaderVariables(
  mesh: MeshConfig,
  variable: (name: string) => string | undefined,
): MeshConfig {
  if (mesh.extensionProviders === undefined) return mesh;
  const filled = (headers: Headers): Headers =>
    headers?.map(({ envName, ...header }) =>
      envName === undefined ? header : { ...header, value: variable(envName) ?? "" },
    );
  const extensionProviders = mesh.extensionProviders.map((provider) => {
    const { zipkin, opentelemetry } = provider;
    if (zipkin?.headers !== undefined)
      return { ...provider, zipkin: { ...zipkin, headers: filled(zipkin.headers) } };
    if (opentelemetry === undefined) return provider;
    const { http, grpc, dynatraceSampler } = opentelemetry;
    const api = dynatraceSampler?.httpService;
    return {
      ...provider,
      opentelemetry: {
        ...opentelemetry,
        ...(http === undefined ? {} : { http: { ...http, headers: filled(http.headers) } }),
        ...(grpc === undefined ? {} : { grpc: { ...grpc, initialMetadata: filled(grpc.initialMetadata) } }),
        ...(api?.http === undefined
          ? {}
          : {
              dynatraceSampler: {
                ...dynatraceSampler,
                httpService: { ...api, http: { ...api.http, headers: filled(api.http.headers) } },
              },
            }),
      },
    };
  });
  return { ...mesh, extensionProviders };
}

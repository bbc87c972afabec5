// What a workload is by OpenTelemetry's conventions for Kubernetes, for the spans of its proxy: written into the proxy's environment
// where a tracing provider of MeshConfig asks for that naming. The service's name is found by the agent, in the same way.

import { traceEnvironment } from "#base";
import { annotation, applicationContainers, label, type InjectionContext } from "./context.ts";
import type { EnvVar } from "./pod.ts";

const annotationPrefix = "resource.opentelemetry.io/";

/** Nothing where no provider asks. The Pod's own name is not known yet: Kubernetes puts it in place of `$(POD_NAME)`. */
export function resourceAttributes(context: InjectionContext): EnvVar[] {
  const providers = context.mesh.extensionProviders ?? [];
  const isAsked = providers.some(
    ({ opentelemetry }) => opentelemetry?.serviceAttributeEnrichment === "OTEL_SEMANTIC_CONVENTIONS",
  );
  if (!isAsked) return [];
  const { namespace } = context.workload;
  const containers = applicationContainers(context.pod);
  const own = (name: string) => encoded(annotation(context, `${annotationPrefix}${name}`) ?? "");
  const instance = containers[0] === undefined ? "" : `${namespace}.$(POD_NAME).${containers[0]}`;
  const attributes = {
    "service.namespace": own("service.namespace") || namespace,
    "service.version":
      own("service.version") ||
      encoded(label(context, "app.kubernetes.io/version") ?? "") ||
      encoded(imageVersion(context)),
    "service.instance.id": own("service.instance.id") || instance,
  };
  const value = Object.entries(attributes)
    .filter(([, text]) => text !== "")
    .map(([name, text]) => `${name}=${text}`)
    .join(",");
  return value === "" ? [] : [{ name: traceEnvironment.resource, value }];
}

/** The tag and the digest of the application's image, where there is one container alone. */
function imageVersion({ pod }: InjectionContext): string {
  const [name, ...others] = applicationContainers(pod);
  const image = (pod.spec?.containers ?? []).find((container) => container.name === name)?.image ?? "";
  if (others.length > 0) return "";
  const [named = "", digest = ""] = image.split("@");
  const tag = /:([^:/]+)$/.exec(named)?.[1] ?? "";
  return [tag, digest].filter((part) => part !== "").join("@");
}

/** Envoy splits at commas and equals signs, refuses what does not come in pairs, and takes percent encoding. */
function encoded(text: string): string {
  return text.replaceAll(/[%,=;"\s\\]/g, (char) => encodeURIComponent(char));
}

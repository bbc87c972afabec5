// Templates that an operator writes, in the ConfigMap `istio-sidecar-injector`: YAML of the part of a Pod to add, in which `${path}` stands
// for what the injection knows. A path goes through `pod`, `workload`, `values`, `mesh`, `proxyConfig`, `revision` and `proxyImage`, as in
// `${values.global.network}` or `${pod.metadata.labels[app.kubernetes.io/name]}`; `${path|text}` gives the text where there is nothing.
// A container named `*` stands for each container of the application.

import { parse } from "yaml";
import { applicationContainers, image, type InjectionContext } from "./context.ts";
import type { Container, Pod } from "./pod.ts";
import { isPlain } from "./values.ts";

/** Throws a SyntaxError that names the template and what is wrong with it. */
export function customTemplate(name: string, text: string, context: InjectionContext): Pod {
  let parsed: unknown;
  try {
    parsed = parse(text);
  } catch (cause) {
    throw new SyntaxError(`the injection template ${name} is not YAML: ${String(cause)}`, { cause });
  }
  if (!isPlain(parsed))
    throw new SyntaxError(`the injection template ${name} is not a YAML object with metadata or spec`);
  const patch: Pod = substitute(parsed, variablesOf(context), name) as Pod;
  const containers = patch.spec?.containers?.flatMap((container) => expandEach(container, context));
  return containers === undefined ? patch : { ...patch, spec: { ...patch.spec, containers } };
}

function variablesOf(context: InjectionContext): object {
  const { pod, workload, values, mesh, proxyConfig, revision } = context;
  const proxyImage = image(context, values.global.proxy.image);
  return { pod, workload, values, mesh, proxyConfig, revision: revision || "default", proxyImage };
}

function expandEach(container: Container, context: InjectionContext): Container[] {
  if (container.name !== "*") return [container];
  return applicationContainers(context.pod).map((name) => ({ ...structuredClone(container), name }));
}

function substitute(value: unknown, variables: object, template: string): unknown {
  if (typeof value === "string") return substituteText(value, variables, template);
  if (Array.isArray(value)) return value.map((item) => substitute(item, variables, template));
  if (!isPlain(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, substitute(item, variables, template)]),
  );
}

function substituteText(text: string, variables: object, template: string): string {
  return text.replaceAll(
    /\$\{([^}|]+)(?:\|([^}]*))?\}/g,
    (_whole, path: string, otherwise: string | undefined) => {
      const found = lookUp(path.trim(), variables);
      if (found === undefined && otherwise === undefined) {
        throw new SyntaxError(
          `the injection template ${template} reads \${${path}}, which this pod does not have; write \${${path}|text} to say what then`,
        );
      }
      if (found === undefined) return otherwise ?? "";
      return typeof found === "string" ? found : JSON.stringify(found);
    },
  );
}

function lookUp(path: string, variables: object): unknown {
  const steps = path.match(/[^.[\]]+(?=[.[]|$)|\[[^\]]+\]/g) ?? [];
  let value: unknown = variables;
  for (const step of steps) {
    const key = step.startsWith("[") ? step.slice(1, -1) : step;
    if (Array.isArray(value)) value = value[Number(key)] as unknown;
    else if (isPlain(value) && Object.hasOwn(value, key)) value = value[key];
    else return undefined;
    if (value === null) return undefined;
  }
  return value;
}

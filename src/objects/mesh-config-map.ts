// MeshConfig and MeshNetworks as texts of the ConfigMap `istio` (`istio-REVISION` of a further control plane): judged where they are
// applied, since a ConfigMap has no status that could say later what is wrong.

import type { Problem } from "#base";
import { unsupportedMeshFields } from "./fields.ts";
import { defaultMeshConfig, parseMeshConfig, parseMeshNetworks } from "./mesh-config.ts";
import { refOf, type KubeObject } from "./object.ts";

/** What is wrong in the mesh's settings, and which of them have no effect. Nothing for any other object. */
export function meshConfigMapProblems(object: KubeObject): readonly Problem[] {
  if (object.kind !== "ConfigMap" || !/^istio(-|$)/.test(object.metadata.name)) return [];
  const { data = {} } = object as { readonly data?: Readonly<Record<string, unknown>> };
  const { mesh, meshNetworks } = data;
  return [
    ...(typeof mesh === "string" ? placed(object, "mesh", meshProblems(mesh)) : []),
    ...(typeof meshNetworks === "string"
      ? placed(object, "meshNetworks", parseMeshNetworks(meshNetworks).problems)
      : []),
  ];
}

function meshProblems(text: string): readonly Problem[] {
  const { mesh, problems } = parseMeshConfig(text);
  return [...problems, ...unsupportedMeshFields(mesh, defaultMeshConfig)];
}

/** With the key of the ConfigMap before the path in its text. */
function placed(object: KubeObject, key: string, problems: readonly Problem[]): readonly Problem[] {
  return problems.map((problem) => {
    const { path = "" } = problem.at;
    return { ...problem, at: { object: refOf(object), path: `data.${key}${path === "" ? "" : `.${path}`}` } };
  });
}

// The path by which Istio's metadata names the object behind a part of a resource.

/**
 * `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`.
 * @param row `namespace/name`
 */
export function objectPath(kind: "virtual-service" | "destination-rule" | "gateway", row: string): string {
  const [namespace = "", name = ""] = row.split("/");
  return `/apis/networking.istio.io/v1/namespaces/${namespace}/${kind}/${name}`;
}

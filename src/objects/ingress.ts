// Kubernetes' Ingress and IngressClass (networking.k8s.io/v1), as far as the mesh reads them.

import type { KubeObject, ObjectMeta } from "./object.ts";

export interface IngressBackend {
  readonly service?: {
    readonly name: string;
    readonly port?: { readonly name?: string; readonly number?: number };
  };
  /** Another kind of backend: none is known here. */
  readonly resource?: unknown;
}

export interface IngressPath {
  readonly path?: string;
  readonly pathType?: "Exact" | "Prefix" | "ImplementationSpecific";
  readonly backend: IngressBackend;
}

export interface IngressTls {
  readonly hosts?: readonly string[];
  readonly secretName?: string;
}

export interface IngressSpec {
  readonly ingressClassName?: string;
  readonly defaultBackend?: IngressBackend;
  readonly tls?: readonly IngressTls[];
  readonly rules?: readonly {
    readonly host?: string;
    readonly http?: { readonly paths: readonly IngressPath[] };
  }[];
}

export interface Ingress extends KubeObject {
  readonly metadata: ObjectMeta;
  readonly spec?: IngressSpec;
}

export interface IngressClass extends KubeObject {
  readonly spec?: { readonly controller?: string; readonly parameters?: object };
}

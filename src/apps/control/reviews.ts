// Questions to the API server about who is calling and what they may do.

import type { KubeClient } from "#kube";
import type { TokenReviewResult } from "./ca-service.ts";

interface TokenReview {
  readonly status?: {
    readonly authenticated?: boolean;
    readonly error?: string;
    readonly audiences?: readonly string[];
    readonly user?: {
      readonly username?: string;
      readonly groups?: readonly string[];
      readonly extra?: Readonly<Record<string, readonly string[]>>;
    };
  };
}

/** Is this token good, for whom and for what? Throws if the API server does not answer. */
export async function reviewToken(
  client: KubeClient,
  token: string,
  audiences: readonly string[] | undefined,
): Promise<TokenReviewResult & { readonly groups?: readonly string[] }> {
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenReview",
    spec: { token, ...(audiences !== undefined && { audiences }) },
  };
  const path = "/apis/authentication.k8s.io/v1/tokenreviews";
  const { status = {} } = await client.request<TokenReview>(path, { method: "POST", body });
  const { user = {} } = status;
  return {
    authenticated: status.authenticated === true,
    error: status.error,
    username: user.username,
    audiences: status.audiences,
    groups: user.groups,
    podName: user.extra?.["authentication.kubernetes.io/pod-name"]?.[0],
    podUid: user.extra?.["authentication.kubernetes.io/pod-uid"]?.[0],
  };
}

/** May the bearer of this token read this path of ours (as RBAC's nonResourceURLs)? */
export async function mayRead(client: KubeClient, token: string, path: string): Promise<boolean> {
  const { authenticated, username, groups } = await reviewToken(client, token, undefined);
  if (!authenticated) return false;
  return isAllowed(client, { user: username, groups, nonResourceAttributes: { path, verb: "get" } });
}

/** May a service account list the Secrets of its namespace? Throws if the API server does not answer. */
export async function mayListSecrets(
  client: KubeClient,
  namespace: string,
  account: string,
): Promise<boolean> {
  const user = `system:serviceaccount:${namespace}:${account}`;
  // The API server adds no groups to a user that it is asked about, and Roles may be bound to these.
  const groups = ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"];
  const resourceAttributes = { namespace, verb: "list", resource: "secrets" };
  return isAllowed(client, { user, groups, resourceAttributes });
}

async function isAllowed(client: KubeClient, spec: object): Promise<boolean> {
  const body = { apiVersion: "authorization.k8s.io/v1", kind: "SubjectAccessReview", spec };
  const review = await client.request<{ readonly status?: { readonly allowed?: boolean } }>(
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    { method: "POST", body },
  );
  return review.status?.allowed === true;
}

// Questions that are asked by creating an object and answered in its status: who is this token, may this user do that.

import type { Access } from "../auth/rbac.ts";
import type { Authorizer } from "../auth/rbac.ts";
import type { TokenIssuer } from "../auth/tokens.ts";
import type { UserInfo } from "../context.ts";
import { badRequest } from "../errors.ts";
import { arrayOf, isRecord, recordOf, stringOf } from "../json.ts";
import type { JsonRecord } from "../json.ts";
import type { Target } from "../objects.ts";
import { apiVersionOf } from "../kinds/kind.ts";
import type { Call } from "./call.ts";

export interface Reviewers {
  readonly tokens: TokenIssuer;
  readonly authorizer: Authorizer;
}

/** Answers a review; false when the kind is none. */
export async function serveReview(call: Call, target: Target, reviewers: Reviewers): Promise<boolean> {
  const answer = answers[target.kind.kind];
  if (target.kind.verbs.length !== 1 || answer === undefined || call.method !== "POST") return false;
  const body = await call.body();
  if (!isRecord(body)) throw badRequest(`the body must be a ${target.kind.kind} object`);
  const spec = recordOf(body["spec"]);
  const status = await answer(spec, call.user, reviewers, target.namespace);
  const apiVersion = apiVersionOf(target.kind.group, target.version.name);
  call.json(201, {
    kind: target.kind.kind,
    apiVersion,
    metadata: recordOf(body["metadata"]),
    spec: shownSpec(spec),
    status,
  });
  return true;
}

/** A token is not said back. */
function shownSpec(spec: JsonRecord): JsonRecord {
  const { token: _token, ...rest } = spec;
  return rest;
}

type Answer = (
  spec: JsonRecord,
  user: UserInfo,
  reviewers: Reviewers,
  namespace: string,
) => Promise<JsonRecord> | JsonRecord;

const answers: Readonly<Record<string, Answer>> = {
  TokenReview: async (spec, _user, { tokens }) => {
    const verified = await tokens.verify(stringOf(spec["token"]), arrayOf(spec["audiences"]).map(stringOf));
    if (!verified)
      return { authenticated: false, user: {}, error: "the token is not valid for any of the audiences" };
    const { username, uid, groups, extra } = verified.user;
    return { authenticated: true, user: { username, uid, groups, extra }, audiences: verified.audiences };
  },
  SelfSubjectReview: (_spec, user) => ({
    userInfo: { username: user.username, uid: user.uid, groups: user.groups, extra: user.extra },
  }),
  SelfSubjectAccessReview: (spec, user, { authorizer }) => decision(authorizer, user, spec),
  SubjectAccessReview: (spec, _user, { authorizer }) => decision(authorizer, subjectOf(spec), spec),
  LocalSubjectAccessReview: (spec, _user, { authorizer }, namespace) => {
    const attributes = recordOf(spec["resourceAttributes"]);
    if (attributes["namespace"] !== namespace) {
      throw badRequest(`spec.resourceAttributes.namespace must match namespace: ${namespace}`);
    }
    return decision(authorizer, subjectOf(spec), spec);
  },
  SelfSubjectRulesReview: (spec, user, { authorizer }) => {
    const rules = authorizer.rulesFor(user, stringOf(spec["namespace"]));
    const [ofPaths, ofResources] = [true, false].map((wanted) =>
      rules.filter((rule) => (rule["nonResourceURLs"] !== undefined) === wanted),
    );
    return { resourceRules: ofResources, nonResourceRules: ofPaths, incomplete: false };
  },
};

function subjectOf(spec: JsonRecord): UserInfo {
  return {
    username: stringOf(spec["user"]),
    uid: stringOf(spec["uid"]),
    groups: arrayOf(spec["groups"]).map(stringOf),
  };
}

function decision(authorizer: Authorizer, user: UserInfo, spec: JsonRecord): JsonRecord {
  const resource = spec["resourceAttributes"];
  const path = spec["nonResourceAttributes"];
  if (isRecord(resource) === isRecord(path)) {
    throw badRequest(
      "exactly one of spec.resourceAttributes and spec.nonResourceAttributes must be specified",
    );
  }
  const allowed = authorizer.allows(
    user,
    isRecord(resource) ? accessTo(resource) : pathAccess(recordOf(path)),
  );
  return allowed ? { allowed } : { allowed, reason: "no role that is bound to the user allows it" };
}

function accessTo(attributes: JsonRecord): Access {
  return {
    kind: "resource",
    verb: stringOf(attributes["verb"]),
    group: stringOf(attributes["group"]),
    resource: stringOf(attributes["resource"]),
    subresource: stringOf(attributes["subresource"]),
    namespace: stringOf(attributes["namespace"]),
    name: stringOf(attributes["name"]),
  };
}

function pathAccess(attributes: JsonRecord): Access {
  return { kind: "path", verb: stringOf(attributes["verb"]), path: stringOf(attributes["path"]) };
}

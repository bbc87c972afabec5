// What the server knows of a kind: the row from which paths, discovery, storage, tables and checks follow.

import type { FieldError, Subject } from "../errors.ts";
import type { Schema } from "../schema/schema.ts";
import type { ApiObject, ResourceName } from "../store.ts";

export interface Column {
  readonly name: string;
  readonly type: string;
  readonly format?: string;
  readonly description?: string;
  /** 0: always shown; above: with -o wide. */
  readonly priority: number;
  /** What the cell shows. `nowMs` is the epoch's milliseconds, for ages. */
  readonly cell: (object: ApiObject, nowMs: number) => unknown;
}

export interface ScalePaths {
  readonly specReplicasPath: string;
  readonly statusReplicasPath: string;
  readonly labelSelectorPath?: string;
}

export interface KindVersion {
  readonly name: string;
  readonly served: boolean;
  readonly schema: Schema;
  readonly columns: readonly Column[];
  /** Whether `status` is a subresource: then it is written through /status alone, and spec changes count as generations. */
  readonly status: boolean;
  readonly scale?: ScalePaths;
  /** Field paths that --field-selector takes, beside metadata.name and metadata.namespace. */
  readonly selectableFields: readonly string[];
  readonly deprecationWarning?: string;
}

/** What only code can say about a built-in kind. Each may be absent. */
export interface KindHooks {
  /** Fills defaults in place. */
  readonly defaults?: (object: ApiObject) => void;
  /** Carries over what an update may leave out, in place, before defaulting (a Service's clusterIP). */
  readonly prepareUpdate?: (object: ApiObject, previous: ApiObject) => void;
  readonly validate?: (object: ApiObject, previous: ApiObject | undefined) => FieldError[];
}

export interface Kind extends Subject {
  readonly resource: ResourceName;
  readonly listKind: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  readonly namespaced: boolean;
  readonly verbs: readonly string[];
  /** In order of preference. */
  readonly versions: readonly KindVersion[];
  readonly storageVersion: string;
  readonly custom: boolean;
  readonly hooks: KindHooks;
  /** Subresources beside status and scale, for discovery: [name, kind, verbs]. */
  readonly subresources: ReadonlyArray<{
    readonly name: string;
    readonly kind: string;
    readonly verbs: readonly string[];
    readonly group?: string;
    readonly version?: string;
  }>;
}

export const allVerbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

export function apiVersionOf(group: string, version: string): string {
  return group === "" ? version : `${group}/${version}`;
}

/** Splits `apps/v1` into group and version; the core group is "". */
export function splitApiVersion(apiVersion: string): { group: string; version: string } {
  const slash = apiVersion.indexOf("/");
  return slash < 0
    ? { group: "", version: apiVersion }
    : { group: apiVersion.slice(0, slash), version: apiVersion.slice(slash + 1) };
}

export function resourceName(group: string, plural: string): ResourceName {
  return group === "" ? plural : `${plural}.${group}`;
}

/** The object in another version of its kind: conversion is "None", the version's name changes and nothing else. */
export function inVersion(object: ApiObject, kind: Kind, version: string): ApiObject {
  const apiVersion = apiVersionOf(kind.group, version);
  return object.apiVersion === apiVersion ? object : { ...object, apiVersion };
}

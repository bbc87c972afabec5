// Lays one message over another as protocol buffers merge: messages field by field, lists one after the other, everything
// else replaced; of a oneof only the newer member stays. Where lists are to be replaced, the newer list is the whole.

import type protobuf from "protobufjs";
import { hasMessageType, messageType, typePrefix, type Message } from "./proto/api.ts";

export type ListMerge = "append" | "replace";

export function mergeMessages(
  name: string,
  under: Message,
  over: Message,
  lists: ListMerge = "append",
): Message {
  const type = messageType(name);
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) {
    const field = type.fields[key];
    if (field === undefined) continue;
    for (const sibling of field.partOf?.fieldsArray ?? [])
      if (sibling.name !== key) delete merged[sibling.name];
    merged[key] = mergeField(field, under[key], value, lists);
  }
  return merged;
}

/** `Any`s of one type are merged inside; of two types the newer one stays. */
export function mergeAnys(under: Message | undefined, over: Message, lists: ListMerge = "append"): Message {
  const url = over["@type"];
  const name = String(url).slice(typePrefix.length);
  if (under === undefined || under["@type"] !== url || !hasMessageType(name)) return over;
  const { "@type": _under, ...fieldsUnder } = under;
  const { "@type": _over, ...fieldsOver } = over;
  return { "@type": url, ...mergeMessages(name, fieldsUnder, fieldsOver, lists) };
}

function mergeField(field: protobuf.Field, under: unknown, over: unknown, lists: ListMerge): unknown {
  if (field.map) {
    const before = (under ?? {}) as Message;
    const entries = Object.entries(over as Message);
    return {
      ...before,
      ...Object.fromEntries(entries.map(([key, one]) => [key, mergeOne(field, before[key], one, lists)])),
    };
  }
  if (field.repeated && lists === "replace") return over;
  if (field.repeated) return [...((under as unknown[] | undefined) ?? []), ...(over as unknown[])];
  return mergeOne(field, under, over, lists);
}

function mergeOne(field: protobuf.Field, under: unknown, over: unknown, lists: ListMerge): unknown {
  const resolved = field.resolvedType ?? field.resolve().resolvedType;
  if (resolved === null || "values" in resolved || under === undefined || under === null) return over;
  const name = resolved.fullName.replace(/^\./, "");
  if (name === "google.protobuf.Any") return mergeAnys(under as Message, over as Message, lists);
  // Wrappers and durations are values: nothing in them is merged.
  if (/^google\.protobuf\.(\w+Value|Duration)$/.test(name)) return over;
  return mergeMessages(name, under as Message, over as Message, lists);
}

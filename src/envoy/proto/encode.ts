// Encodes plain objects as protocol buffers without making message objects first: half of what a resource cost was those.
//
// It writes from the end to the beginning. What stands inside of a message is then written before the message's length has to be,
// so that length is known, and nothing is moved or written twice. Fields follow in the order of their numbers, as protobufjs has
// them, so the bytes are the same as its own (a test compares them).

import protobuf from "protobufjs";

type Plain = Readonly<Record<string, unknown>>;

interface FieldPlan {
  readonly name: string;
  /** Field number and wire type, as it stands before a value. */
  readonly tag: number;
  /** Writes one value, without its tag. */
  readonly write: (out: Backwards, value: unknown) => void;
  /** Of an enumeration: whether it has the value. Others are left out. */
  readonly has: ((value: unknown) => boolean) | undefined;
  /** Of a field without presence: whether the value is what its absence means, and so is not written. */
  readonly isDefault: ((value: unknown) => boolean) | undefined;
  readonly shape: "one" | "list" | "packed" | "map";
  /** Of a map: its keys, which are texts in an object, as the type they have. */
  readonly keyTag: number;
  readonly writeKey: (out: Backwards, key: string) => void;
  readonly valueTag: number;
}

const varint = 0;
const fixed64 = 1;
const lengthDelimited = 2;
const fixed32 = 5;
const two32 = 4_294_967_296;
const shortTextMax = 64;

/** Plans of types, highest field first: that is the order of writing. */
const plans = new Map<protobuf.Type, readonly FieldPlan[]>();

/** One buffer serves all: encoding is never interrupted. Kept small between uses, since a huge message is rare. */
const bufferBytesMin = 1 << 16;
const bufferBytesKeptMax = 1 << 22;
let shared = Buffer.allocUnsafeSlow(bufferBytesMin);

/** The bytes of a plain object of this type, in an array of their own. Fields that the type does not have are left out. */
export function encodePlain(type: protobuf.Type, message: Plain): Uint8Array {
  const out = new Backwards(shared);
  writeFields(out, plansOf(type), message);
  shared = out.buffer.length > bufferBytesKeptMax ? Buffer.allocUnsafeSlow(bufferBytesMin) : out.buffer;
  return out.bytes();
}

class Backwards {
  buffer: Buffer<ArrayBuffer>;
  /** Where what is written begins. */
  at: number;

  constructor(buffer: Buffer<ArrayBuffer>) {
    this.buffer = buffer;
    this.at = buffer.length;
  }

  get written(): number {
    return this.buffer.length - this.at;
  }

  bytes(): Uint8Array {
    return new Uint8Array(this.buffer.subarray(this.at));
  }

  /** Makes room for so many bytes before what is written, and moves there. */
  reserve(bytes: number): number {
    if (this.at < bytes) this.#grow(bytes);
    this.at -= bytes;
    return this.at;
  }

  #grow(bytes: number): void {
    const { written } = this;
    const larger = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, written + bytes));
    this.buffer.copy(larger, larger.length - written, this.at);
    this.buffer = larger;
    this.at = larger.length - written;
  }

  uint32(value: number): void {
    let bytes = 1;
    for (let rest = value >>> 7; rest !== 0; rest >>>= 7) bytes++;
    let at = this.reserve(bytes);
    let rest = value;
    for (; rest >>> 0 > 127; rest >>>= 7) this.buffer[at++] = (rest & 127) | 128;
    this.buffer[at] = rest;
  }

  /** Any whole number of 64 bits; texts for those that a number cannot hold. */
  int64(value: number | string | bigint): void {
    if (typeof value === "number" && value >= 0 && value < two32) {
      this.uint32(value);
      return;
    }
    let rest = BigInt.asUintN(64, BigInt(value));
    const septets: number[] = [];
    do {
      septets.push(Number(rest & 127n));
      rest >>= 7n;
    } while (rest !== 0n);
    const at = this.reserve(septets.length);
    for (const [index, septet] of septets.entries())
      this.buffer[at + index] = index < septets.length - 1 ? septet | 128 : septet;
  }

  text(value: string): void {
    if (value.length > shortTextMax || !this.#ascii(value)) {
      const bytes = Buffer.byteLength(value);
      const at = this.reserve(bytes);
      this.buffer.write(value, at, bytes, "utf8");
      this.uint32(bytes);
    }
  }

  /** Short texts are mostly names: writing them here spares two calls out of JavaScript. False, and nothing written, for others. */
  #ascii(value: string): boolean {
    const { length } = value;
    const at = this.reserve(length);
    for (let index = 0; index < length; index++) {
      const code = value.charCodeAt(index);
      if (code > 127) {
        this.at += length;
        return false;
      }
      this.buffer[at + index] = code;
    }
    this.uint32(length);
    return true;
  }

  raw(value: Uint8Array): void {
    const at = this.reserve(value.length);
    this.buffer.set(value, at);
    this.uint32(value.length);
  }
}

function writeFields(out: Backwards, fields: readonly FieldPlan[], message: Plain): void {
  for (const plan of fields) {
    const value = message[plan.name];
    if (value === undefined || value === null) continue;
    writeField(out, plan, value);
  }
}

function writeField(out: Backwards, plan: FieldPlan, value: unknown): void {
  if (plan.shape === "one") {
    if (plan.has?.(value) === false || plan.isDefault?.(value) === true) return;
    plan.write(out, value);
    out.uint32(plan.tag);
    return;
  }
  if (plan.shape === "map") {
    writeMap(out, plan, value as Plain);
    return;
  }
  const { has } = plan;
  const items = has === undefined ? (value as readonly unknown[]) : (value as readonly unknown[]).filter(has);
  const before = out.written;
  for (let at = items.length - 1; at >= 0; at--) {
    plan.write(out, items[at]);
    if (plan.shape === "list") out.uint32(plan.tag);
  }
  if (plan.shape === "list" || items.length === 0) return;
  out.uint32(out.written - before);
  out.uint32(plan.tag);
}

function writeMap(out: Backwards, plan: FieldPlan, entries: Plain): void {
  for (const key of Object.keys(entries).toReversed()) {
    const before = out.written;
    plan.write(out, entries[key]);
    out.uint32(plan.valueTag);
    plan.writeKey(out, key);
    out.uint32(plan.keyTag);
    out.uint32(out.written - before);
    out.uint32(plan.tag);
  }
}

function plansOf(type: protobuf.Type): readonly FieldPlan[] {
  let found = plans.get(type);
  if (found === undefined) {
    const fields = type.fieldsArray.toSorted((a, b) => b.id - a.id);
    plans.set(type, (found = fields.map(planOf)));
  }
  return found;
}

function planOf(field: protobuf.Field): FieldPlan {
  field.resolve();
  const value = scalarOf(field);
  const isPacked = field.repeated && field.packed && value.wire !== lengthDelimited;
  const shape = field.map ? "map" : isPacked ? "packed" : field.repeated ? "list" : "one";
  const wire = shape === "map" || shape === "packed" ? lengthDelimited : value.wire;
  const keyType = field instanceof protobuf.MapField ? field.keyType : "string";
  const key = keyType === "string" ? undefined : scalars[keyType];
  return {
    name: field.name,
    tag: (field.id << 3) | wire,
    write: value.write,
    has: value.has,
    isDefault: field.hasPresence ? undefined : value.isDefault,
    shape,
    keyTag: (1 << 3) | (key?.wire ?? lengthDelimited),
    writeKey:
      key === undefined
        ? (out, text) => out.text(text)
        : (out, text) => key.write(out, keyType === "bool" ? text === "true" : Number(text)),
    valueTag: (2 << 3) | value.wire,
  };
}

interface Scalar {
  readonly wire: number;
  readonly isDefault?: (value: unknown) => boolean;
  readonly has?: (value: unknown) => boolean;
  readonly write: (out: Backwards, value: unknown) => void;
}

const isZero = (value: unknown): boolean => Object.is(Number(value), 0);

const whole: Scalar = { wire: varint, isDefault: isZero, write: (out, value) => out.int64(value as number) };

/** A number of so many bytes, least significant first. */
function fixed(bytes: 4 | 8, put: (buffer: Buffer, at: number, value: number) => void): Scalar {
  return {
    wire: bytes === 8 ? fixed64 : fixed32,
    isDefault: isZero,
    write: (out, value) => {
      const at = out.reserve(bytes);
      put(out.buffer, at, value as number);
    },
  };
}

const scalars: Readonly<Record<string, Scalar>> = {
  int32: whole,
  int64: whole,
  uint64: whole,
  uint32: { wire: varint, isDefault: isZero, write: (out, value) => out.uint32(Number(value) >>> 0) },
  sint32: {
    wire: varint,
    isDefault: isZero,
    write: (out, value) => out.uint32(((Number(value) << 1) ^ (Number(value) >> 31)) >>> 0),
  },
  sint64: {
    wire: varint,
    isDefault: isZero,
    write: (out, value) => out.int64((BigInt(value as number) << 1n) ^ (BigInt(value as number) >> 63n)),
  },
  bool: {
    wire: varint,
    isDefault: (value) => value !== true,
    write: (out, value) => out.uint32(value === true ? 1 : 0),
  },
  double: fixed(8, (buffer, at, value) => buffer.writeDoubleLE(Number(value), at)),
  float: fixed(4, (buffer, at, value) => buffer.writeFloatLE(Number(value), at)),
  fixed32: fixed(4, (buffer, at, value) => buffer.writeUInt32LE(Number(value) >>> 0, at)),
  sfixed32: fixed(4, (buffer, at, value) => buffer.writeInt32LE(Number(value), at)),
  fixed64: fixed(8, (buffer, at, value) => buffer.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), at)),
  sfixed64: fixed(8, (buffer, at, value) => buffer.writeBigInt64LE(BigInt(value), at)),
  string: {
    wire: lengthDelimited,
    isDefault: (value) => value === "",
    write: (out, value) => out.text(String(value)),
  },
  bytes: {
    wire: lengthDelimited,
    isDefault: (value) => (value as string | Uint8Array).length === 0,
    write: (out, value) =>
      out.raw(typeof value === "string" ? Buffer.from(value, "base64") : (value as Uint8Array)),
  },
};

function scalarOf(field: protobuf.Field): Scalar {
  const { resolvedType } = field;
  if (resolvedType instanceof protobuf.Type) {
    const write = isAny(resolvedType) ? writeAny : writeMessage(resolvedType);
    return { wire: lengthDelimited, write };
  }
  if (resolvedType instanceof protobuf.Enum) return enumOf(resolvedType);
  const scalar = scalars[field.type];
  if (scalar === undefined) throw new Error(`${field.fullName} is of the unknown type ${field.type}`);
  return scalar;
}

function enumOf({ values }: protobuf.Enum): Scalar {
  const numberOf = (value: unknown): number =>
    typeof value === "number" ? value : (values[String(value)] ?? 0);
  return {
    wire: varint,
    has: (value) => typeof value === "number" || Object.hasOwn(values, String(value)),
    isDefault: (value) => numberOf(value) === 0,
    write: (out, value) => out.int64(numberOf(value)),
  };
}

function writeMessage(type: protobuf.Type): Scalar["write"] {
  // Not before it is needed: types hold one another.
  let fields: readonly FieldPlan[] | undefined;
  return (out, value) => {
    const before = out.written;
    writeFields(out, (fields ??= plansOf(type)), value as Plain);
    out.uint32(out.written - before);
  };
}

/** Types by the name that stands in an "@type", by the root that they belong to. */
let anyTypes: ((name: string) => protobuf.Type | undefined) | undefined;

/** Says where types inside of an `Any` are looked up. */
export function setAnyTypes(lookup: (name: string) => protobuf.Type | undefined): void {
  anyTypes = lookup;
}

/** By its short name first: protobufjs puts a full name together each time it is asked. */
function isAny(type: protobuf.Type): boolean {
  return type.name === "Any" && type.fullName === ".google.protobuf.Any";
}

/** The bytes of each constant, with their length before them; undefined until it is first encoded. */
const constants = new WeakMap<object, Uint8Array | undefined>();

/** Promises that the `Any` never changes: it is encoded once, however many messages hold it. Freezes it. */
export function neverChanging<T extends object>(any: T): T {
  deepFreeze(any);
  constants.set(any, undefined);
  return any;
}

function deepFreeze(value: unknown): void {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const inner of Object.values(value)) deepFreeze(inner);
}

function writeAny(out: Backwards, value: unknown): void {
  const plain = value as Plain;
  const known = constants.get(plain);
  if (known !== undefined) {
    // Making room may take another buffer.
    const at = out.reserve(known.length);
    out.buffer.set(known, at);
    return;
  }
  const before = out.written;
  writeAnyAnew(out, plain);
  if (constants.has(plain))
    constants.set(plain, new Uint8Array(out.buffer.subarray(out.at, out.buffer.length - before)));
}

/** A plain object with "@type" is encoded as what it says; one with a type URL and bytes is an `Any` as it is. */
function writeAnyAnew(out: Backwards, plain: Plain): void {
  const before = out.written;
  const url = plain["@type"];
  const type = typeof url === "string" ? anyTypes?.(url.slice(url.lastIndexOf("/") + 1)) : undefined;
  if (typeof url === "string" && type !== undefined) {
    const inside = out.written;
    if (isAny(type)) throw new Error("an Any inside of an Any has no meaning");
    writeFields(out, plansOf(type), plain);
    if (out.written > inside) {
      out.uint32(out.written - inside);
      out.uint32((2 << 3) | lengthDelimited);
    }
    out.text(url);
    out.uint32((1 << 3) | lengthDelimited);
  } else {
    const bytes = plain["value"] as Uint8Array | undefined;
    const named = (plain["typeUrl"] ?? plain["type_url"]) as string | undefined;
    if (bytes !== undefined && bytes.length > 0) {
      out.raw(bytes);
      out.uint32((2 << 3) | lengthDelimited);
    }
    if (named !== undefined) {
      out.text(named);
      out.uint32((1 << 3) | lengthDelimited);
    }
  }
  out.uint32(out.written - before);
}

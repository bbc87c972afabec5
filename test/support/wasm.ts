// WebAssembly for tests.

/** A Proxy-Wasm module, byte by byte: adds one header to each response. */
export function wasmModule(name: string, value: string): Uint8Array {
  const [nameAt, valueAt, responseHeaders] = [16, 80, 2];
  return assembled({
    host: "proxy_add_header_map_value",
    arguments: [responseHeaders, nameAt, name.length, valueAt, value.length],
    callback: "proxy_on_response_headers",
    data: [
      [nameAt, name],
      [valueAt, value],
    ],
  });
}

/** One for connections: puts a text before what comes from the server. */
export function wasmNetworkModule(text: string): Uint8Array {
  const [textAt, upstreamData] = [16, 3];
  return assembled({
    host: "proxy_set_buffer_bytes",
    // In the place of nothing, at the beginning.
    arguments: [upstreamData, 0, 0, textAt, text.length],
    callback: "proxy_on_upstream_data",
    data: [[textAt, text]],
  });
}

interface Behaviour {
  /** A function of the host with five parameters, and what it is called with. */
  readonly host: string;
  readonly arguments: readonly number[];
  /** A function of the module with three parameters, in which that happens. */
  readonly callback: string;
  readonly data: readonly (readonly [at: number, text: string])[];
}

function assembled(behaviour: Behaviour): Uint8Array {
  const bytes = (text: string): number[] => [...Buffer.from(text)];
  const vector = (items: readonly (readonly number[])[]): number[] => [items.length, ...items.flat()];
  const text = (words: string): number[] => [words.length, ...bytes(words)];
  const section = (id: number, content: readonly number[]): number[] => [
    id,
    ...leb(content.length),
    ...content,
  ];
  const i32 = 0x7f;
  const type = (takes: number, gives: number): number[] => [
    0x60,
    takes,
    ...Array<number>(takes).fill(i32),
    gives,
    ...Array<number>(gives).fill(i32),
  ];
  const constant = (number: number): number[] => [0x41, ...leb(number, true)];
  const body = (code: readonly number[]): number[] => [code.length + 2, 0, ...code, 0x0b];
  const heapAt = 4_096;
  const passed = behaviour.arguments.flatMap(constant);
  const data = (at: number, words: string): number[] => [0, ...constant(at), 0x0b, ...text(words)];
  const functions = [
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    behaviour.callback,
  ];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([type(0, 0), type(1, 1), type(2, 0), type(3, 1), type(5, 1)])),
    ...section(2, vector([[...text("env"), ...text(behaviour.host), 0, 4]])),
    ...section(3, [4, 0, 1, 2, 3]),
    ...section(5, [1, 0, 1]),
    ...section(
      7,
      vector([[...text("memory"), 2, 0], ...functions.map((each, at) => [...text(each), 0, at + 1])]),
    ),
    ...section(
      10,
      vector([
        body([]),
        body(constant(heapAt)),
        body([]),
        // call the host, drop its result, go on
        body([...passed, 0x10, 0, 0x1a, ...constant(0)]),
      ]),
    ),
    ...section(11, vector(behaviour.data.map(([at, words]) => data(at, words)))),
  ]);
}

/** A number as WebAssembly writes it: seven bits a byte, lowest first. */
function leb(number: number, signed = false): number[] {
  const low = number & 0x7f;
  const rest = number >> 7;
  const isLast = rest === 0 && (!signed || low < 0x40);
  return isLast ? [low] : [low | 0x80, ...leb(rest, signed)];
}

// WebAssembly for tests.

/** A Proxy-Wasm module, byte by byte: adds one header to each response. */
export function wasmModule(name: string, value: string): Uint8Array {
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
  const [nameAt, valueAt, heapAt, responseHeaders] = [16, 80, 4_096, 2];
  const addHeader = [responseHeaders, nameAt, name.length, valueAt, value.length].flatMap(constant);
  const data = (at: number, words: string): number[] => [0, ...constant(at), 0x0b, ...text(words)];
  const functions = [
    "proxy_abi_version_0_2_1",
    "proxy_on_memory_allocate",
    "proxy_on_context_create",
    "proxy_on_response_headers",
  ];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, vector([type(0, 0), type(1, 1), type(2, 0), type(3, 1), type(5, 1)])),
    ...section(2, vector([[...text("env"), ...text("proxy_add_header_map_value"), 0, 4]])),
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
        // call proxy_add_header_map_value, drop its result, go on
        body([...addHeader, 0x10, 0, 0x1a, ...constant(0)]),
      ]),
    ),
    ...section(11, vector([data(nameAt, name), data(valueAt, value)])),
  ]);
}

/** A number as WebAssembly writes it: seven bits a byte, lowest first. */
function leb(number: number, signed = false): number[] {
  const low = number & 0x7f;
  const rest = number >> 7;
  const isLast = rest === 0 && (!signed || low < 0x40);
  return isLast ? [low] : [low | 0x80, ...leb(rest, signed)];
}

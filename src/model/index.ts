export type { Proxy, ProxyClass } from "./proxy.ts";
export { proxyClassText } from "./proxy.ts";

import { BlockList, isIP } from "node:net";
import type { CidrRange } from "./shapes.ts";

/** Whether an address lies in a range; an address of the other family, or no address at all, does not. */
export function inRange(address: string, range: CidrRange): boolean {
  const family = isIP(address);
  if (family === 0 || isIP(range.addressPrefix) !== family) return false;
  const type = family === 6 ? "ipv6" : "ipv4";
  const list = new BlockList();
  list.addSubnet(range.addressPrefix, range.prefixLen?.value ?? 0, type);
  return list.check(address, type);
}

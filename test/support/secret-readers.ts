// What an API server said, for tests that care for keys of Secrets and not for who may have them.

import type { Change, Table } from "#engine";
import { secretReaderTable } from "#model";

/** That these service accounts, `namespace/name`, may list the Secrets of their namespace. */
export function readersOfSecrets(...accounts: readonly string[]): Change[] {
  const table = secretReaderTable as Table<unknown>;
  return accounts.map((key) => ({ table, key, value: { allowed: true } }));
}

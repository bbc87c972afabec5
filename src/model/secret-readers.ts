// Which service accounts may list the Secrets of their namespace. Gateways, and DestinationRules that select workloads, bring keys
// of Secrets to proxies, and whoever may write such an object need not be one who may read Secrets: so, as in Istio, the proxy's
// own service account must be. The API server alone knows; what it said is an input like any object, asked for where an object
// makes it matter.

import { defineKeyedQuery, defineQuery, defineTable, sameData, type Query } from "#engine";
import { machineAccount, machineLabels } from "#objects";
import { namespaceOf } from "./core-kinds.ts";
import { credentialsIn, policiesOf } from "./destination-rule.ts";
import { routersInQuestion } from "./router-credentials.ts";
import { selects, type Labels } from "./selectors.ts";
import { everyNamespace, tables } from "./tables.ts";
import type { WorkloadKey } from "./workload.ts";

/** What the API server said, by `namespace/service account`. No row: it has not said anything yet, which is a no. */
export interface SecretReader {
  readonly allowed: boolean;
}

export const secretReaderTable = defineTable<SecretReader>("SecretReader");

/** Whether a service account, `namespace/name`, may have keys of its namespace. */
export const mayReadSecrets = defineQuery<boolean>(
  "mayReadSecrets",
  (read, account) => read(secretReaderTable, account)?.allowed === true,
);

/** Whether the API server has said no. */
export const isRefused = defineQuery<boolean>(
  "isRefusedSecrets",
  (read, account) => read(secretReaderTable, account)?.allowed === false,
);

/** Some service accounts as a sentence names them. */
export function accountsText(accounts: readonly string[]): string {
  const more = accounts.length > accountsShownMax ? ` and ${accounts.length - accountsShownMax} more` : "";
  return `${accounts.slice(0, accountsShownMax).join(", ")}${more}`;
}

/** The rest is counted. */
const accountsShownMax = 5;

/** The service accounts, `namespace/name`, of a namespace's Pods and machines with these labels, in order. */
export const accountsSelected = defineKeyedQuery<WorkloadKey, readonly string[]>(
  "accountsSelected",
  ({ namespace, labels }) => `${namespace} ${JSON.stringify(labels)}`,
  (read, { namespace, labels }) => {
    const accounts = (rows: readonly string[], query: typeof accountOfPod): readonly string[] =>
      rows.flatMap((row) => {
        const one = read(query, row);
        return one !== undefined && selects(labels, one.labels) ? [`${namespace}/${one.account}`] : [];
      });
    const ofPods = accounts(read(tables.Pod.by.namespace.members, namespace), accountOfPod);
    const ofMachines = accounts(read(tables.WorkloadGroup.by.namespace.members, namespace), accountOfGroup);
    return [...new Set([...ofPods, ...ofMachines])].toSorted();
  },
  sameData,
);

interface Account {
  readonly account: string;
  readonly labels: Labels;
}

/** By itself: Pods change more often than their labels, and this seldom changes with them. */
const accountOfPod: Query<string, Account | undefined> = defineQuery(
  "accountOfPod",
  (read, row) => {
    const pod = read(tables.Pod, row);
    if (pod === undefined) return undefined;
    return { account: pod.spec?.serviceAccountName ?? "default", labels: pod.metadata.labels ?? {} };
  },
  sameData,
);

/** Of machines outside of the cluster, which join by their group alone. */
const accountOfGroup: Query<string, Account | undefined> = defineQuery(
  "accountOfGroup",
  (read, row) => {
    const group = read(tables.WorkloadGroup, row);
    return group === undefined ? undefined : { account: machineAccount(group), labels: machineLabels(group) };
  },
  sameData,
);

/** The service accounts of all workloads that rules bring keys to, in order. */
const sidecarsInQuestion = defineQuery<readonly string[]>(
  "sidecarsInQuestion",
  (read) => {
    const rules = read(tables.DestinationRule.by.credential, everyNamespace).filter((rule) =>
      credentialsIn(policiesOf(rule)).some(({ mode }) => mode === "MUTUAL"),
    );
    const accounts = rules.flatMap((rule) => {
      const labels = rule.spec?.workloadSelector?.matchLabels ?? {};
      return read(accountsSelected, { namespace: namespaceOf(rule), labels });
    });
    return [...new Set(accounts)].toSorted();
  },
  sameData,
);

/** The service accounts that the API server is to be asked about: those of gateways first, which most depends on. */
export const secretReadersInQuestion = defineQuery<readonly string[]>(
  "secretReadersInQuestion",
  (read) => [...new Set([...read(routersInQuestion, ""), ...read(sidecarsInQuestion, "")])],
  sameData,
);

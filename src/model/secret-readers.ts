// Which service accounts may list the Secrets of their namespace. A DestinationRule that selects workloads brings them keys of
// Secrets, and whoever may write such a rule need not be one who may read Secrets: so, as in Istio, the workload's own service
// account must be. The API server alone knows; what it said is an input like any object, asked for where a rule makes it matter.

import { defineKeyedQuery, defineQuery, defineTable, sameData } from "#engine";
import { namespaceOf } from "./core-kinds.ts";
import { credentialsIn, policiesOf } from "./destination-rule.ts";
import { selects, type Labels } from "./selectors.ts";
import { everyNamespace, tables } from "./tables.ts";

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

interface Selected {
  readonly namespace: string;
  readonly labels: Labels;
}

/** The service accounts, `namespace/name`, of a namespace's Pods with these labels, in order. */
export const accountsSelected = defineKeyedQuery<Selected, readonly string[]>(
  "accountsSelected",
  ({ namespace, labels }) => `${namespace} ${JSON.stringify(labels)}`,
  (read, { namespace, labels }) => {
    const accounts = read(tables.Pod.by.namespace.members, namespace).flatMap((row) => {
      const pod = read(accountOfPod, row);
      return pod !== undefined && selects(labels, pod.labels) ? [`${namespace}/${pod.account}`] : [];
    });
    return [...new Set(accounts)].toSorted();
  },
  sameData,
);

/** By itself: Pods change more often than their labels, and this seldom changes with them. */
const accountOfPod = defineQuery<{ readonly account: string; readonly labels: Labels } | undefined>(
  "accountOfPod",
  (read, row) => {
    const pod = read(tables.Pod, row);
    if (pod === undefined) return undefined;
    return { account: pod.spec?.serviceAccountName ?? "default", labels: pod.metadata.labels ?? {} };
  },
  sameData,
);

/** The service accounts of all workloads that rules bring keys to, in order: those that the API server is to be asked about. */
export const secretReadersInQuestion = defineQuery<readonly string[]>(
  "secretReadersInQuestion",
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

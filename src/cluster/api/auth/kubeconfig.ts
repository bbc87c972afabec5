// Kubeconfigs, as kubectl and client libraries read them.

import { stringify } from "yaml";
import type { KeyPem } from "./cluster-ca.ts";

/** A kubeconfig with one context, its credentials within it. */
export function kubeconfigOf(serverUrl: string, caPem: string, credentials: KeyPem): string {
  const base64 = (text: string): string => Buffer.from(text).toString("base64");
  return stringify(
    {
      apiVersion: "v1",
      kind: "Config",
      clusters: [
        { name: "mizzen", cluster: { server: serverUrl, "certificate-authority-data": base64(caPem) } },
      ],
      users: [
        {
          name: "mizzen-admin",
          user: {
            "client-certificate-data": base64(credentials.certPem),
            "client-key-data": base64(credentials.keyPem),
          },
        },
      ],
      contexts: [{ name: "mizzen", context: { cluster: "mizzen", user: "mizzen-admin" } }],
      "current-context": "mizzen",
    },
    { lineWidth: 0 },
  );
}

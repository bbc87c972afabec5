// `mizzen vm`: machines outside of the cluster. `configure` writes what a machine needs (where the cluster can be asked),
// `run` makes the machine part of the mesh (on the machine), `join` does both at once, `group` writes a WorkloadGroup.

import { chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { ports } from "#base";
import { packageRoot } from "#cluster";
import type { WorkloadGroup } from "#objects";
import { parse, stringify } from "yaml";
import { openAccess, type Access } from "../access.ts";
import {
  clusterFlags,
  type Command,
  type Invocation,
  type Io,
  NotSoError,
  numberFlag,
  textFlag,
  UsageError,
} from "../command.ts";
import { ApiError } from "../kube.ts";
import { runMachine } from "../machine.ts";

const actions: Readonly<Record<string, (invocation: Invocation, what: string) => Promise<void>>> = {
  group: writeGroup,
  configure: async (invocation, group) => {
    const folder = textFlag(invocation.flags, "output");
    if (folder === undefined) throw new UsageError("vm configure wants a folder: --output DIR");
    await configure(invocation, group, folder);
    invocation.io.note(`${folder} is ready: copy it to the machine and run mizzen vm run ${folder} there`);
  },
  run: ({ io, flags }, folder) => runIn(io, folder, flags),
  join: async (invocation, group) => {
    const folder = mkdtempSync(join(tmpdir(), "mizzen-vm-"));
    try {
      await configure(invocation, group, folder);
      await runIn(invocation.io, folder, invocation.flags);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

export const vm: Command = {
  name: "vm",
  summary: "machines outside of the cluster: write what they need, let them join the mesh",
  arguments: "<action> <group>",
  argumentChoices: Object.keys(actions),
  flags: [
    ...clusterFlags,
    { syntax: "-n, --namespace <namespace>", help: "the WorkloadGroup's namespace", default: "default" },
    { syntax: "-o, --output <folder>", help: "configure: where to write the machine's files" },
    {
      syntax: "--discovery <address>",
      help: "host:port of istiod as the machine reaches it (default: istiod's Service)",
    },
    { syntax: "--istiod-ip <address>", help: "the address that istiod's name stands for on the machine" },
    { syntax: "--hours <count>", help: "how long the token is good for the first start", default: "1" },
    { syntax: "--address <address>", help: "run: the machine's address (default: its first)" },
    { syntax: "--proxy-user <uid>", help: "run: whom the proxy runs as", default: "1337" },
    {
      syntax: "--exclude-inbound-ports <ports>",
      help: "run: ports that are left alone beside the proxy's own",
      default: "22",
    },
    { syntax: "--service-account <name>", help: "group: whom its machines are", default: "default" },
    { syntax: "--labels <pairs>", help: "group: labels of its machines, as app=web,version=v1" },
  ],
  examples: [
    {
      line: "mizzen vm group web -n shop --service-account web --labels app=web | kubectl apply -f -",
      does: "a group that machines can join",
    },
    {
      line: "mizzen vm configure web -n shop -o web-files",
      does: "the files of a machine: token, root, settings",
    },
    { line: "mizzen vm run web-files", does: "on the machine, as root: sidecar and capture until Ctrl-C" },
    { line: "mizzen vm join web -n shop", does: "both, where the machine reaches the cluster's API" },
  ],
  async run(invocation) {
    const [word = "", what] = invocation.args;
    const action = actions[word];
    if (action === undefined || what === undefined)
      throw new UsageError(
        `vm wants an action and its object: mizzen vm ${Object.keys(actions).join("|")} NAME`,
      );
    await action(invocation, what);
  },
};

function writeGroup({ flags, io }: Invocation, name: string): Promise<void> {
  const pairs = (textFlag(flags, "labels") ?? "").split(",").filter((pair) => pair !== "");
  const labels = Object.fromEntries(
    pairs.map((pair) => {
      const [key = "", value] = pair.split("=");
      if (value === undefined) throw new UsageError(`--labels has '${pair}'; name=value is expected`);
      return [key, value];
    }),
  );
  const group: WorkloadGroup = {
    apiVersion: "networking.istio.io/v1",
    kind: "WorkloadGroup",
    metadata: { name, namespace: textFlag(flags, "namespace") ?? "default" },
    spec: { template: { labels, serviceAccount: textFlag(flags, "serviceAccount") ?? "default" } },
  };
  io.out(stringify(group).trimEnd());
  return Promise.resolve();
}

async function configure(invocation: Invocation, groupName: string, folder: string): Promise<void> {
  const { flags } = invocation;
  const namespace = textFlag(flags, "namespace") ?? "default";
  const access = await openAccess(invocation);
  const group = await ask<WorkloadGroup>(
    access,
    `/apis/networking.istio.io/v1/namespaces/${namespace}/workloadgroups/${groupName}`,
    `WorkloadGroup ${namespace}/${groupName}`,
  );
  const roots = await ask<{ data?: Record<string, string> }>(
    access,
    `/api/v1/namespaces/${namespace}/configmaps/istio-ca-root-cert`,
    `ConfigMap ${namespace}/istio-ca-root-cert`,
  );
  const template = group.spec?.template;
  const account =
    template?.serviceAccount === undefined || template.serviceAccount === ""
      ? "default"
      : template.serviceAccount;
  const hours = numberFlag(flags, "hours") ?? 1;
  const token = await newToken(access, namespace, account, hours * 3_600);
  const discovery = textFlag(flags, "discovery") ?? `istiod.${access.istioNamespace}.svc:${ports.xds}`;
  const mesh = await meshSettings(access);
  const labels = { ...group.spec?.metadata?.labels, ...template?.labels };
  const proxyConfig = {
    ...mesh.defaultConfig,
    discoveryAddress: discovery,
    ...(group.spec?.probe === undefined ? {} : { readinessProbe: group.spec.probe }),
  };
  const env: Record<string, string> = {
    POD_NAMESPACE: namespace,
    SERVICE_ACCOUNT: account,
    CA_ADDR: discovery,
    TRUST_DOMAIN: mesh.trustDomain,
    PROXY_CONFIG: JSON.stringify(proxyConfig),
    ISTIO_META_AUTO_REGISTER_GROUP: groupName,
    ISTIO_META_DNS_CAPTURE: "true",
    ISTIO_META_WORKLOAD_NAME: groupName,
    ...(template?.network === undefined || template.network === ""
      ? {}
      : { ISTIO_META_NETWORK: template.network }),
  };
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  const write = (name: string, text: string, mode = 0o644): void =>
    writeFileSync(join(folder, name), text, { mode });
  write("cluster.env", lines(Object.entries(env).map(([name, value]) => `${name}=${value}`)));
  write("labels", lines(Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`)));
  write("root-cert.pem", roots.data?.["root-cert.pem"] ?? "");
  write("istio-token", token, 0o600);
  const istiodIp = textFlag(flags, "istiodIp");
  const host = discovery.slice(0, discovery.lastIndexOf(":"));
  write("hosts", istiodIp === undefined ? "" : `${istiodIp} ${host}\n`);
}

async function newToken(
  access: Access,
  namespace: string,
  account: string,
  seconds: number,
): Promise<string> {
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
  const body = {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: ["istio-ca"], expirationSeconds: seconds },
  };
  const answer = await access.kube.ask("POST", path, {
    type: "application/json",
    text: JSON.stringify(body),
  });
  const token = JSON.parse(answer.text) as { status?: { token?: string }; message?: string };
  if (token.status?.token === undefined)
    throw new NotSoError(
      `no token for ServiceAccount ${namespace}/${account}: ${token.message ?? answer.status}; the group's service account has to exist`,
    );
  return token.status.token;
}

interface MeshSettings {
  readonly trustDomain: string;
  readonly defaultConfig: Readonly<Record<string, unknown>>;
}

async function meshSettings(access: Access): Promise<MeshSettings> {
  const path = `/api/v1/namespaces/${access.istioNamespace}/configmaps/istio`;
  try {
    const map = await access.kube.get<{ data?: { mesh?: string } }>(path);
    const mesh = (parse(map.data?.mesh ?? "") ?? {}) as Partial<MeshSettings>;
    return { trustDomain: mesh.trustDomain ?? "cluster.local", defaultConfig: mesh.defaultConfig ?? {} };
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
    return { trustDomain: "cluster.local", defaultConfig: {} };
  }
}

async function ask<T>({ kube }: Access, path: string, what: string): Promise<T> {
  try {
    return await kube.get<T>(path);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404)
      throw new NotSoError(`there is no ${what}`, { cause: error });
    throw error;
  }
}

function lines(entries: readonly string[]): string {
  return entries.map((entry) => `${entry}\n`).join("");
}

async function runIn(io: Io, folder: string, flags: Invocation["flags"]): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new NotSoError("capturing the machine's traffic needs root; run the command with sudo");
  const file = join(folder, "cluster.env");
  if (!existsSync(file))
    throw new NotSoError(`${folder} has no cluster.env; make the folder with mizzen vm configure`);
  const settings = Object.fromEntries(
    readFileSync(file, "utf8")
      .split("\n")
      .filter((line) => line.includes("="))
      .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
  );
  const uid = numberFlag(flags, "proxyUser") ?? 1_337;
  const address = textFlag(flags, "address") ?? firstAddress();
  if (address === undefined) throw new NotSoError("the machine has no address; name it with --address");
  for (const name of ["proxy", "identity"]) {
    mkdirSync(join(folder, name), { recursive: true, mode: 0o700 });
    chownSync(join(folder, name), uid, uid);
  }
  chownSync(join(folder, "istio-token"), uid, uid);
  const excluded = textFlag(flags, "excludeInboundPorts") ?? "22";
  const code = await runMachine({
    folder,
    settings,
    uid,
    address,
    excluded,
    program: agentProgram(),
    env: io.env,
  });
  if (code !== 0) throw new NotSoError(`the sidecar ended with code ${code}`);
}

function agentProgram(): string {
  const bundled = join(packageRoot(), "dist/agent.mjs");
  return existsSync(bundled) ? bundled : join(packageRoot(), "src/apps/agent/main.ts");
}

function firstAddress(): string | undefined {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
}

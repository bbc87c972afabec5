// Renders the OCI runtime configuration of one container: what `runc` is told. Pure.
// Defaults of capabilities, devices, masked and read-only paths are those that container engines commonly use.

import type { ProgramImage } from "../images/image.ts";
import type { Container, PodSpec } from "../types.ts";
import { parseQuantity } from "./quantity.ts";

export interface OciMount {
  readonly destination: string;
  readonly source: string;
  readonly readOnly: boolean;
}

export interface ContainerPlan {
  readonly spec: PodSpec;
  readonly container: Container;
  readonly image: ProgramImage;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly hostname: string;
  readonly netnsPath: string;
  readonly cgroupsPath: string;
  readonly mounts: readonly OciMount[];
}

export interface ProcessUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
}

const defaultCapabilities: readonly string[] = [
  "CHOWN",
  "DAC_OVERRIDE",
  "FSETID",
  "FOWNER",
  "MKNOD",
  "NET_RAW",
  "SETGID",
  "SETUID",
  "SETFCAP",
  "SETPCAP",
  "NET_BIND_SERVICE",
  "SYS_CHROOT",
  "KILL",
  "AUDIT_WRITE",
];

/** What `privileged: true` and `add: [ALL]` give: enough to configure the Pod's own network, nothing that reaches the host. */
const widestCapabilities: readonly string[] = [
  ...defaultCapabilities,
  "NET_ADMIN",
  "NET_BROADCAST",
  "IPC_LOCK",
  "SYS_NICE",
  "SYS_PTRACE",
];

/** A container's own setting wins over the Pod's, the Pod's over the image's. */
export function userOf(spec: PodSpec, container: Container, image: ProgramImage): ProcessUser {
  const own = container.securityContext;
  const pods = spec.securityContext;
  const [imageUid = "0", imageGid] = image.user.split(":");
  const chosen = own?.runAsUser ?? pods?.runAsUser;
  const uid = chosen ?? Number(imageUid);
  const gid =
    own?.runAsGroup ?? pods?.runAsGroup ?? (chosen === undefined ? Number(imageGid ?? imageUid) : 0);
  const extra = new Set([
    ...(pods?.supplementalGroups ?? []),
    ...(pods?.fsGroup === undefined ? [] : [pods.fsGroup]),
  ]);
  return { uid, gid, additionalGids: [...extra].toSorted((left, right) => left - right) };
}

/** One sentence when the security context forbids running at all. */
export function securityFault(spec: PodSpec, container: Container, image: ProgramImage): string | undefined {
  const nonRoot = container.securityContext?.runAsNonRoot ?? spec.securityContext?.runAsNonRoot;
  if (nonRoot === true && userOf(spec, container, image).uid === 0) {
    return "container has runAsNonRoot and image will run as root";
  }
  return undefined;
}

/** The effective capabilities, sorted, with the CAP_ prefix. */
export function capabilitiesOf(container: Container): string[] {
  const context = container.securityContext;
  const named = (list: readonly string[] | undefined) =>
    (list ?? []).map((name) => name.toUpperCase().replace(/^CAP_/, ""));
  const drop = named(context?.capabilities?.drop);
  const add = named(context?.capabilities?.add);
  if (context?.privileged === true) return prefixed(widestCapabilities);
  const start = drop.includes("ALL") ? [] : defaultCapabilities.filter((name) => !drop.includes(name));
  const added = add.includes("ALL") ? widestCapabilities.filter((name) => !drop.includes(name)) : add;
  return prefixed([...start, ...added]);
}

function prefixed(names: readonly string[]): string[] {
  return [...new Set(names)].toSorted().map((name) => `CAP_${name}`);
}

/** `command` and `args` of the Pod over those of the image, as Kubernetes: a `command` also drops the image's arguments. */
export function argsOf(container: Container, image: ProgramImage): string[] {
  const command = container.command ?? [];
  const args = container.args ?? [];
  if (command.length > 0) return [...command, ...args];
  return [...image.entrypoint, ...(args.length > 0 ? args : image.args)];
}

export function renderOciConfig(plan: ContainerPlan): object {
  const { container, image, spec } = plan;
  const user = userOf(spec, container, image);
  const effective = capabilitiesOf(container);
  // As a container engine: a user other than root starts with nothing in effect, and root's set bounds what it can gain.
  const held = user.uid === 0 ? effective : [];
  const context = container.securityContext;
  const escalation = context?.allowPrivilegeEscalation !== false || context?.privileged === true;
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid: user.uid, gid: user.gid, umask: 0o022, additionalGids: user.additionalGids },
      args: plan.args,
      env: Object.entries(plan.env).map(([name, value]) => `${name}=${value}`),
      cwd: container.workingDir ?? image.workingDir,
      capabilities: {
        bounding: effective,
        permitted: held,
        effective: held,
        inheritable: [],
        ambient: [],
      },
      noNewPrivileges: !escalation,
    },
    root: { path: "rootfs", readonly: context?.readOnlyRootFilesystem === true },
    hostname: plan.hostname,
    mounts: [...systemMounts, ...plan.mounts.map(renderMount)],
    linux: {
      namespaces: [
        { type: "pid" },
        { type: "ipc" },
        { type: "uts" },
        { type: "mount" },
        { type: "network", path: plan.netnsPath },
      ],
      // As container engines since 2020: an ordinary user may listen on port 80, which gateways do.
      sysctl: {
        "net.ipv4.ip_unprivileged_port_start": "0",
        ...Object.fromEntries((spec.securityContext?.sysctls ?? []).map(({ name, value }) => [name, value])),
      },
      cgroupsPath: plan.cgroupsPath,
      resources: renderResources(container),
      maskedPaths,
      readonlyPaths,
    },
  };
}

const systemMounts: readonly object[] = [
  { destination: "/proc", type: "proc", source: "proc" },
  {
    destination: "/dev",
    type: "tmpfs",
    source: "tmpfs",
    options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
  },
  {
    destination: "/dev/pts",
    type: "devpts",
    source: "devpts",
    options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
  },
  {
    destination: "/dev/shm",
    type: "tmpfs",
    source: "shm",
    options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
  },
  { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
];

function renderMount(mount: OciMount): object {
  const options = ["rbind", "rprivate", "nosuid", "nodev", mount.readOnly ? "ro" : "rw"];
  return { destination: mount.destination, type: "bind", source: mount.source, options };
}

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
];

const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const pidsMax = 4_096; // beyond it a container's fork fails, and the machine lives on
const cpuPeriodUs = 100_000;

/** Requests become shares, limits become quotas, as a kubelet does it: 1 CPU is 1,024 shares and 100 ms of each 100 ms. */
function renderResources(container: Container): object {
  const limits = container.resources?.limits;
  const memoryBytes = parseQuantity(limits?.["memory"]);
  const cpus = parseQuantity(limits?.["cpu"]);
  const requestedCpus = parseQuantity(container.resources?.requests?.["cpu"]) ?? cpus;
  return {
    devices: [{ allow: false, access: "rwm" }],
    pids: { limit: pidsMax },
    ...(memoryBytes !== undefined && memoryBytes > 0 ? { memory: { limit: Math.floor(memoryBytes) } } : {}),
    cpu: {
      shares: Math.max(2, Math.floor((requestedCpus ?? 0) * 1_024)),
      ...(cpus !== undefined && cpus > 0
        ? { quota: Math.max(1_000, Math.floor(cpus * cpuPeriodUs)), period: cpuPeriodUs }
        : {}),
    },
  };
}

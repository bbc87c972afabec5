// A container's root: a small writable skeleton of directories and account files, one for each container, into which the host's
// programs are bound read-only. Nothing else of the host can be seen from inside.

import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

/** Parts of the host that every program may read: programs and libraries, certificates, time zones. Never home, state or run directories. */
export const sharedHostPaths: readonly string[] = [
  "/usr",
  "/etc/ssl",
  "/etc/alternatives",
  "/etc/ld.so.cache",
  "/etc/localtime",
];

const accounts: readonly (readonly [name: string, uid: number, gid: number])[] = [
  ["root", 0, 0],
  ["daemon", 1, 1],
  ["curl_user", 100, 101],
  ["app", 1000, 1000],
  ["istio-proxy", 1337, 1337],
  ["nobody", 65534, 65534],
];

/** Makes the skeleton below `root`, with a mount point for every path in `mountPoints`. */
export async function makeRootfs(
  root: string,
  mountPoints: readonly { path: string; isFile: boolean }[],
): Promise<void> {
  await mkdir(join(root, "etc"), { recursive: true, mode: 0o755 });
  const directories = [
    "usr",
    "proc",
    "dev",
    "sys",
    "run",
    "var/run",
    "var/log",
    "var/tmp",
    "var/lib",
    "root",
    "home",
    "opt",
    "tmp",
  ];
  await Promise.all(directories.map((name) => mkdir(join(root, name), { recursive: true, mode: 0o755 })));
  const passwd = accounts.map(([name, uid, gid]) => `${name}:x:${uid}:${gid}::/:/bin/sh\n`).join("");
  const group = accounts.map(([name, , gid]) => `${name}:x:${gid}:\n`).join("");
  await Promise.all([
    ...["bin", "sbin", "lib", "lib64"].map((name) => symlink(`usr/${name}`, join(root, name))),
    chmod(join(root, "tmp"), 0o1777),
    chmod(join(root, "var/tmp"), 0o1777),
    writeFile(join(root, "etc/passwd"), passwd),
    writeFile(join(root, "etc/group"), group),
    writeFile(join(root, "etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n"),
  ]);
  for (const point of mountPoints) {
    const path = join(root, point.path);
    if (!path.startsWith(`${root}/`)) throw new Error(`a mount path leaves the container: ${point.path}`);
    if (!point.isFile) await mkdir(path, { recursive: true, mode: 0o755 });
    else {
      await mkdir(dirname(path), { recursive: true, mode: 0o755 });
      await writeFile(path, "", { flag: "a" });
    }
  }
}

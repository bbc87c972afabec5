// What a mesh may leave on a machine, and must not.

import { command } from "./mesh.ts";

/** Every namespace, link, mount, rule and process that carries the mesh's name. */
export async function leftovers(name: string): Promise<readonly string[]> {
  const [netns, links, mounts, rules, processes] = await Promise.all([
    command("ip", ["netns", "list"]),
    command("ip", ["-o", "link"]),
    command("cat", ["/proc/self/mountinfo"]),
    command("iptables-save", []),
    command("ps", ["-eo", "pid,args"]),
  ]);
  const marks = [`mizzen-${name}`, `mizzen/${name}`, `--name ${name}`];
  return [
    ...linesWith("netns", netns.stdout, marks),
    ...linesWith("link", links.stdout, marks),
    ...linesWith("mount", mounts.stdout, marks),
    ...linesWith("rule", rules.stdout, marks),
    ...linesWith("process", processes.stdout, marks).filter((line) => !line.includes("ps -eo")),
  ];
}

function linesWith(what: string, text: string, marks: readonly string[]): readonly string[] {
  return text
    .split("\n")
    .filter((line) => marks.some((mark) => line.includes(mark)))
    .map((line) => `${what}: ${line.trim()}`);
}

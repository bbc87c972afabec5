// Writes src/cluster/api/generated/builtin-protos.json: the field numbers of the built-in kinds in Kubernetes' protobuf form.
//
// Give it a directory with the generated.proto files of k8s.io/api and k8s.io/apimachinery, anywhere below:
//   node scripts/generate-builtin-protos.ts <directory>

import { globSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import protobuf from "protobufjs";

const target = join(import.meta.dirname, "../src/cluster/api/generated/builtin-protos.json");
const directory = process.argv[2];
if (directory === undefined) {
  console.log(
    "builtin-protos.json stays as it is: name the directory that holds Kubernetes' generated.proto files",
  );
  process.exit(0);
}

/** number -> [name, type, "" | "r" (repeated) | "m" (map from string)]. */
type Fields = Record<string, [string, string, "" | "r" | "m"]>;

const groups =
  "core apps batch rbac networking authentication authorization policy autoscaling coordination discovery events scheduling storage node admissionregistration".split(
    " ",
  );
const wanted = new RegExp(
  `^k8s\\.io\\.(api\\.(${groups.join("|")})\\.v[12]|apimachinery\\.pkg\\.(apis\\.meta\\.v1|runtime|util\\.intstr|api\\.resource))\\.`,
);
const messages: Record<string, Fields> = {};

for (const path of globSync("**/generated.proto", { cwd: directory }).sort()) {
  const { root, package: name } = protobuf.parse(readFileSync(join(directory, path), "utf8"), {
    keepCase: true,
  });
  const space = root.lookup(name ?? "");
  if (!(space instanceof protobuf.Namespace)) continue;
  for (const type of space.nestedArray) {
    const fullName = type.fullName.slice(1);
    if (type instanceof protobuf.Type && wanted.test(fullName))
      messages[fullName] = fieldsOf(type, name ?? "");
  }
}

// Lists of whole objects are answers, never requests.
const kept = Object.entries(messages).filter(([name]) => !/[a-z]List$/.test(name));
writeFileSync(target, `${JSON.stringify(Object.fromEntries(kept))}\n`);
console.log(`${kept.length} messages`);

function fieldsOf(type: protobuf.Type, space: string): Fields {
  return Object.fromEntries(
    type.fieldsArray.map((field) => {
      const mark = field instanceof protobuf.MapField ? "m" : field.repeated ? "r" : "";
      const { type: of } = field;
      const isOwn = /^[A-Z]\w*$/.test(of);
      return [String(field.id), [field.name, isOwn ? `${space}.${of}` : of.replace(/^\./, ""), mark]];
    }),
  );
}

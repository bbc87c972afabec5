// `mizzen kubeconfig`: the standalone cluster's kubeconfig, or where it lies.

import { existsSync, readFileSync } from "node:fs";
import { layoutOf } from "#cluster";
import { standaloneHome } from "../access.ts";
import { type Command, NotSoError, textFlag } from "../command.ts";

export const kubeconfig: Command = {
  name: "kubeconfig",
  summary: "prints the standalone cluster's kubeconfig",
  flags: [
    { syntax: "--name <cluster>", help: "the standalone cluster", default: "mizzen" },
    { syntax: "--path", help: "print the file's path instead" },
  ],
  examples: [
    { line: "export KUBECONFIG=$(mizzen kubeconfig --path)", does: "lets kubectl talk to it" },
    { line: "mizzen kubeconfig > ~/.kube/mizzen", does: "keeps a copy" },
  ],
  async run({ flags, io }) {
    const { kubeconfig: file } = layoutOf(textFlag(flags, "name") ?? "mizzen", standaloneHome(io.env));
    if (!existsSync(file))
      throw new NotSoError("no standalone cluster of that name was started yet; 'mizzen up' starts one");
    io.out(flags["path"] === true ? file : readFileSync(file, "utf8").trimEnd());
  },
};

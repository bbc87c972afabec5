// `mizzen down`: ends a standalone cluster and removes what it left on the machine, however it ended.

import { standaloneHome } from "../access.ts";
import { type Command, NotSoError, textFlag } from "../command.ts";
import { Progress } from "../progress.ts";
import { teardownStandalone } from "../standalone.ts";

export const down: Command = {
  name: "down",
  summary: "ends the mesh on this machine; its objects are kept for the next `up`",
  flags: [{ syntax: "--name <cluster>", help: "the standalone cluster", default: "mizzen" }],
  examples: [{ line: "mizzen down", does: "ends it, and cleans up after one that crashed" }],
  async run({ flags, io }) {
    const name = textFlag(flags, "name") ?? "mizzen";
    const progress = new Progress({
      write: (text) => process.stderr.write(text),
      isTerminal: io.isTerminal,
      nowMs: () => performance.now(),
    });
    const { home } = standaloneHome(io.env);
    const found = await progress.phase(`taking ${name} down`, () => teardownStandalone(name, home));
    if (!found) throw new NotSoError(`no cluster ${name} runs on this machine, and nothing of one is left`);
  },
};

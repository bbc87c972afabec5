// The command line: builds the parser from the commands, runs one, and turns how it ended into an exit code:
// 0; 1, what was asked is not so; 2, the command line cannot be understood.

import { Argument, CommanderError, Option, Command as Parser } from "commander";
import pc from "picocolors";
import { type Command, type Invocation, type Io, NotSoError, UsageError } from "./command.ts";
import { commands } from "./commands/index.ts";
import { ApiError } from "./kube.ts";

const io: Io = {
  out: (text) => void process.stdout.write(`${text}\n`),
  note: (text) => void process.stderr.write(`${text}\n`),
  isTerminal: process.stderr.isTTY === true && process.env.TERM !== "dumb",
  env: process.env,
};

function parser(): Parser {
  const program = new Parser("mizzen")
    .description("A service mesh on one machine, or in your cluster: starts it, shows it, checks it.")
    .exitOverride()
    .configureHelp({ showGlobalOptions: false })
    .addHelpText(
      "after",
      "\nExamples:\n  mizzen up --demo          a whole mesh with Bookinfo, on this machine\n  mizzen proxy-status       which proxies are connected\n  mizzen <command> --help   more about one command",
    );
  for (const command of commands) program.addCommand(subcommand(command));
  return program;
}

function subcommand(command: Command): Parser {
  const sub = new Parser(command.name)
    .summary(command.summary)
    .description(sentence(command.summary))
    .exitOverride();
  if (command.alias !== undefined) sub.alias(command.alias);
  for (const [index, word] of (command.arguments ?? "").split(" ").filter(Boolean).entries()) {
    // The first argument's choices are checked by the command, which knows other spellings; help shows them.
    const choices = index === 0 ? command.argumentChoices?.join(", ") : undefined;
    sub.addArgument(new Argument(word, choices));
  }
  for (const { syntax, help, default: otherwise, choices } of command.flags) {
    const option = new Option(syntax, help);
    if (otherwise !== undefined) option.default(otherwise);
    if (choices !== undefined) option.choices([...choices]);
    sub.addOption(option);
  }
  const examples = command.examples.map(({ line, does }) => `  ${line}\n      ${does}`);
  sub.addHelpText("after", `\nExamples:\n${examples.join("\n")}`);
  sub.action(async (...given: unknown[]) => {
    // Commander hands in the arguments, then the flags, then itself.
    const flags = given.at(-2) as Invocation["flags"];
    const args = given.slice(0, -2).map((value) => (typeof value === "string" ? value : undefined));
    await command.run({ args, flags, io });
  });
  return sub;
}

function sentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

function exitCodeOf(cause: unknown): number {
  if (cause instanceof CommanderError) return cause.exitCode === 0 ? 0 : 2;
  if (cause instanceof UsageError) {
    io.note(`${pc.red("error")}: ${cause.message}`);
    return 2;
  }
  if (cause instanceof NotSoError || cause instanceof ApiError) {
    io.note(`${pc.red("error")}: ${cause.message}`);
    return 1;
  }
  io.note(`${pc.red("error")}: ${cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)}`);
  return 1;
}

/** A pipe takes 64 KiB at once; what has not gone out when the process ends is lost. */
function flushed(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => void stream.write("", () => resolve()));
}

// `mizzen ... | head` closes the pipe early, which is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
});

const exitCode = await parser()
  .parseAsync(process.argv)
  .then(() => process.exitCode, exitCodeOf);
await flushed(process.stdout);
process.exit(exitCode);

// A command is a value: its words, flags, examples and action. The parser, --help and completion derive from it.

export interface Flag {
  /** As commander reads it: `-o, --output <format>`. */
  readonly syntax: string;
  readonly help: string;
  readonly default?: string | boolean;
  /** The values it takes, for checking and completion. */
  readonly choices?: readonly string[];
}

export interface Command {
  readonly name: string;
  readonly alias?: string;
  /** One line. */
  readonly summary: string;
  /** As commander reads it: `<what> [pod]`. */
  readonly arguments?: string;
  readonly argumentChoices?: readonly string[];
  readonly flags: readonly Flag[];
  /** Each a whole command line with what it does. */
  readonly examples: readonly { readonly line: string; readonly does: string }[];
  readonly run: (invocation: Invocation) => Promise<void>;
}

export interface Invocation {
  /** Positional arguments; absent ones are undefined. */
  readonly args: readonly (string | undefined)[];
  /** By the flag's long name in camelCase. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly io: Io;
}

/** What a command may touch of the process. */
export interface Io {
  readonly out: (text: string) => void;
  /** A line for people, never part of the result. */
  readonly note: (text: string) => void;
  readonly isTerminal: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What was asked is not so: exit code 1. */
export class NotSoError extends Error {}

/** The command line cannot be understood: exit code 2. */
export class UsageError extends Error {}

export function textFlag(flags: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = flags[name];
  return typeof value === "string" ? value : undefined;
}

/** Throws UsageError unless the flag is a whole number. */
export function numberFlag(flags: Readonly<Record<string, unknown>>, name: string): number | undefined {
  const text = textFlag(flags, name);
  if (text === undefined) return undefined;
  if (!/^\d+$/.test(text)) throw new UsageError(`--${name} is '${text}'; a whole number is expected`);
  return Number(text);
}

/** The flags of every command that talks to a cluster. */
export const clusterFlags: readonly Flag[] = [
  {
    syntax: "--kubeconfig <file>",
    help: "the cluster's kubeconfig (default: $KUBECONFIG, else the standalone cluster's, else ~/.kube/config)",
  },
  { syntax: "--context <name>", help: "the kubeconfig's context" },
  { syntax: "--name <cluster>", help: "the standalone cluster", default: "mizzen" },
  { syntax: "-i, --istio-namespace <namespace>", help: "where istiod runs", default: "istio-d" },
];

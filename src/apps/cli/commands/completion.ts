// `mizzen completion`: a script for bash, zsh or fish, made from the commands themselves.

import { type Command, type Flag, UsageError } from "../command.ts";

/** `commands` is a function because this command is one of them. */
export function completionCommand(commands: () => readonly Command[]): Command {
  return {
    name: "completion",
    summary: "a completion script for your shell",
    arguments: "<shell>",
    argumentChoices: ["bash", "zsh", "fish"],
    flags: [],
    examples: [
      { line: "source <(mizzen completion bash)", does: "for this shell" },
      { line: "mizzen completion fish > ~/.config/fish/completions/mizzen.fish", does: "for good" },
    ],
    async run({ args, io }) {
      const render = { bash, zsh, fish }[args[0] ?? ""];
      if (render === undefined)
        throw new UsageError(`completion knows no shell '${args[0] ?? ""}'; there are bash, zsh, fish`);
      io.out(render(commands()));
    },
  };
}

function wordsOf({ flags, argumentChoices = [] }: Command): string[] {
  return [...argumentChoices, ...flags.flatMap(namesOf), "--help"];
}

function namesOf({ syntax }: Flag): string[] {
  return syntax.split(/[ ,]+/).filter((word) => word.startsWith("-"));
}

function namesAnd(command: Command): string {
  return command.alias === undefined ? command.name : `${command.name}|${command.alias}`;
}

function bash(commands: readonly Command[]): string {
  const names = commands.flatMap(({ name, alias }) => (alias === undefined ? [name] : [name, alias]));
  const cases = commands.map(
    (command) => `    ${namesAnd(command)}) words="${wordsOf(command).join(" ")}" ;;`,
  );
  return `# mizzen completion for bash
_mizzen() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="${names.join(" ")}"
  else
    case "\${COMP_WORDS[1]}" in
${cases.join("\n")}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [ "\${#COMPREPLY[@]}" -gt 0 ] || COMPREPLY=($(compgen -f -- "$current"))
}
complete -F _mizzen mizzen`;
}

function zsh(commands: readonly Command[]): string {
  const described = commands.map(({ name, summary }) => `    '${name}:${summary.replaceAll("'", "")}'`);
  const cases = commands.map(
    (command) => `    ${namesAnd(command)}) compadd -- ${wordsOf(command).join(" ")} ;;`,
  );
  return `#compdef mizzen
_mizzen() {
  local -a commands=(
${described.join("\n")}
  )
  if (( CURRENT == 2 )); then _describe command commands; return; fi
  case "\${words[2]}" in
${cases.join("\n")}
  esac
  _files
}
compdef _mizzen mizzen`;
}

function fish(commands: readonly Command[]): string {
  const lines = commands.flatMap((command) => {
    const { name, alias, summary } = command;
    const seen = `__fish_seen_subcommand_from ${alias === undefined ? name : `${name} ${alias}`}`;
    const choices =
      command.argumentChoices === undefined
        ? []
        : [`complete -c mizzen -n '${seen}' -a '${command.argumentChoices.join(" ")}'`];
    const flags = command.flags.map((flag) => {
      const long =
        namesOf(flag)
          .find((word) => word.startsWith("--"))
          ?.slice(2) ?? "";
      const short = namesOf(flag)
        .find((word) => !word.startsWith("--"))
        ?.slice(1);
      const values = flag.choices === undefined ? "" : ` -xa '${flag.choices.join(" ")}'`;
      return `complete -c mizzen -n '${seen}' -l ${long}${short === undefined ? "" : ` -s ${short}`}${values} -d '${flag.help.replaceAll("'", "")}'`;
    });
    return [
      `complete -c mizzen -n __fish_use_subcommand -a ${name} -d '${summary.replaceAll("'", "")}'`,
      ...choices,
      ...flags,
    ];
  });
  return ["# mizzen completion for fish", ...lines].join("\n");
}

// All commands, in the order that help shows them.

import type { Command } from "../command.ts";
import { completionCommand } from "./completion.ts";
import { down } from "./down.ts";
import { kubeconfig } from "./kubeconfig.ts";
import { proxyConfig } from "./proxy-config.ts";
import { proxyStatus } from "./proxy-status.ts";
import { status } from "./status.ts";
import { up } from "./up.ts";
import { validate } from "./validate.ts";
import { vm } from "./vm.ts";
import { version } from "./version.ts";
import { wait } from "./wait.ts";

export const commands: readonly Command[] = [
  up,
  down,
  status,
  kubeconfig,
  proxyStatus,
  proxyConfig,
  wait,
  validate,
  vm,
  version,
  completionCommand(() => commands),
];

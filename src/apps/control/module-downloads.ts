// Hands fetched Wasm modules on to proxies: to those whose proven namespace has an object with the module, or to all if the root
// namespace has one. That a module was fetched with a namespace's Secret is so nobody else's gain.

import { modulePathPrefix } from "#base";
import { GrpcError, grpcStatus, type Downloads } from "#xds";
import { callerOf, type AdmissionOptions } from "./admission.ts";
import type { ModuleFetcher } from "./module-fetcher.ts";

export interface ModuleDownloadsOptions extends Pick<AdmissionOptions, "authenticate" | "unauthenticated"> {
  readonly modules: Pick<ModuleFetcher, "find">;
  readonly rootNamespace: () => string;
}

export function moduleDownloads(options: ModuleDownloadsOptions): Downloads {
  return {
    prefix: modulePathPrefix,
    find: async (sha256, peer) => {
      const { identity } = await callerOf(options, peer);
      const bytes = options.modules.find(sha256, identity.namespace, options.rootNamespace());
      if (bytes === undefined)
        throw new GrpcError(grpcStatus.notFound, `no module ${sha256} for namespace ${identity.namespace}`);
      return bytes;
    },
  };
}

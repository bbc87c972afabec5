// Where the module of a WasmPlugin or a TrafficExtension lies, read from its URL.

export type ModuleUrl =
  | { readonly kind: "file"; readonly path: string }
  | {
      readonly kind: "http";
      readonly url: string;
      readonly host: string;
      readonly port: number;
      readonly tls: boolean;
    }
  | { readonly kind: "image"; readonly image: ImageReference };

/** The name of an image, with what Docker's conventions add to it. */
export interface ImageReference {
  /** `host` or `host:port`; "docker.io" where the name begins with none. */
  readonly registry: string;
  readonly repository: string;
  /** "latest" where neither tag nor digest is given. */
  readonly tag: string | undefined;
  /** 64 hexadecimal digits. */
  readonly sha256: string | undefined;
}

/** Undefined when nobody can fetch it. A URL without scheme is the name of an image, as Istio's API has it. */
export function parseModuleUrl(text: string): ModuleUrl | undefined {
  const scheme = /^([a-zA-Z][-+.a-zA-Z0-9]*):\/\//.exec(text)?.[1];
  const rest = text.slice(scheme === undefined ? 0 : scheme.length + "://".length);
  switch (scheme?.toLowerCase()) {
    case "file":
      return { kind: "file", path: rest };
    case "http":
    case "https": {
      if (!URL.canParse(text)) return undefined;
      const url = new URL(text);
      const tls = url.protocol === "https:";
      const port = url.port === "" ? (tls ? 443 : 80) : Number(url.port);
      return { kind: "http", url: text, host: url.hostname, port, tls };
    }
    case "oci":
    case undefined: {
      const image = parseImageReference(rest);
      return image === undefined ? undefined : { kind: "image", image };
    }
    default:
      return undefined;
  }
}

const dockerRegistry = "docker.io";
const repositoryForm = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const registryForm = /^(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d{1,5})?$/;
const nameLengthMax = 255;

/** `[registry/]repository[:tag][@sha256:digest]`; undefined if it is none. */
export function parseImageReference(text: string): ImageReference | undefined {
  const at = text.indexOf("@");
  const digest = at === -1 ? undefined : /^sha256:([0-9a-f]{64})$/.exec(text.slice(at + 1))?.[1];
  if (at !== -1 && digest === undefined) return undefined;
  const name = at === -1 ? text : text.slice(0, at);
  const colon = name.lastIndexOf(":");
  const hasTag = colon > name.lastIndexOf("/");
  const tag = hasTag ? name.slice(colon + 1) : undefined;
  if (tag !== undefined && !/^\w[\w.-]{0,127}$/.test(tag)) return undefined;
  const path = hasTag ? name.slice(0, colon) : name;
  const slash = path.indexOf("/");
  const first = slash === -1 ? "" : path.slice(0, slash);
  // Docker's rule: what could not be the name of a repository's owner is a host.
  const isHost = first.includes(".") || first.includes(":") || first === "localhost";
  const registry = isHost && first !== "index.docker.io" ? first : dockerRegistry;
  const bare = isHost ? path.slice(slash + 1) : path;
  const repository = registry === dockerRegistry && !bare.includes("/") ? `library/${bare}` : bare;
  if (path.length > nameLengthMax) return undefined;
  if (!registryForm.test(registry) || !repositoryForm.test(repository)) return undefined;
  return {
    registry,
    repository,
    tag: tag ?? (digest === undefined ? "latest" : undefined),
    sha256: digest,
  };
}

// An image name stands for a local program: the standalone cluster pulls nothing. This file says what such a program is and which
// entry of the table a name selects.

/** What a container runs from. A sum type, so that OCI layouts on disk can stand beside programs. */
export type Image = ProgramImage;

/** A program over a small root file system, with parts of the host bound into it read-only. */
export interface ProgramImage {
  readonly kind: "program";
  /** What a Pod's `command` replaces. */
  readonly entrypoint: readonly string[];
  /** What a Pod's `args` (or its `command`) replaces. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** `uid` or `uid:gid`, numeric. */
  readonly user: string;
  readonly workingDir: string;
  readonly mounts: readonly HostMount[];
}

/** Always read-only. */
export interface HostMount {
  readonly hostPath: string;
  readonly path: string;
}

export interface ImageEntry {
  /** A name without tag and digest; `*` stands for any characters. `*` followed by `/` at the front also matches no registry at all. */
  readonly match: string;
  readonly image: Image;
}

/** `registry/name:tag@digest` without tag and digest. */
export function repositoryOf(imageName: string): string {
  const withoutDigest = imageName.split("@")[0] ?? "";
  const colon = withoutDigest.lastIndexOf(":");
  return colon > withoutDigest.lastIndexOf("/") ? withoutDigest.slice(0, colon) : withoutDigest;
}

/** The first entry whose pattern fits the name, so that a user's entries stand before the built-in ones. */
export function findImage(entries: readonly ImageEntry[], imageName: string): Image | undefined {
  const repository = repositoryOf(imageName);
  return entries.find((entry) => matches(entry.match, repository))?.image;
}

function matches(pattern: string, repository: string): boolean {
  const plain = repositoryOf(pattern);
  const optionalPrefix = plain.startsWith("*/");
  const body = (optionalPrefix ? plain.slice(2) : plain)
    .split("*")
    .map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"))
    .join(".*");
  return new RegExp(`^${optionalPrefix ? "(.*/)?" : ""}${body}$`).test(repository);
}

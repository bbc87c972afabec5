// Who asks, and how: what every write and every decision about it needs to know.

export interface UserInfo {
  readonly username: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export interface WriteContext {
  readonly user: UserInfo;
  readonly fieldManager: string;
  /** Everything is checked, nothing is stored. */
  readonly dryRun: boolean;
  /** What happens to fields that no schema knows: refused, warned of, or dropped in silence. */
  readonly fieldValidation: "Strict" | "Warn" | "Ignore";
  /** Collects texts for `Warning` headers. */
  readonly warn: (text: string) => void;
}

export const mastersGroup = "system:masters";

/** The identity of the cluster's own controllers and node, which call from inside the process. */
export const clusterUser: UserInfo = {
  username: "system:cluster",
  groups: [mastersGroup, "system:authenticated"],
};

export function internalContext(fieldManager = clusterUser.username): WriteContext {
  return { user: clusterUser, fieldManager, dryRun: false, fieldValidation: "Ignore", warn: () => {} };
}

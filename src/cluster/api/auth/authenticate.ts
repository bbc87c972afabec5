// Who is asking: a client certificate of the cluster's authority, or a service-account token. Nobody else is let in, not as
// anonymous either.

import type { IncomingMessage } from "node:http";
import type { TLSSocket } from "node:tls";
import type { UserInfo } from "../context.ts";
import { arrayOf, stringOf } from "../json.ts";
import type { TokenIssuer } from "./tokens.ts";

/** Undefined: 401. A bad credential is not made up for by a good one of the other kind. */
export async function authenticate(
  request: IncomingMessage,
  tokens: TokenIssuer,
): Promise<UserInfo | undefined> {
  const header = request.headers.authorization;
  if (header !== undefined) {
    const token = /^Bearer +(\S+)$/i.exec(header)?.[1];
    return token === undefined ? undefined : (await tokens.verify(token, []))?.user;
  }
  return certificateUser(request.socket as TLSSocket);
}

function certificateUser(socket: TLSSocket): UserInfo | undefined {
  // `authorized` says that the chain ends at our authority and the certificate is in its time.
  if (!socket.authorized) return undefined;
  const { subject } = socket.getPeerCertificate();
  const username = stringOf(subject?.CN);
  if (username === "") return undefined;
  const organizations: unknown = subject.O;
  const groups = typeof organizations === "string" ? [organizations] : arrayOf(organizations).map(stringOf);
  return { username, groups: [...groups, "system:authenticated"] };
}

// Service-account tokens: signed by the server, bound to an account and mostly to a Pod, and dead with them.

import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, jwtVerify } from "jose";
import type { CryptoKey as JoseKey, JWK, JWTPayload } from "jose";
import type { Clock } from "#base";
import type { UserInfo } from "../context.ts";
import type { Database } from "../database.ts";
import { ApiError, badRequest, invalid, invalidValue, notFound } from "../errors.ts";
import { arrayOf, isRecord, recordOf, stringOf, valueAt } from "../json.ts";
import type { TokenAsk } from "../store.ts";
import { writePrivate } from "./cluster-ca.ts";

// Kubernetes' bounds: ten minutes, and 2^32 seconds.
const tokenSecondsMin = 600;
const tokenSecondsMax = 2 ** 32;
// What is asked for beyond it is cut to a day: a node refreshes long before, and a stolen token ends.
const tokenSecondsGranted = 86_400;
const clockToleranceSeconds = 10;

const accountSubject = { group: "", plural: "serviceaccounts", kind: "ServiceAccount" };

export class TokenIssuer {
  readonly issuer: string;
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #privateKey: JoseKey | Uint8Array;
  readonly #publicKey: JoseKey | Uint8Array;
  readonly #publicJwk: JWK;

  private constructor(parts: {
    database: Database;
    clock: Clock;
    issuer: string;
    privateKey: JoseKey | Uint8Array;
    publicKey: JoseKey | Uint8Array;
    publicJwk: JWK;
  }) {
    this.#database = parts.database;
    this.#clock = parts.clock;
    this.issuer = parts.issuer;
    this.#privateKey = parts.privateKey;
    this.#publicKey = parts.publicKey;
    this.#publicJwk = parts.publicJwk;
  }

  /** Reads the signing key from `dir`, or makes it there. */
  static async open(dir: string, issuer: string, database: Database, clock: Clock): Promise<TokenIssuer> {
    const path = join(dir, "service-account.key.json");
    const privateJwk = existsSync(path)
      ? (JSON.parse(readFileSync(path, "utf8")) as JWK)
      : await newKey(path);
    const { d: _secret, ...bare } = privateJwk;
    const kid = await calculateJwkThumbprint(bare);
    const publicJwk: JWK = { ...bare, kid, alg: "ES256", use: "sig" };
    const privateKey = await importJWK(privateJwk, "ES256");
    const publicKey = await importJWK(publicJwk, "ES256");
    return new TokenIssuer({ database, clock, issuer, privateKey, publicKey, publicJwk });
  }

  /** The JSON Web Key Set that verifies the tokens. */
  jwks(): { keys: JWK[] } {
    return { keys: [this.#publicJwk] };
  }

  /** Throws ApiError 404 for no such account, 422 for an expiry that is too short, 400 or 409 for a Pod that does not fit. */
  async issue(ask: TokenAsk): Promise<{ token: string; expiresAtMs: number }> {
    const account = this.#database.get("serviceaccounts", ask.namespace, ask.serviceAccount);
    if (!account) throw notFound(accountSubject, ask.serviceAccount);
    if (ask.expirationSeconds < tokenSecondsMin || ask.expirationSeconds > tokenSecondsMax) {
      const text = "may not specify a duration less than 10 minutes";
      throw invalid({ group: "authentication.k8s.io", plural: "tokenrequests", kind: "TokenRequest" }, "", [
        invalidValue("spec.expirationSeconds", ask.expirationSeconds, text),
      ]);
    }
    const nowSeconds = Math.floor(this.#clock.nowMs() / 1000);
    const expiry = nowSeconds + Math.min(ask.expirationSeconds, tokenSecondsGranted);
    const pod = ask.pod && this.#boundPod(ask);
    const claims: JWTPayload = {
      "kubernetes.io": {
        namespace: ask.namespace,
        serviceaccount: { name: ask.serviceAccount, uid: account.metadata.uid },
        ...(pod === undefined ? {} : { pod }),
      },
    };
    const token = await new SignJWT(claims)
      .setProtectedHeader({ alg: "ES256", kid: this.#publicJwk.kid })
      .setIssuer(this.issuer)
      .setSubject(`system:serviceaccount:${ask.namespace}:${ask.serviceAccount}`)
      .setAudience(ask.audiences.length === 0 ? [this.issuer] : [...ask.audiences])
      .setIssuedAt(nowSeconds)
      .setNotBefore(nowSeconds)
      .setExpirationTime(expiry)
      .setJti(randomUUID())
      .sign(this.#privateKey);
    return { token, expiresAtMs: expiry * 1000 };
  }

  #boundPod(ask: TokenAsk): { name: string; uid: string } {
    const { name, uid } = ask.pod!;
    const pod = this.#database.get("pods", ask.namespace, name);
    if (!pod) throw notFound({ group: "", plural: "pods", kind: "Pod" }, name);
    if (uid !== "" && pod.metadata.uid !== uid) {
      const text = `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`;
      throw new ApiError(409, "Conflict", text);
    }
    const account = stringOf(valueAt(pod, "spec", "serviceAccountName")) || "default";
    if (account !== ask.serviceAccount) {
      throw badRequest(
        `cannot bind token for serviceaccount ${JSON.stringify(ask.serviceAccount)} to pod running with different serviceaccount name.`,
      );
    }
    return { name, uid: pod.metadata.uid ?? "" };
  }

  /**
   * Who a token speaks for, and for which of the wanted audiences it is good (none wanted: the server's own). Undefined when it is
   * not one of ours, is outside its time, or its account or Pod is gone.
   */
  async verify(
    token: string,
    audiences: readonly string[],
  ): Promise<{ user: UserInfo; audiences: string[] } | undefined> {
    const wanted = audiences.length === 0 ? [this.issuer] : [...audiences];
    let payload: JWTPayload;
    try {
      const currentDate = new Date(this.#clock.nowMs());
      const options = {
        issuer: this.issuer,
        algorithms: ["ES256"],
        currentDate,
        clockTolerance: clockToleranceSeconds,
      };
      payload = (await jwtVerify(token, this.#publicKey, options)).payload;
    } catch {
      // Whatever is wrong with it, it is no token of ours; the caller gets no hint.
      return undefined;
    }
    const given = typeof payload.aud === "string" ? [payload.aud] : arrayOf(payload.aud).map(stringOf);
    const good = wanted.filter((audience) => given.includes(audience));
    const user = good.length === 0 ? undefined : this.#userOf(payload);
    return user && { user, audiences: good };
  }

  #userOf(payload: JWTPayload): UserInfo | undefined {
    const claims = recordOf(payload["kubernetes.io"]);
    const namespace = stringOf(claims["namespace"]);
    const name = stringOf(valueAt(claims, "serviceaccount", "name"));
    const uid = stringOf(valueAt(claims, "serviceaccount", "uid"));
    if (this.#database.get("serviceaccounts", namespace, name)?.metadata.uid !== uid) return undefined;
    const extra: Record<string, string[]> = {
      "authentication.kubernetes.io/credential-id": [`JTI=${payload.jti ?? ""}`],
    };
    if (isRecord(claims["pod"])) {
      const podName = stringOf(claims["pod"]["name"]);
      const podUid = stringOf(claims["pod"]["uid"]);
      const pod = this.#database.get("pods", namespace, podName);
      if (pod?.metadata.uid !== podUid) return undefined;
      extra["authentication.kubernetes.io/pod-name"] = [podName];
      extra["authentication.kubernetes.io/pod-uid"] = [podUid];
      const node = stringOf(valueAt(pod, "spec", "nodeName"));
      if (node !== "") extra["authentication.kubernetes.io/node-name"] = [node];
    }
    return {
      username: `system:serviceaccount:${namespace}:${name}`,
      uid,
      groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"],
      extra,
    };
  }
}

async function newKey(path: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const jwk = await exportJWK(privateKey);
  writePrivate(path, JSON.stringify(jwk));
  return jwk;
}

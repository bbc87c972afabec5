import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { ServerTLSSettings } from "#objects";
import { parseMeshConfig, type ClientTLSSettings, type MeshConfigTLSConfig } from "#objects";
import type { MeshService } from "#model";
import { envoyComplaint, withoutEnvoy } from "../../test/support/envoy.ts";
import type { Message } from "./proto/api.ts";
import { resource } from "./resource.ts";
import { meshServerTls, serverTls, type MeshTls } from "./tls.ts";
import { originatedTls } from "./tls-origination.ts";

const mesh: MeshTls = { trustDomains: ["cluster.local"] };
const defaults: MeshConfigTLSConfig = {
  minProtocolVersion: "TLSV1_3",
  cipherSuites: ["ECDHE-RSA-AES128-GCM-SHA256"],
  ecdhCurves: ["P-384", "P-384", "P-999", "X25519"],
};
const outside = { host: "a.example.com", subjectAltNames: [] as readonly string[] } as MeshService;

function parametersOf(context: Message): Message {
  return (context["commonTlsContext"] as Message)["tlsParams"] as Message;
}

function ofServer(settings: ServerTLSSettings, given: MeshConfigTLSConfig | undefined): Message {
  return parametersOf(serverTls(settings, { ...mesh, defaults: given }, false));
}

function ofClient(tls: ClientTLSSettings, given?: MeshConfigTLSConfig): Message {
  const { transportSocket } = originatedTls(tls, [], outside, { defaults: given }).sockets;
  return parametersOf((transportSocket as Message)["typedConfig"] as Message);
}

describe("MeshConfig's TLS", () => {
  test("tlsDefaults hold for servers, with curves that Envoy takes, each once", () => {
    assert.deepEqual(ofServer({ mode: "SIMPLE", credentialName: "c" }, defaults), {
      tlsMinimumProtocolVersion: "TLSv1_3",
      tlsMaximumProtocolVersion: "TLSv1_3",
      cipherSuites: ["ECDHE-RSA-AES128-GCM-SHA256"],
      ecdhCurves: ["P-384", "X25519"],
    });
  });

  test("a server's own word goes before them", () => {
    const own: ServerTLSSettings = {
      mode: "MUTUAL",
      credentialName: "c",
      minProtocolVersion: "TLSV1_2",
      cipherSuites: ["AES128-GCM-SHA256"],
      ecdhCurves: ["P-256"],
    };
    assert.deepEqual(ofServer(own, defaults), ofServer(own, undefined));
    assert.equal(ofServer(own, defaults)["tlsMinimumProtocolVersion"], "TLSv1_2");
  });

  test("mutual TLS within the mesh goes by meshMTLS and not by tlsDefaults", () => {
    const ofMesh = { ...mesh, cipherSuites: ["AES256-GCM-SHA384"], minProtocolVersion: "TLSV1_3", defaults };
    const wanted = {
      tlsMinimumProtocolVersion: "TLSv1_3",
      tlsMaximumProtocolVersion: "TLSv1_3",
      cipherSuites: ["AES256-GCM-SHA384"],
    };
    assert.deepEqual(parametersOf(meshServerTls(ofMesh, "http")), wanted);
    assert.deepEqual(parametersOf(serverTls({ mode: "ISTIO_MUTUAL" }, ofMesh, false)), wanted);
  });

  test("clients to servers outside take the ciphers and curves, and as in Istio not the least version", () => {
    assert.deepEqual(ofClient({ mode: "SIMPLE" }, defaults), {
      tlsMinimumProtocolVersion: "TLSv1_2",
      tlsMaximumProtocolVersion: "TLSv1_3",
      cipherSuites: ["ECDHE-RSA-AES128-GCM-SHA256"],
      ecdhCurves: ["P-384", "X25519"],
    });
    assert.deepEqual(ofClient({ mode: "SIMPLE" }), {
      tlsMinimumProtocolVersion: "TLSv1_2",
      tlsMaximumProtocolVersion: "TLSv1_3",
    });
  });

  test("every curve that is not warned of is taken by the real Envoy", { skip: withoutEnvoy }, () => {
    const ecdhCurves = ["P-256", "P-384", "P-521", "X25519", "X25519MLKEM768"];
    const { problems } = parseMeshConfig(`tlsDefaults: { ecdhCurves: [${ecdhCurves.join(", ")}] }`);
    assert.deepEqual(problems, []);
    const { sockets } = originatedTls({ mode: "SIMPLE" }, [], outside, { defaults: { ecdhCurves } });
    const cluster = resource("cluster", "c", {
      name: "c",
      type: "STATIC",
      connectTimeout: { seconds: 1 },
      ...sockets,
    });
    assert.equal(envoyComplaint([cluster]), "");
  });

  test("curves for mutual TLS within the mesh are refused", () => {
    const { problems } = parseMeshConfig("meshMTLS: { ecdhCurves: [P-256] }");
    assert.deepEqual(
      problems.map(({ code, severity }) => [code, severity]),
      [["MZ0205", "error"]],
    );
  });
});

// What a machine may lack, and what a user may type: one sentence with the remedy, the right exit code, and nothing half-made.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { leftovers } from "./leftovers.ts";
import { command, root, type Ran } from "./mesh.ts";

const name = "e2e-lacking";
const home = mkdtempSync(join(tmpdir(), "mizzen-lacking-"));
const cli = [process.execPath, join(root, "dist/cli.mjs")];
const up = [
  ...["up", "--name", name, "--port", "18990"],
  ...["--https-port", "18991", "--api-port", "18992"],
];

function run(words: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const [file = "", ...args] = words;
  return command(file, args, undefined, { MIZZEN_HOME: home, NO_COLOR: "1", ...env });
}

/** One sentence that matches, exit code 1, and no trace on the machine. */
async function assertRefused(ran: Ran, sentence: RegExp): Promise<void> {
  assert.equal(ran.code, 1, ran.stderr);
  const said = ran.stderr.split("\n").filter((line) => line.startsWith("error: "));
  assert.equal(said.length, 1, ran.stderr);
  assert.match(said[0] ?? "", sentence);
  assert.deepEqual(await leftovers(name), []);
  assert.equal(existsSync(join("/run/mizzen", name)), false, "no run directory");
  assert.equal(existsSync(join(home, name, "data")), false, "no state");
}

describe("what is missing is said in one sentence, and nothing half-made stays", () => {
  after(() => rmSync(home, { recursive: true, force: true }));

  test("without root", async () => {
    // It may read what root may, so that it also runs from a clone in root's home.
    const may = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"];
    const other = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", ...may];
    await assertRefused(
      await run([...other, ...cli, ...up]),
      /needs root\. \(Run the same command with sudo\.\)/,
    );
  });

  test("without Envoy", async () => {
    const ran = await run([...cli, ...up], { MIZZEN_ENVOY: "/nonexistent/envoy" });
    await assertRefused(ran, /There is no Envoy at \/nonexistent\/envoy\. \(Let MIZZEN_ENVOY name/);
  });

  test("without runc", async () => {
    // What is no program in its place, in a mount namespace that ends with the command.
    const hide = 'mount --bind /dev/null "$(command -v runc)" && exec "$@"';
    const ran = await run(["unshare", "--mount", "sh", "-c", hide, "sh", ...cli, ...up], {
      PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`,
    });
    await assertRefused(ran, /not installed: runc\. \(Install them: apt-get install -y runc\)/);
  });

  test("with a port that is taken, in the foreground and detached", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(18_990, "127.0.0.1", resolve));
    const sentence =
      /^error: Port 18990 of 127\.0\.0\.1, wanted for .* is taken\. .* choose another port with --port\.\)/;
    await assertRefused(await run([...cli, ...up]), sentence);
    await assertRefused(await run([...cli, ...up, "--detach"]), sentence);
    taken.close();
  });

  test("with a file that is wrong: nothing starts", async () => {
    const file = join(home, "broken.yaml");
    writeFileSync(file, "kind: Service\nmetadata:\n  name: [a\n");
    const ran = await run([...cli, ...up, "-f", file]);
    assert.equal(ran.code, 1);
    assert.match(ran.stderr, /broken\.yaml:\d+:\d+/);
    assert.deepEqual(await leftovers(name), []);
    rmSync(file);
  });

  test("a down of nothing says so", async () => {
    const ran = await run([...cli, "down", "--name", name]);
    await assertRefused(ran, /no cluster e2e-lacking runs on this machine/);
  });

  test("the state directory is empty but for the log of the detached start", () => {
    const left = existsSync(join(home, name)) ? readdirSync(join(home, name)) : [];
    assert.deepEqual(left, ["up.log"]);
  });
});

describe("validate", () => {
  const dir = mkdtempSync(join(tmpdir(), "mizzen-validate-"));
  after(() => rmSync(dir, { recursive: true, force: true }));
  const validate = async (text: string) => {
    const file = join(dir, "given.yaml");
    writeFileSync(file, text);
    const ran = await run([...cli, "validate", "-f", file]);
    return { ...ran, said: ran.stdout + ran.stderr };
  };
  const head =
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\nspec:\n";

  test("what is right is right", async () => {
    const { code, said } = await validate(
      `${head}  hosts: [reviews]\n  http:\n  - route:\n    - destination:\n        host: reviews\n`,
    );
    assert.equal(code, 0, said);
  });

  test("wrong YAML: file, line and column", async () => {
    const { code, said } = await validate(`${head}  hosts: [reviews\n  http: {}\n`);
    assert.equal(code, 1);
    assert.match(said, /given\.yaml:[67]:\d+: /);
  });

  test("a value of the wrong type: its line and column, and what was expected", async () => {
    const { code, said } = await validate(
      `${head}  hosts: [reviews]\n  http:\n  - route:\n    - destination:\n        host: reviews\n      weight: half\n`,
    );
    assert.equal(code, 1);
    assert.match(said, /given\.yaml:11:\d+: .*weight.*(integer|number)/);
  });

  test("an unknown field and a wrong meaning are found in one go, each with its place", async () => {
    const { code, said } = await validate(
      `${head}  hosts: [reviews]\n  http:\n  - rout: []\n---\n${head}  hosts: [reviews]\n  http:\n  - route:\n    - destination:\n        host: reviews\n      weight: -1\n`,
    );
    assert.equal(code, 1);
    assert.match(said, /given\.yaml:8:\d+: .*rout\b/);
    assert.match(said, /given\.yaml:20:\d+: .*weight/);
  });

  test("a wrong command line ends with 2 and says what there is", async () => {
    for (const words of [
      ["frobnicate"],
      ["validate"],
      ["up", "--port", "many"],
      ["proxy-config", "nonsense", "x"],
    ]) {
      const { code, stderr } = await run([...cli, ...words]);
      assert.equal(code, 2, `${words.join(" ")}: ${stderr}`);
      assert.notEqual(stderr, "");
    }
    for (const words of [["--help"], ["up", "--help"], ["validate", "--help"]]) {
      const { code, stdout } = await run([...cli, ...words]);
      assert.equal(code, 0);
      assert.match(stdout, /Examples:/);
    }
  });
});

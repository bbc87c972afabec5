// A container registry outside of the mesh with one image that holds a Wasm module: `node registry.ts PORT USER PASSWORD`. It gives a
// token for the password, and the image for the token.

import { moduleLayer, TestRegistry } from "../support/registry.ts";
import { wasmModule } from "../support/wasm.ts";

const [port = "", user = "", password = ""] = process.argv.slice(2);
const registry = await TestRegistry.listen({
  host: "0.0.0.0",
  port: Number(port),
  wants: "token",
  user,
  password,
});
registry.putImage("team/tag", "1", [{ mediaType: moduleLayer, bytes: wasmModule("x-image", "yes") }]);
console.log("ready");

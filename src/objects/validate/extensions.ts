// What Istio's webhook checks of a WasmPlugin and a TrafficExtension beyond their schemas.

import { parseModuleUrl } from "../module-url.ts";
import { eachOf, pathOf, type Report } from "../report.ts";
import type { TrafficExtensionSpec } from "../traffic-extension.ts";
import { portFault, show } from "../values.ts";
import type { WasmPluginSpec } from "../wasm-plugin.ts";
import { checkTargets } from "./selectors.ts";

type Module = Pick<WasmPluginSpec, "url" | "sha256" | "imagePullSecret" | "pluginName" | "vmConfig">;

export function checkWasmPlugin(spec: WasmPluginSpec, report: Report): void {
  checkTargets(spec, "spec", report);
  checkModule(spec, "spec", report);
  checkPorts(spec.match, report);
}

const luaBytesMax = 65_536;

export function checkTrafficExtension(spec: TrafficExtensionSpec, report: Report): void {
  checkTargets(spec, "spec", report);
  if ((spec.wasm === undefined) === (spec.lua === undefined))
    report.add("MZ0203", "spec", "set exactly one of wasm and lua");
  if (spec.lua !== undefined) {
    const bytes = Buffer.byteLength(spec.lua.inlineCode ?? "");
    if (bytes === 0) report.add("MZ0202", "spec.lua.inlineCode", "the code is missing");
    if (bytes > luaBytesMax)
      report.add(
        "MZ0201",
        "spec.lua.inlineCode",
        `the code has ${bytes} bytes: at most ${luaBytesMax} are allowed`,
      );
  }
  if (spec.wasm !== undefined) checkModule(spec.wasm, "spec.wasm", report);
  checkPorts(spec.match, report);
}

function checkPorts(
  match: readonly { readonly ports?: readonly { readonly number: number }[] }[] | undefined,
  report: Report,
): void {
  eachOf(match, "spec.match", ({ ports }, path) =>
    eachOf(ports, pathOf(path, "ports"), ({ number }, at) =>
      report.value(pathOf(at, "number"), portFault(number)),
    ),
  );
}

const urlSchemes = new Set(["", "file", "http", "https", "oci"]);
const nameLengthMax = 256;

function checkModule(module: Module, path: string, report: Report): void {
  const at = pathOf(path, "url");
  if (!module.url) report.add("MZ0202", at, "the URL of the module is missing");
  else {
    const scheme = schemeOf(module.url);
    if (scheme === undefined) report.add("MZ0201", at, `${show(module.url)} is not a URL`);
    else if (!urlSchemes.has(scheme))
      report.add("MZ0201", at, `${show(scheme)} is no scheme of a module: expected oci, http, https or file`);
    // Istio takes it, and fails to fetch.
    else if (parseModuleUrl(module.url) === undefined)
      report.add(
        "MZ0613",
        at,
        `${show(module.url)} names no image and no place that a module can be fetched from`,
      );
  }
  if (module.sha256 && !/^[a-f0-9]{64}$/.test(module.sha256))
    report.add("MZ0201", pathOf(path, "sha256"), "the sum must be 64 hexadecimal digits in lower case");
  if ((module.imagePullSecret?.length ?? 0) > 253)
    report.add("MZ0201", pathOf(path, "imagePullSecret"), "the name has more than 253 characters");
  if ((module.pluginName?.length ?? 0) > nameLengthMax)
    report.add("MZ0201", pathOf(path, "pluginName"), `the name has more than ${nameLengthMax} characters`);
  checkEnvironment(module, pathOf(path, "vmConfig", "env"), report);
}

/** Undefined when the text is no URL; "" for one without scheme, such as the name of an image. */
function schemeOf(text: string): string | undefined {
  const scheme = /^([a-zA-Z][-+.a-zA-Z0-9]*):\/\//.exec(text)?.[1];
  if (scheme !== undefined) return URL.canParse(text) ? scheme.toLowerCase() : undefined;
  return URL.canParse(`http://${text}`) ? "" : undefined;
}

function checkEnvironment({ vmConfig }: Module, path: string, report: Report): void {
  const seen = new Set<string>();
  eachOf(vmConfig?.env, path, ({ name, value, valueFrom }, at) => {
    if (!name) report.add("MZ0202", pathOf(at, "name"), "the variable has no name");
    else if (name.length > nameLengthMax)
      report.add("MZ0201", pathOf(at, "name"), `the name has more than ${nameLengthMax} characters`);
    if (seen.has(name)) report.add("MZ0204", pathOf(at, "name"), `the variable ${show(name)} stands twice`);
    seen.add(name);
    if (valueFrom === "HOST" && value)
      report.add(
        "MZ0203",
        pathOf(at, "value"),
        "valueFrom HOST takes the value from the proxy's own environment",
      );
  });
}

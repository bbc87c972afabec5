// What Istio's webhook checks of a Telemetry beyond its schema.

import { eachEntry, eachOf, pathOf, type Report } from "../report.ts";
import type { ProviderRef, TelemetryMetrics, TelemetrySpec, TelemetryTracing } from "../telemetry.ts";
import { celFault } from "./cel-syntax.ts";
import { checkTargets } from "./selectors.ts";

export function checkTelemetry(spec: TelemetrySpec, report: Report): void {
  checkTargets(spec, "spec", report);
  eachOf(spec.metrics, "spec.metrics", (metrics, path) => checkMetrics(metrics, path, report));
  if ((spec.tracing?.length ?? 0) > 1)
    report.add("MZ0250", "spec.tracing", "only the first entry of tracing is used");
  eachOf(spec.tracing, "spec.tracing", (tracing, path) => checkTracing(tracing, path, report));
  eachOf(spec.accessLogging, "spec.accessLogging", ({ providers, filter }, path) => {
    checkProviders(providers, path, report);
    if (filter?.expression) report.value(pathOf(path, "filter", "expression"), celFault(filter.expression));
  });
}

function checkProviders(providers: readonly ProviderRef[] | undefined, path: string, report: Report): void {
  eachOf(providers, pathOf(path, "providers"), ({ name }, at) => {
    if (!name) report.add("MZ0202", pathOf(at, "name"), "the provider has no name");
  });
}

function checkTracing(tracing: TelemetryTracing, path: string, report: Report): void {
  if ((tracing.providers?.length ?? 0) > 1)
    report.add("MZ0250", pathOf(path, "providers"), "only the first provider is used");
  checkProviders(tracing.providers, path, report);
  const percentage = tracing.randomSamplingPercentage;
  if (percentage !== undefined && (percentage < 0 || percentage > 100))
    report.add(
      "MZ0201",
      pathOf(path, "randomSamplingPercentage"),
      `${percentage} is not a percentage: expected 0 to 100`,
    );
  eachEntry(tracing.customTags, pathOf(path, "customTags"), (name, tag, at) => {
    if (name === "") report.add("MZ0202", at, "the tag has no name");
    if (tag.literal !== undefined && !tag.literal.value)
      report.add("MZ0202", pathOf(at, "literal", "value"), "the value is missing");
    if (tag.header !== undefined && !tag.header.name)
      report.add("MZ0202", pathOf(at, "header", "name"), "the header has no name");
    if (tag.environment !== undefined && !tag.environment.name)
      report.add("MZ0202", pathOf(at, "environment", "name"), "the variable has no name");
  });
}

function checkMetrics(metrics: TelemetryMetrics, path: string, report: Report): void {
  checkProviders(metrics.providers, path, report);
  eachOf(metrics.overrides, pathOf(path, "overrides"), (override, at) => {
    eachEntry(override.tagOverrides, pathOf(at, "tagOverrides"), (name, tag, where) => {
      if (name === "") report.add("MZ0250", where, "the tag has no name");
      const operation = tag?.operation ?? "UPSERT";
      if (operation === "UPSERT" && !tag?.value)
        report.add("MZ0202", pathOf(where, "value"), "operation UPSERT needs a value");
      else if (operation === "UPSERT" && celFault(tag?.value ?? "") !== undefined)
        report.add("MZ0250", pathOf(where, "value"), "the value is no expression: the tag is left as it is");
      if (operation === "REMOVE" && tag?.value)
        report.add("MZ0203", pathOf(where, "value"), "operation REMOVE takes no value");
    });
    if (override.match?.customMetric === "")
      report.add("MZ0202", pathOf(at, "match", "customMetric"), "the metric has no name");
  });
}

export type { InjectionConfig, WebhookMetric } from "./answers.ts";
export type { JsonPatchOperation } from "./configuration.ts";
export {
  injectorConfigurationName,
  validatorConfigurationName,
  webhookConfigurationPatch,
} from "./configuration.ts";
export type { WebhookOptions, WebhookServer } from "./server.ts";
export { startWebhooks } from "./server.ts";

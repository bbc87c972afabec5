// What injection hands to the agent of a pod for Envoy's bootstrap.

/** A variable of the agent's environment: JSON of Envoy's Bootstrap that goes over what the agent renders. */
export const bootstrapOverlayVariable = "MIZZEN_BOOTSTRAP_OVERLAY";

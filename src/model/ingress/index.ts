export {
  ingressGateways,
  ingressStatusOf,
  ingressVirtualService,
  routesOfIngressGateway,
  type IngressAddress,
} from "./ingress.ts";
export { ingressAdmissionProblems, ingressProblemsOf } from "./ingress-problems.ts";
export { ingressOfGateway, isIngressGateway } from "./names.ts";

export {
  ingressGateways,
  ingressStatusOf,
  ingressVirtualService,
  routesOfIngressGateway,
  type IngressAddress,
} from "./ingress.ts";
export { ingressOfGateway, isIngressGateway } from "./names.ts";

// The tables that istioctl users know: clusters, listeners, routes, endpoints.

import { at, type ConfigDump, listOf, type Plain, plain, textOf } from "./dump.ts";

export interface Row {
  readonly cells: readonly string[];
  /** What filters look at. */
  readonly facts: {
    readonly name?: string;
    readonly host?: string;
    readonly port?: number;
    readonly subset?: string;
    readonly direction?: string;
    readonly address?: string;
    readonly cluster?: string;
  };
  /** The resource as Envoy has it. */
  readonly resource: unknown;
}

export interface View {
  /** Empty when the part is shown as it is. */
  readonly header: readonly string[];
  readonly rows: readonly Row[];
  readonly raw: unknown;
}

export function clustersView({ clusters }: ConfigDump): View {
  const rows = clusters.map((cluster): Row => {
    const name = textOf(cluster["name"]);
    const facts = clusterFacts(name);
    const isStandIn = at(cluster, "metadata", "filter_metadata", "mizzen.io", "absent") === true;
    const type = isStandIn
      ? "(no such cluster)"
      : textOf(cluster["type"]) || textOf(at(cluster, "cluster_type", "name")) || "STATIC";
    const config = textOf(at(cluster, "metadata", "filter_metadata", "istio", "config"));
    const shown = [
      facts.host,
      facts.port === undefined ? "-" : String(facts.port),
      facts.subset || "-",
      facts.direction ?? "-",
      type,
      shortConfig(config),
    ];
    return { cells: shown, facts: { ...facts, name }, resource: cluster };
  });
  const header = ["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"];
  return { header, rows: sorted(rows), raw: clusters };
}

/** `outbound|9080|v1|reviews.default.svc.cluster.local`; other names are their own host. */
function clusterFacts(name: string): { host: string; port?: number; subset?: string; direction?: string } {
  const fields = name.split("|");
  const [direction, port, subset, host] = fields;
  if (fields.length !== 4) return { host: name };
  return { host: host ?? "", port: Number(port), subset: subset ?? "", direction: direction ?? "" };
}

/** `/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews` is `reviews.default`. */
function shortConfig(path: string): string {
  const match = /\/namespaces\/([^/]+)\/[^/]+\/([^/]+)$/.exec(path);
  return match === null ? path : `${match[2]}.${match[1]}`;
}

export function listenersView({ listeners }: ConfigDump): View {
  const rows = listeners.flatMap((listener) => {
    const socket = at(listener, "address", "socket_address");
    const address = textOf(at(socket, "address")) || textOf(at(listener, "address", "pipe", "path"));
    const port = Number(at(socket, "port_value") ?? 0);
    const chains = [...listOf(listener["filter_chains"]), plain(listener["default_filter_chain"])].filter(
      (chain) => Object.keys(chain).length > 0,
    );
    const facts = { name: textOf(listener["name"]), address, port };
    return chains.map((chain): Row => ({
      cells: [address, String(port), matchOf(chain), destinationOf(chain)],
      facts,
      resource: listener,
    }));
  });
  return { header: ["ADDRESSES", "PORT", "MATCH", "DESTINATION"], rows: unique(rows), raw: listeners };
}

function matchOf(chain: Plain): string {
  const match = plain(chain["filter_chain_match"]);
  const words: string[] = [];
  const say = (name: string, text: string | undefined) => {
    if (text !== undefined && text !== "") words.push(`${name}: ${text}`);
  };
  say("SNI", (match["server_names"] as string[] | undefined)?.join(","));
  say("Trans", textOf(match["transport_protocol"]));
  say("App", (match["application_protocols"] as string[] | undefined)?.join(","));
  say(
    "Addr",
    listOf(match["prefix_ranges"])
      .map((range) => `${textOf(range["address_prefix"])}/${textOf(range["prefix_len"])}`)
      .join(",") || undefined,
  );
  say("Port", textOf(match["destination_port"]));
  return words.length === 0 ? "ALL" : words.join("; ");
}

function destinationOf(chain: Plain): string {
  for (const filter of listOf(chain["filters"])) {
    const config = plain(filter["typed_config"]);
    const type = textOf(config["@type"]);
    if (type.endsWith(".HttpConnectionManager")) {
      const dynamic = textOf(at(config, "rds", "route_config_name"));
      return dynamic === "" ? inlineRoute(plain(config["route_config"])) : `Route: ${dynamic}`;
    }
    if (type.endsWith(".TcpProxy")) {
      const weighted = listOf(at(config, "weighted_clusters", "clusters")).map((entry) =>
        textOf(entry["name"]),
      );
      return `Cluster: ${textOf(config["cluster"]) || weighted.join(", ")}`;
    }
  }
  return "Non-HTTP/Non-TCP";
}

function inlineRoute(route: Plain): string {
  const name = textOf(route["name"]);
  if (name !== "") return `Inline Route: ${name}`;
  const paths = listOf(route["virtual_hosts"]).flatMap((host) =>
    listOf(host["routes"]).map((entry) => routeMatch(plain(entry["match"]))),
  );
  return `Inline Route: ${paths.join(", ")}`;
}

export function routesView({ routes }: ConfigDump): View {
  const rows = routes.flatMap((table) => {
    const name = textOf(table["name"]);
    const port = /(\d+)$/.exec(name)?.[1];
    const facts = { name, ...(port !== undefined && { port: Number(port) }) };
    return listOf(table["virtual_hosts"]).flatMap((host) =>
      listOf(host["routes"]).map((route): Row => {
        const domains = (host["domains"] as string[] | undefined) ?? [];
        const shown =
          domains.length > 2
            ? `${domains.slice(0, 2).join(", ")} + ${domains.length - 2} more`
            : domains.join(", ");
        const config = textOf(at(route, "metadata", "filter_metadata", "istio", "config"));
        const match = routeMatch(plain(route["match"]));
        return {
          cells: [name, familiarHost(name, textOf(host["name"])), shown, match, shortConfig(config)],
          facts,
          resource: table,
        };
      }),
    );
  });
  return {
    header: ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"],
    rows: unique(sorted(rows)),
    raw: routes,
  };
}

/** A virtual host that came as a resource of its own carries its table's name before Istio's. */
function familiarHost(table: string, host: string): string {
  return host.startsWith(`${table}/`) ? host.slice(table.length + 1) : host;
}

function routeMatch(match: Plain): string {
  const regex = textOf(at(match, "safe_regex", "regex"));
  const path =
    regex === ""
      ? textOf(match["prefix"]) || textOf(match["path"]) || textOf(match["path_separated_prefix"])
      : `regex ${regex}`;
  const wildcard = textOf(match["prefix"]) !== "" || textOf(match["path_separated_prefix"]) !== "" ? "*" : "";
  const headers = listOf(match["headers"]).length > 0 ? " (headers)" : "";
  return `${path}${wildcard}${headers}`;
}

export function endpointsView({ endpoints }: ConfigDump): View {
  const rows = endpoints.flatMap((assignment) => {
    const cluster = textOf(assignment["cluster_name"]);
    const { host } = clusterFacts(cluster);
    return listOf(assignment["endpoints"]).flatMap((locality) =>
      listOf(locality["lb_endpoints"]).map((entry): Row => {
        const address = at(entry, "endpoint", "address");
        const socket = plain(at(address, "socket_address"));
        const port = Number(socket["port_value"] ?? 0);
        const text =
          textOf(socket["address"]) === ""
            ? `unix://${textOf(at(address, "pipe", "path"))}`
            : `${textOf(socket["address"])}:${port}`;
        const facts = { cluster, host, port, address: textOf(socket["address"]) };
        return {
          cells: [text, textOf(entry["health_status"]) || "HEALTHY", cluster],
          facts,
          resource: assignment,
        };
      }),
    );
  });
  return { header: ["ENDPOINT", "STATUS", "CLUSTER"], rows: sorted(rows), raw: endpoints };
}

function sorted(rows: readonly Row[]): Row[] {
  const key = (row: Row) => row.cells.join("\0");
  return rows.toSorted((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
}

/** The same line twice says nothing more. */
function unique(rows: readonly Row[]): Row[] {
  const seen = new Set<string>();
  return rows.filter((row) => {
    const key = row.cells.join("\0");
    return !seen.has(key) && seen.add(key) !== undefined;
  });
}

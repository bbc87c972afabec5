// The control plane, wired: objects come in, proxies get configuration and certificates, pods get sidecars. It serves
// once it knows the whole picture, and takes itself down proxy by proxy.

import { unpackWorkload, type Clock, type Logger, type Problem, type WorkloadFacts } from "#base";
import { Engine, type Change, type Read } from "#engine";
import { bootstrapOverlay, envoyFilterMismatches, resourceOf } from "#envoy";
import {
  accessFromKubeconfig,
  accessInCluster,
  KubeClient,
  LeaderElection,
  RateLimitedWriter,
  type KubeAccess,
} from "#kube";
import {
  environmentChange,
  environmentOf,
  ingressAdmissionProblems,
  podFacts,
  proxyClassText,
  tables,
  type ProxyClass,
} from "#model";
import { planOf, viewsOf, type View } from "#plan";
import type { InjectionMesh } from "#inject";
import { admissionProblems, type KubeObject } from "#objects";
import {
  AdsServer,
  adsPath,
  stateAdsPath,
  Batcher,
  GrpcServer,
  Mesh,
  type AdsServerOptions,
  type ProxyStatus,
} from "#xds";
import { admitProven, admitUnproven, classAgain, classAsking, type AdmissionOptions } from "./admission.ts";
import { loadAuthority, type StoredAuthority } from "./authority-store.ts";
import { createCertificateMethod, createCertificatePath } from "./ca-method.ts";
import { createAuthenticator, type Authenticate } from "./ca-service.ts";
import { Certificates } from "./certificates.ts";
import { debugPages } from "./debug-pages.ts";
import { DirectorySource } from "./directory-source.ts";
import { FleetCount } from "./fleet.ts";
import { Inputs } from "./inputs.ts";
import { Inquiries } from "./inquiries.ts";
import { KubeSource } from "./kube-source.ts";
import type { ControlPlaneLimit } from "./limits.ts";
import { healthPath } from "./machines.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { MonitoringServer } from "./monitoring.ts";
import { moduleDownloads } from "./module-downloads.ts";
import { meshReports, sessionReports } from "./reports.ts";
import { mayRead, reviewToken } from "./reviews.ts";
import { addedRootsOf, RootPublisher } from "./root-publisher.ts";
import type { ObjectSource, Settings } from "./settings.ts";
import { StandingStatuses } from "./standing-statuses.ts";
import { standaloneAuthority } from "./standalone-authority.ts";
import { WebhookBundles } from "./webhook-bundles.ts";
import { startWebhooks, type WebhookServer } from "./webhooks/index.ts";
import { Writers } from "./writers.ts";

export interface ControlPlaneOptions {
  readonly settings: Settings;
  readonly version: string;
  readonly clock: Clock;
  /** 0 to 1. */
  readonly random: () => number;
  readonly log: Logger;
}

const leaseName = "istio-leader";
/** How often sessions and trials are looked after. */
const tickMs = 500;
/** The pause before the CA is asked for again at start. */
const retryMs = 1_000;

export class ControlPlane {
  readonly #options: ControlPlaneOptions;
  readonly #engine = new Engine();
  readonly #metrics: Metrics;
  readonly #client: KubeClient | undefined;
  readonly #writer: RateLimitedWriter;
  readonly #standing = new StandingStatuses();
  /** Undefined where there is no API server. */
  readonly #writers: Writers | undefined;
  readonly #fleet: FleetCount;
  readonly #batcher: Batcher;
  readonly #mesh: Mesh<ProxyClass, View>;
  readonly #inputs: Inputs;
  readonly #inquiries: Inquiries;
  readonly #ads: AdsServer<ProxyClass, View>;
  readonly #unprovenAds: AdsServer<ProxyClass, View>;
  readonly #stops: (() => void | Promise<void>)[] = [];
  #monitoring: MonitoringServer | undefined;
  #webhooks: WebhookServer | undefined;
  #xds: GrpcServer | undefined;
  #plaintext: GrpcServer | undefined;
  #ready = false;

  constructor(options: ControlPlaneOptions) {
    this.#options = options;
    const { settings, clock, log } = options;
    this.#metrics = createMetrics(options.version);
    const access = accessOf(settings.source);
    this.#client = access === undefined ? undefined : new KubeClient(access, this.#reached);
    this.#writer = new RateLimitedWriter({ clock, log, reached: this.#reached });
    if (this.#client !== undefined) {
      this.#writers = new Writers({
        settings,
        engine: this.#engine,
        client: this.#client,
        writer: this.#writer,
        clock,
        log,
        standing: this.#standing,
        authenticate: (credentials) => this.#authenticate(credentials),
        mesh: () => this.#mesh,
        replicas: () => this.#fleet.at(clock.monotonicMs()).replicas,
        validate: (object) => this.#problemsOf(object),
        reached: this.#reached,
      });
    }
    this.#batcher = new Batcher({
      clock,
      publish: (changes) => this.#publish(changes),
      reached: this.#reached,
    });
    this.#mesh = new Mesh({
      engine: this.#engine,
      translation: { viewsOf, planOf, resourceOf },
      nowMs: clock.monotonicMs,
      after: clock.after,
      reports: meshReports({
        metrics: this.#metrics,
        log,
        reached: this.#reached,
        rejections: this.#writers?.rejections,
      }),
    });
    this.#inputs = new Inputs({
      engine: this.#engine,
      namespace: settings.namespace,
      log,
      add: (changes) => this.#batcher.add(changes),
      counted: (type, event) => this.#metrics.events.inc({ type, event }),
      misread: () => this.#metrics.configErrors.inc(),
      standing: this.#standing,
      reached: this.#reached,
      restated: (object) => this.#writers?.restated(object),
      meshChanged: () => this.#onMeshChanged(),
      variable: (name) => process.env[name],
    });
    this.#inquiries = new Inquiries({
      settings,
      engine: this.#engine,
      client: this.#client,
      clock,
      log,
      publish: (changes) => this.#batcher.add(changes),
      reached: this.#reached,
    });
    const admission = this.#admission();
    const { revision, namespace } = settings;
    const name = revision === "default" ? "istiod" : `istiod-${revision}`;
    this.#fleet = new FleetCount(this.#engine, { namespace, name });
    this.#ads = this.#newAds({
      admit: admitProven(admission),
      spread: { fleet: (nowMs) => this.#fleet.at(nowMs), random: options.random },
    });
    this.#unprovenAds = this.#newAds({ admit: admitUnproven(admission), withholdsSecrets: true });
  }

  /** The ports that it really listens on. */
  get ports(): { xds: number; monitoring: number; webhook: number; plaintext: number | undefined } {
    return {
      xds: this.#xds?.port ?? 0,
      monitoring: this.#monitoring?.port ?? 0,
      webhook: this.#webhooks?.port ?? 0,
      plaintext: this.#plaintext?.port,
    };
  }

  /** Resolves when it serves. Rejects if a port is taken or the CA is unusable. */
  async start(): Promise<void> {
    const { settings, log, clock } = this.#options;
    const startedMs = clock.monotonicMs();
    this.#monitoring = await this.#startMonitoring();
    this.#batcher.hold();
    const { rootNamespace, ...environment } = {
      rootNamespace: settings.namespace,
      clusterDomain: settings.clusterDomain,
      clusterId: settings.clusterId,
      network: settings.network,
      routeDelivery: settings.routeDelivery,
      gatewayLabels: settings.gatewayLabels,
      foreignRoutes: settings.foreignRoutes,
      gatewaySelectors: settings.gatewaySelectors,
      quicListeners: settings.quicListeners,
      revision: settings.revision,
    };
    this.#batcher.add([environmentChange({ rootNamespace, ...environment })]);
    const synced = this.#startSource();
    const certificates = await this.#startCertificates();
    await synced;
    this.#batcher.release();
    await this.#inquiries.start();
    this.#stops.push(() => this.#inquiries.stop());
    this.#batcher.flush();
    await this.#startServers(certificates);
    if (this.#client !== undefined) this.#startHousekeeping(this.#client, certificates);
    this.#startTicks();
    this.#ready = true;
    const tookMs = Math.round(clock.monotonicMs() - startedMs);
    log.info({ tookMs, ...this.ports, objects: this.#engine.rows(tables.Service).size }, "serving");
  }

  /** Lets the proxies go one by one, so that other replicas get them one by one. */
  async stop(): Promise<void> {
    this.#ready = false;
    const { drainMs } = this.#options.settings;
    await Promise.all([this.#xds?.close(drainMs), this.#plaintext?.close(drainMs)]);
    for (const stop of this.#stops.toReversed()) await stop();
    this.#writers?.stop();
    this.#writer.stop();
    await this.#webhooks?.close();
    this.#monitoring?.close();
    this.#client?.close();
  }

  #publish(changes: readonly Change[]): void {
    const { clock } = this.#options;
    const startedMs = clock.monotonicMs();
    const { woken, computed, answers } = this.#mesh.publish(changes);
    this.#inquiries.settled(answers);
    const objects = this.#inputs.takeChangedObjects();
    this.#writers?.settled(objects, answers);
    this.#metrics.batchSeconds.observe((clock.monotonicMs() - startedMs) / 1000);
    this.#metrics.woken.inc(woken);
    this.#metrics.computed.inc(computed);
    for (const key of this.#inputs.takeChangedPods()) {
      const [namespace = "", name = ""] = key.split("/");
      for (const ads of [this.#ads, this.#unprovenAds]) {
        ads.reclassify(
          `${name}.${namespace}`,
          ({ id, proxyClass }) => classAgain(this.#engine, id, proxyClass),
          (one, other) => proxyClassText(one) === proxyClassText(other),
        );
      }
    }
  }

  #newAds(
    how: Pick<AdsServerOptions<ProxyClass, View>, "admit" | "spread" | "withholdsSecrets">,
  ): AdsServer<ProxyClass, View> {
    const { clock, log, version } = this.#options;
    const metrics = this.#metrics;
    return new AdsServer<ProxyClass, View>({
      ...how,
      mesh: this.#mesh,
      classAsking,
      nowMs: clock.monotonicMs,
      log,
      reports: sessionReports({
        metrics,
        version,
        reached: this.#reached,
        connected: (id) => this.#writers?.machines.connected(id),
        disconnected: (id) => this.#writers?.machines.disconnected(id),
      }),
    });
  }

  readonly #reached = (limit: ControlPlaneLimit): void => this.#metrics.limits.inc({ limit });

  #admission(): AdmissionOptions {
    return {
      engine: this.#engine,
      authenticate: (credentials) => this.#authenticate(credentials),
      awaitPod: (key) => this.#inputs.awaitPod(key),
      unauthenticated: (reason) => this.#metrics.unauthenticated.inc({ reason }),
      machine: (id, machine) => this.#writers?.machines.admitted(id, machine),
      router: (account) => this.#inquiries.router(account),
    };
  }

  readonly #authenticate: Authenticate = (credentials) =>
    createAuthenticator({
      // Read each time: MeshConfig may change while we run.
      trustDomain: this.#trustDomain,
      reviewToken: (token, audiences) =>
        this.#client === undefined
          ? Promise.resolve({ authenticated: false, error: "there is no API server to ask" })
          : reviewToken(this.#client, token, audiences),
    })(credentials);

  get #trustDomain(): string {
    return this.#inputs.mesh.trustDomain ?? "cluster.local";
  }

  async #workloadFacts(
    namespace: string,
    name: string,
    uid: string | undefined,
  ): Promise<WorkloadFacts | undefined> {
    const pod = await this.#inputs.awaitPod(`${namespace}/${name}`);
    if (pod === undefined || (uid !== undefined && pod.metadata.uid !== uid)) return undefined;
    return unpackWorkload(podFacts(pod, this.#options.settings.clusterId));
  }

  #startMonitoring(): Promise<MonitoringServer> {
    const { settings, version, log } = this.#options;
    const pages = {
      ...debugPages({ engine: this.#engine, mesh: this.#mesh, ads: this.#ads }),
      syncz: () => this.#proxyStatus(),
      rejectz: () => this.#mesh.rejections().map((one) => ({ ...one, atMs: this.#wallMs(one.atMs) })),
    };
    return MonitoringServer.listen({
      host: settings.host,
      port: settings.ports.monitoring,
      metrics: () => this.#renderMetrics(),
      isReady: () => this.#ready,
      version: { version, revision: settings.revision, clusterId: settings.clusterId },
      debug: pages,
      mayRead: (token, path) =>
        this.#client === undefined ? Promise.resolve(false) : mayRead(this.#client, token, path),
      refused: () => this.#metrics.debugRefused.inc(),
      reached: this.#reached,
      log,
    });
  }

  #proxyStatus(): readonly ProxyStatus[] {
    return [...this.#ads.status(), ...this.#unprovenAds.status()].map((proxy) => ({
      ...proxy,
      connectedAtMs: this.#wallMs(proxy.connectedAtMs),
      types: proxy.types.map((type) => ({
        ...type,
        lastSentMs: this.#wallMs(type.lastSentMs),
        lastAckedMs: this.#wallMs(type.lastAckedMs),
      })),
    }));
  }

  /** Sessions reckon by the clock that never goes back; people by the other. 0 is never. */
  #wallMs(monotonicMs: number): number {
    const { clock } = this.#options;
    return monotonicMs === 0 ? 0 : Math.round(monotonicMs + clock.nowMs() - clock.monotonicMs());
  }

  async #renderMetrics(): Promise<{ text: string; contentType: string }> {
    const { registry, services, virtualServices, nodes, views, pending, writesWaiting } = this.#metrics;
    services.set(this.#engine.rows(tables.Service).size + this.#engine.rows(tables.ServiceEntry).size);
    virtualServices.set(this.#engine.rows(tables.VirtualService).size);
    nodes.set(this.#engine.nodesHeld);
    views.set(this.#mesh.viewCount);
    pending.set(this.#batcher.pendingCount);
    writesWaiting.set(this.#writer.waiting);
    return { text: await registry.metrics(), contentType: registry.contentType };
  }

  /** Resolves when the whole picture is in. */
  #startSource(): Promise<void> {
    const { settings, clock, random, log } = this.#options;
    const changed: Inputs["changed"] = (set, removed) => {
      this.#inputs.changed(set, removed);
      this.#writers?.changed(set, removed);
    };
    if (settings.source.kind === "directory") {
      const source = new DirectorySource({ path: settings.source.path, log, changed });
      source.start();
      this.#stops.push(() => source.stop());
      return Promise.resolve();
    }
    const source = new KubeSource({ client: this.#client!, clock, random, log, changed });
    source.start();
    this.#stops.push(() => source.stop());
    return source.synced;
  }

  async #startCertificates(): Promise<Certificates> {
    const { settings, clock, log } = this.#options;
    const client = this.#client;
    const { namespace } = settings;
    const load = (before: StoredAuthority | undefined): Promise<StoredAuthority> =>
      client === undefined
        ? standaloneAuthority(clock, before)
        : loadAuthority({ client, namespace, trustDomain: this.#trustDomain, clock, log }, before);
    for (let attempt = 1; ; attempt++) {
      try {
        const certificates = await Certificates.create({
          load,
          names: servingNames(settings),
          clock,
          log,
          changed: (serving, authority) => this.#certificateChanged(certificates, serving, authority),
        });
        this.#measureAuthority(certificates);
        this.#stops.push(() => certificates.stop());
        return certificates;
      } catch (error) {
        // Said once: the API server may be starting, or the operator's secret be wrong until it is mended.
        if (attempt === 1)
          log.error({ error: String(error) }, "the CA cannot be loaded; trying again each second");
        await new Promise<void>((resolve) => void clock.after(retryMs, resolve));
      }
    }
  }

  readonly #onRootChanged: (() => void)[] = [];
  #onMeshChanged = (): void => undefined;

  #certificateChanged(
    certificates: Certificates,
    { certPem, keyPem, rootPem }: Certificates["serving"],
    _authority: Certificates["authority"],
  ): void {
    this.#xds?.replaceTls({ certificate: certPem, key: keyPem, clientRoots: rootPem });
    this.#webhooks?.certificateChanged();
    this.#measureAuthority(certificates);
    for (const tell of this.#onRootChanged) tell();
  }

  #measureAuthority({ authority }: Certificates): void {
    this.#metrics.rootExpiry.set(authority.rootNotAfterMs / 1000);
    this.#metrics.signerExpiry.set(authority.notAfterMs / 1000);
  }

  async #startServers(certificates: Certificates): Promise<void> {
    const { settings, log } = this.#options;
    const metrics = this.#metrics;
    const { certPem, keyPem, rootPem } = certificates.serving;
    this.#xds = await GrpcServer.listen({
      host: settings.host,
      port: settings.ports.xds,
      tls: { certificate: certPem, key: keyPem, clientRoots: rootPem },
      streams: { [adsPath]: this.#ads.method, [stateAdsPath]: this.#ads.stateMethod },
      downloads: moduleDownloads({
        modules: this.#inquiries.modules,
        authenticate: this.#authenticate,
        unauthenticated: (reason) => metrics.unauthenticated.inc({ reason }),
        rootNamespace: () => this.#engine.get(environmentOf, "").rootNamespace,
      }),
      unary: {
        ...(this.#writers === undefined ? {} : { [healthPath]: this.#writers.machines.health }),
        [createCertificatePath]: createCertificateMethod({
          ca: () => certificates.authority,
          authenticate: this.#authenticate,
          lookupPod: (namespace, name, uid) => this.#workloadFacts(namespace, name, uid),
          log,
          metrics: {
            csr: () => metrics.csr.inc(),
            issued: () => metrics.issued.inc(),
            unauthenticated: (reason) => metrics.unauthenticated.inc({ reason }),
            refused: (reason) => metrics.signErrors.inc({ reason }),
          },
        }),
      },
      log,
      reached: this.#reached,
    });
    if (settings.plaintext !== undefined) {
      this.#plaintext = await GrpcServer.listen({
        ...settings.plaintext,
        streams: { [adsPath]: this.#unprovenAds.method, [stateAdsPath]: this.#unprovenAds.stateMethod },
        unary: {},
        log,
        reached: this.#reached,
      });
    }
    this.#webhooks = await this.#startWebhooks(certificates);
  }

  #startWebhooks(certificates: Certificates): Promise<WebhookServer> {
    const { settings, log } = this.#options;
    return startWebhooks({
      host: settings.host,
      port: settings.ports.webhook,
      certificate: () => certificates.serving,
      namespaceLabels: (name) => {
        const namespace = this.#engine.rows(tables.Namespace).get(name);
        return namespace === undefined ? undefined : (namespace.metadata.labels ?? {});
      },
      injectionConfig: () => ({
        values: this.#inputs.injection,
        // The same object as injection sees it: plain data.
        mesh: this.#inputs.mesh as InjectionMesh,
        proxyConfigs: [...this.#engine.rows(tables.ProxyConfig).values()],
        revision: settings.revision,
        nativeSidecars: false,
      }),
      bootstrapOverlay: ({ namespace, labels, ...proxy }) =>
        bootstrapOverlay(this.#engine.get.bind(this.#engine) as Read, { namespace, labels }, proxy),
      validateObject: (object) => this.#problemsOf(object),
      log,
      reached: this.#reached,
      count: (metric, labels) => this.#metrics.webhooks[metric]?.inc(labels),
    });
  }

  /** What an object says wrong by itself, or says without effect; of an Ingress also what others have already. */
  #problemsOf(object: KubeObject): readonly Problem[] {
    const ofIngress = ingressAdmissionProblems(this.#engine.get.bind(this.#engine), object);
    return [...admissionProblems(object, { envoyFilter: envoyFilterMismatches }), ...ofIngress];
  }

  #startHousekeeping(client: KubeClient, certificates: Certificates): void {
    const { settings, clock, random, log } = this.#options;
    const shared = {
      client,
      writer: this.#writer,
      rootPem: () => certificates.authority.rootPem,
      clock,
      random,
      log,
    };
    const roots = new RootPublisher({ ...shared, addedRootsPem: () => addedRootsOf(this.#inputs.mesh) });
    const bundles = new WebhookBundles(shared);
    const election = new LeaderElection({
      ...shared,
      namespace: settings.namespace,
      name: leaseName,
      identity: settings.podName,
      changed: (leading) => {
        roots.setLeading(leading);
        this.#writers?.setLeading(leading);
      },
    });
    this.#onMeshChanged = () => roots.publishAll();
    this.#onRootChanged.push(
      () => roots.publishAll(),
      () => bundles.publishAll(),
    );
    roots.start();
    bundles.start();
    election.start();
    this.#stops.push(
      () => roots.stop(),
      () => bundles.stop(),
      () => election.stop(),
    );
  }

  #startTicks(): void {
    const { clock } = this.#options;
    let cancel = (): void => {};
    let views = 0;
    const tick = (): void => {
      if (this.#mesh.viewCount !== views) this.#writers?.viewsChanged();
      views = this.#mesh.viewCount;
      this.#ads.tick();
      this.#unprovenAds.tick();
      this.#writers?.tick();
      cancel = clock.after(tickMs, tick);
    };
    cancel = clock.after(tickMs, tick);
    this.#stops.push(() => cancel());
  }
}

function accessOf(source: ObjectSource): KubeAccess | undefined {
  switch (source.kind) {
    case "kubeconfig":
      return accessFromKubeconfig(source.path, source.context);
    case "in-cluster":
      return accessInCluster(source.host, source.port);
    case "directory":
      return undefined;
  }
}

/** The names under which proxies and the API server call us. */
function servingNames({ namespace, clusterDomain, revision }: Settings): string[] {
  const services = revision === "default" ? ["istiod"] : ["istiod", `istiod-${revision}`];
  const ofServices = services.flatMap((service) => [
    `${service}.${namespace}.svc`,
    `${service}.${namespace}.svc.${clusterDomain}`,
    `${service}.${namespace}`,
  ]);
  return [...ofServices, "localhost", "127.0.0.1"];
}

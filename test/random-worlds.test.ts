// Whatever objects there are, Envoy takes what is made of them: a sample of random worlds, each shown to the real Envoy.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Engine } from "#engine";
import { snapshotOf } from "#envoy";
import { worldChanges } from "#model";
import type { KubeObject } from "#objects";
import { proxyClasses, randomObject, seeded } from "../src/envoy/random-world.ts";
import { envoyComplaint, withoutEnvoy } from "./support/envoy.ts";

const worldsTotal = 15;
const objectsPerWorld = 60;

test(
  `the configuration of each proxy of ${worldsTotal} random worlds is taken by Envoy`,
  { skip: withoutEnvoy },
  (t) => {
    let shown = 0;
    let resourcesTotal = 0;
    for (let seed = 1; seed <= worldsTotal; seed++) {
      const random = seeded(seed);
      const world = new Map<string, KubeObject>();
      for (let at = 0; at < objectsPerWorld; at++) {
        const object = randomObject(random);
        world.set(`${object.kind} ${object.metadata.namespace}/${object.metadata.name}`, object);
      }
      const engine = new Engine();
      engine.apply(worldChanges([...world.values()]));
      for (const proxy of proxyClasses()) {
        const resources = Object.values(snapshotOf(engine, proxy)).flat();
        assert.equal(envoyComplaint(resources), "", `seed ${seed}, ${proxy.kind} in ${proxy.namespace}`);
        shown++;
        resourcesTotal += resources.length;
      }
    }
    t.diagnostic(`${shown} configurations of ${resourcesTotal} resources`);
  },
);

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { parseManifest, placeProblem, renderPosition, splitPath } from "./manifest.ts";
import { validateObject } from "./validate.ts";

const text = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
    - reviews
  http:
    - timeout: 1us
      route:
        - destination:
            host: reviews
---
apiVersion: v1
kind: Service
metadata:
  name: reviews
`;

describe("manifests", () => {
  test("each document is an object, and a problem has the line and column of its field", () => {
    const { documents, problems } = parseManifest(text, "a.yaml");
    assert.deepEqual(problems, []);
    assert.deepEqual(
      documents.map(({ object }) => object.kind),
      ["VirtualService", "Service"],
    );
    const document = documents[0]!;
    const found = validateObject(document.object).map((problem) => placeProblem(problem, document));
    assert.ok(found.length > 0);
    assert.equal(renderPosition(found[0]!), "a.yaml:9:7");
  });

  test("a syntax error has its line and column, and the other documents are read", () => {
    const { documents, problems } = parseManifest(`${text}---\na: [1\n`, "a.yaml");
    assert.equal(documents.length, 2);
    assert.equal(problems[0]?.code, "MZ0001");
    assert.equal(problems[0]?.position.line, 20);
  });

  test("a document without kind is told what was expected", () => {
    const { problems } = parseManifest("apiVersion: v1\nmetadata: {name: a}\n", "a.yaml");
    assert.deepEqual(
      problems.map(({ code, text: said }) => [code, said]),
      [["MZ0002", "kind is missing: expected a text"]],
    );
  });

  test("objects of a List stand for themselves", () => {
    const list =
      "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Secret\n    metadata: {name: a}\n";
    const { documents } = parseManifest(list, "a.yaml");
    assert.equal(documents[0]?.object.kind, "Secret");
    assert.deepEqual(documents[0]?.positionOf("kind"), { line: 5, column: 5 });
  });

  test("a path is split into keys and indices", () => {
    assert.deepEqual(splitPath('spec.http[0].headers["x.a"]'), ["spec", "http", 0, "headers", "x.a"]);
  });
});

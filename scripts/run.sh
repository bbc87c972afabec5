#!/bin/sh
# Runs one verb of the project, after whatever set-up it lacks: `sh scripts/run.sh start|test|check|scores|conformance|bench|generate|setup [arguments]`.
# Needs only a POSIX shell, Node 20 or later, npm and Python 3. The set-up brings the rest (scripts/setup.sh says what).
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"

verb=${1:-}
if [ -z "$verb" ]; then
  echo "usage: sh scripts/run.sh start|test|check|scores|conformance|bench|generate|setup [arguments]" >&2
  exit 2
fi
shift

sh scripts/setup.sh
PATH="$root/node_modules/.bin:$PATH:/usr/sbin:/sbin"
export PATH
node="$root/node_modules/.bin/node"

case "$verb" in
  setup) ;;
  start)
    "$node" scripts/build.ts
    # Compiled once and kept: every later start is a little quicker.
    NODE_COMPILE_CACHE="$root/.cache/node" exec "$node" dist/cli.mjs up --demo "$@"
    ;;
  test)
    "$node" scripts/build.ts
    exec "$node" scripts/test.ts "$@"
    ;;
  conformance)
    "$node" scripts/build.ts
    exec "$node" scripts/conformance.ts "$@"
    ;;
  check | scores | generate)
    exec "$node" "scripts/$verb.ts" "$@"
    ;;
  bench)
    "$node" scripts/build.ts
    exec "$node" bench/main.ts "$@"
    ;;
  *)
    echo "run.sh: no verb '$verb'; there are start, test, check, scores, conformance, bench, generate, setup" >&2
    exit 2
    ;;
esac

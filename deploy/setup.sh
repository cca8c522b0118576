#!/usr/bin/env bash
# Prepares this checkout and says what it installs: Python packages into .venv, and Debian packages that are missing
# (only as root on Debian, only from the package sources that are configured; never a container engine).
# For the tests also QEMU and a guest (deploy/guest.sh), and Prometheus, unpacked under build/.
# Usage: deploy/setup.sh demo|test. The Makefile calls it when a stamp in .venv is older than pyproject.toml.
# Everything is said on stderr: stdout belongs to the command that follows.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 1>&2

purpose=${1:?usage: deploy/setup.sh demo|test}
python=${PYTHON:-/usr/bin/python3}
missing=() # Debian packages that the purpose needs and this machine lacks
absent=()  # the same, in words

say() { printf 'set-up: %s\n' "$*"; }
stop() {
    say "stopped: $*"
    exit 1
}
is_root() { [ "$(id -u)" = 0 ]; }
is_debian() { command -v apt-get >/dev/null && [ -e /etc/debian_version ]; }

# need COMMAND PACKAGE WHY: notes the package when the command is not there
need() {
    command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || {
        missing+=("$2")
        absent+=("$1 ($3)")
    }
}

find_missing() {
    missing=() absent=()
    if [ "$python" = /usr/bin/python3 ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        missing+=(python3-venv)
        absent+=("python3-venv (creates .venv)")
    fi
    need ip iproute2 "network namespaces and traffic control"
    [ "$purpose" = test ] || return 0
    need tshark tshark "the independent decoder that reads our captures"
    need tcpdump tcpdump "captures the packets of the integration tests"
    need ping iputils-ping "reaches hosts in the integration tests"
    need chromium chromium "the browser that opens the live page"
}

debian_packages() {
    find_missing
    [ ${#missing[@]} -gt 0 ] || return 0
    if is_root && is_debian; then
        say "installing Debian packages: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        if ! { apt-get -q install -y --no-install-recommends "${missing[@]}" ||
            { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; }; } >"$log" 2>&1; then
            tail -n 5 "$log"
            say "apt-get could not install ${missing[*]} (is the network there? are package sources configured?)"
        fi
        find_missing
    fi
    for what in ${absent[@]+"${absent[@]}"}; do say "missing: $what"; done
    [ ${#missing[@]} = 0 ] || say "on Debian, this provides it, as root: apt-get install ${missing[*]}"
}

check_platform() {
    [ "$(uname -s)" = Linux ] || stop "lispfmc runs on Linux (network namespaces, TUN), this is $(uname -s)"
    if [ "$purpose" = demo ] && ! is_root; then
        stop "the demo builds a network of namespaces on this machine, which needs root: sudo make demo" \
            "(without root: make test runs what can run, or docker compose up where you may use Docker)"
    fi
}

check_python() {
    command -v "$python" >/dev/null || stop "no Python at $python: name one with make $purpose PYTHON=python3.12"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        stop "$python is $("$python" -V 2>&1), lispfmc needs 3.11 or newer: name one with make $purpose PYTHON=python3.12"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "$python cannot create a virtual environment: install the package python3-venv, or name another with PYTHON="
}

python_packages() {
    local what=-e.
    [ "$purpose" = demo ] || what='-e.[dev]'
    say "creating .venv with $("$python" -V) and installing into it with pip: $("$python" - "$purpose" <<'PY'
import re, sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
wanted = project["dependencies"] + (project["optional-dependencies"]["dev"] if sys.argv[1] == "test" else [])
print(" ".join(re.match(r"[A-Za-z0-9_.-]+", line)[0] for line in wanted))
PY
    )"
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    if ! .venv/bin/python -m pip install --quiet --disable-pip-version-check "$what" >"$log" 2>&1; then
        grep -E 'ERROR|error:|refused|timed out' "$log" | sort -u | head -n 6
        stop "pip could not install them. It asks the index that your pip is configured with" \
            "(pip config list). From a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=/that/folder make $purpose"
    fi
}

virtual_machines() {
    [ "$purpose" = test ] || return 0
    deploy/guest.sh || say "without them, the tests that move real virtual machines are left out; again: make guest"
}

# Unpacked, not installed: the package would start a service that listens on this machine.
monitoring() {
    [ "$purpose" = test ] || return 0
    local build=$PWD/build/prometheus
    if { command -v prometheus && command -v promtool; } >/dev/null || [ -x "$build/usr/bin/promtool" ]; then return 0; fi
    if is_debian; then
        say "unpacking the Debian package prometheus under build/: the rules and the dashboard are held against it"
        local downloads
        downloads=$(mktemp -d)
        if (cd "$downloads" && { apt-get -q download prometheus || { is_root && apt-get -q update && apt-get -q download prometheus; }; }) >"$log" 2>&1 &&
            dpkg-deb -x "$downloads"/prometheus_*.deb "$build.draft"; then
            rm -rf "$build"
            mv "$build.draft" "$build"
        else
            tail -n 5 "$log"
        fi
        rm -rf "$downloads" "$build.draft"
    fi
    [ -x "$build/usr/bin/promtool" ] || {
        missing+=(prometheus)
        say "missing: prometheus and promtool (scrape a lab in the tests); install them so that they are in the PATH"
    }
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
check_platform
debian_packages
check_python
python_packages
virtual_machines
monitoring
# With something missing the stamp is not set: the next run looks again and says so again.
if [ ${#missing[@]} = 0 ]; then
    touch ".venv/.ready-$purpose"
    [ "$purpose" = demo ] || ! is_root || touch .venv/.ready-demo # what tests need, the demo needs, and root
fi
say "ready"

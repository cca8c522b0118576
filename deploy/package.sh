#!/usr/bin/env bash
# Builds what is handed out, into dist/: wheel, sdist, and on Debian a .deb that brings all of its Python packages in a
# virtual environment of its own (/usr/lib/lispfmc), with systemd units, examples and manual pages.
# Usage: deploy/package.sh [python|deb]...   (both by default). PYTHON=python3.12 names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
here=$PWD
python=${PYTHON:-/usr/bin/python3}
built=${DIST:-$PWD/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf 'package: %s\n' "$*" >&2; }

python_packages() {
    say "wheel and sdist"
    mkdir -p "$built"
    rm -f "$built"/lispfmc-*.whl "$built"/lispfmc-*.tar.gz
    .venv/bin/python -m build --outdir "$built" . >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; return 1; }
}

# The environment is made where it is staged and moved by its paths: pip writes them into the scripts' first lines only.
environment() {
    local staged=$1 final=$2
    "$python" -m venv --without-pip "$staged"
    # without this folder in sight: pip would take what lies here for installed
    (cd "$work" && env -u PYTHONPATH "$here/.venv/bin/python" -m pip --python "$staged/bin/python" install -qq --disable-pip-version-check \
        --no-compile "$(echo "$built"/lispfmc-*.whl)")
    grep -lIZ "$staged" "$staged"/bin/* "$staged/pyvenv.cfg" | xargs -0 -r sed -i "s|$staged|$final|g"
    rm -f "$staged"/bin/[Aa]ctivate*
}

# Manual pages and completions, said by the very commands that are packaged.
manual() {
    local root=$1 shell
    local command=("$root/usr/lib/lispfmc/bin/python" -P -B)
    mkdir -p "$root/usr/share/man/man1" "$root/usr/share/man/man8" "$root/usr/share/bash-completion/completions" \
        "$root/usr/share/zsh/vendor-completions" "$root/usr/share/fish/vendor_completions.d"
    env -u PYTHONPATH "${command[@]}" -m lispfmc.cli.manual "$work/manual"
    gzip -9n "$work"/manual/*
    mv "$work"/manual/*.1.gz "$root/usr/share/man/man1/"
    mv "$work"/manual/*.8.gz "$root/usr/share/man/man8/"
    completion() { env -u PYTHONPATH "_LISPFMC_COMPLETE=source_$1" "${command[@]}" -m lispfmc.cli; }
    completion bash >"$root/usr/share/bash-completion/completions/lispfmc"
    completion zsh >"$root/usr/share/zsh/vendor-completions/_lispfmc"
    completion fish >"$root/usr/share/fish/vendor_completions.d/lispfmc.fish"
}

debian_package() {
    command -v dpkg-deb >/dev/null || { say "dpkg-deb is missing: a .deb is built on Debian"; return 1; }
    local root=$work/root version minor architecture
    version=$(basename "$built"/lispfmc-*.whl | cut -d- -f2)
    minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
    architecture=$(dpkg --print-architecture)
    say "lispfmc_${version}_${architecture}.deb"
    mkdir -p "$root/DEBIAN" "$root/usr/lib" "$root/usr/bin" "$root/etc/lispfmc" "$root/usr/lib/systemd/system" "$root/usr/lib/sysusers.d"
    environment "$root/usr/lib/lispfmc" /usr/lib/lispfmc
    for command in lispfmc lispfmc-xtr lispfmc-mapserver lispfmc-fmcc lispfmc-agent; do
        ln -s "../lib/lispfmc/bin/$command" "$root/usr/bin/$command"
    done
    install -m 644 deploy/systemd/*.service "$root/usr/lib/systemd/system/"
    install -m 644 deploy/systemd/lispfmc.sysusers "$root/usr/lib/sysusers.d/lispfmc.conf"
    install -D -m 644 -t "$root/usr/share/doc/lispfmc/examples" deploy/examples/*.toml
    install -m 644 README.md CHANGELOG.md "$root/usr/share/doc/lispfmc/"
    install -m 644 LICENSE "$root/usr/share/doc/lispfmc/copyright"
    manual "$root"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: lispfmc
Version: $version
Architecture: $architecture
Maintainer: the lispfmc authors <lispfmc@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), adduser
Recommends: libbpf1, iproute2
Section: net
Priority: optional
Description: Follow-Me Cloud on LISP
 Tunnel router, Map-Server with Map-Resolver, controller and hypervisor agent: users move between networks, their
 services follow them between data centres, and both keep their addresses and connections.
 .
 Nothing starts before its configuration is in /etc/lispfmc; examples are in /usr/share/doc/lispfmc/examples.
CONTROL
    install -m 755 deploy/systemd/postinst "$root/DEBIAN/postinst"
    install -m 755 deploy/systemd/prerm "$root/DEBIAN/prerm"
    dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$built/lispfmc_${version}_${architecture}.deb" >/dev/null
}

[ $# -gt 0 ] || set -- python deb
for what in "$@"; do
    case $what in
        python) python_packages ;;
        deb) debian_package ;;
        *) say "$what is none of python, deb"; exit 64 ;;
    esac
done

#!/usr/bin/env bash
# Puts QEMU 10 or newer and a small Linux guest under build/: deploy/guest.sh. Done once; `make clean` removes both.
# Everything comes from Debian packages through a private apt configuration (build/apt) that asks the mirror this
# machine uses anyway: the system's package sources stay as they are, nothing is installed. Needs no root.
# Older QEMU is not used: under TCG its live migration can corrupt the guest.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 1>&2

build=$PWD/build
sources=deploy/guest
oldest=10

say() { printf 'guest: %s\n' "$*"; }
stop() {
    say "stopped: $*"
    exit 1
}

version_of() { "$1" --version 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p'; }

# private VERB...: apt with sources, lists and cache of our own, and what is installed here as the system knows it
private() {
    local verb=$1
    shift
    "$verb" -q -o Dir::Etc::SourceList="$build/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$build/apt/lists" -o Dir::Cache="$build/apt/cache" -o Debug::NoLocking=1 "$@"
}

prepare_apt() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || stop "it takes QEMU and the guest's parts from Debian packages, and this is no Debian"
    [ "$(dpkg --print-architecture)" = amd64 ] || stop "the guest is an x86-64 machine, this machine is $(dpkg --print-architecture)"
    # shellcheck disable=SC1091
    release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$release" ] || stop "/etc/os-release names no release"
    suite=$release
    [ "$release" != bookworm ] || suite=bookworm-backports # bookworm's own QEMU is 7.2
    local mirror
    mirror=$(apt-get indextargets --format "\$(ORIGIN) \$(CODENAME) \$(COMPONENT) \$(REPO_URI)" 'Created-By: Packages' |
        awk -v release="$release" '$1 == "Debian" && $2 == release && $3 == "main" { print $4; exit }')
    [ -n "$mirror" ] || stop "apt has no package list of Debian $release here; run: apt-get update"
    mkdir -p "$build/apt/lists/partial" "$build/apt/cache/archives/partial"
    local key=/usr/share/keyrings/debian-archive-keyring.gpg each
    for each in $(printf '%s\n' "$release" "$suite" | sort -u); do echo "deb [signed-by=$key] $mirror $each main"; done \
        >"$build/apt/sources.list"
    private apt-get update >"$log" 2>&1 || failed "could not read the package lists of $mirror"
}

failed() {
    tail -n 5 "$log"
    stop "$* (is the network there?)"
}

# unpack PACKAGE=VERSION... into FOLDER
unpack() {
    local folder=$1 downloads
    shift
    downloads=$(mktemp -d "$build/apt/download.XXXXXX")
    (cd "$downloads" && private apt-get download "$@") >"$log" 2>&1 || failed "could not download $*"
    mkdir -p "$folder"
    for package in "$downloads"/*.deb; do dpkg-deb -x "$package" "$folder"; done
    rm -rf "$downloads"
}

fetch_qemu() {
    local root=$build/qemu/root wanted
    wanted=$(private apt-get -s -t "$suite" --no-install-recommends install qemu-system-x86 2>"$log" |
        awk '$1 == "Inst" { gsub(/[([]/, "", $3); version = $3; if ($3 ~ /\]$/) { version = $4; gsub(/[(]/, "", version) } print $2 "=" version }')
    [ -n "$wanted" ] || failed "$suite offers no qemu-system-x86 for this machine"
    say "unpacking QEMU and its libraries from $suite: $(echo "$wanted" | sed 's/=.*//' | tr '\n' ' ')"
    rm -rf "$build/qemu"
    # shellcheck disable=SC2086
    unpack "$root" $wanted
    cat >"$build/qemu/draft" <<'SCRIPT'
#!/bin/sh
# QEMU as deploy/guest.sh unpacked it: with its own libraries and firmware.
root=$(dirname "$(realpath "$0")")/root
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu"
exec "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/seabios" -L "$root/usr/share/qemu" "$@"
SCRIPT
    chmod +x "$build/qemu/draft"
    local version
    version=$(version_of "$build/qemu/draft")
    [ "${version:-0}" -ge $oldest ] || stop "QEMU ${version:-that does not start} came from $suite, $oldest is needed"
    mv "$build/qemu/draft" "$build/qemu/qemu-system-x86_64"
}

make_guest() {
    local parts=$build/guest/parts root=$build/guest/root kernel module library
    kernel=$(private apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')
    say "building the guest from $kernel, busybox-static, perl-base and the C library"
    rm -rf "$build/guest"
    unpack "$parts" "$kernel" busybox-static perl-base libc6 libcrypt1
    mkdir -p "$root"/{bin,dev,lib64,modules,proc,sys,tmp,usr/lib}
    cp "$parts"/bin/busybox "$parts"/usr/bin/perl "$root/bin/"
    cp -r "$parts/usr/lib/x86_64-linux-gnu" "$root/usr/lib/"
    rm -rf "$root"/usr/lib/x86_64-linux-gnu/{gconv,perl-base/unicore} # tables of characters
    find "$root/usr/lib" -name '*.so*' -not -path '*/perl-base/*' -delete
    for library in libc.so.6 libm.so.6 libcrypt.so.1; do
        cp -L "$(find "$parts" -name "$library" | head -n 1)" "$root/usr/lib/x86_64-linux-gnu/"
    done
    cp -L "$(find "$parts" -name 'ld-linux-x86-64.so.2' -path '*lib/x86_64*' | head -n 1)" "$root/lib64/ld-linux-x86-64.so.2"
    for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci failover net_failover virtio_net; do
        library=$(find "$parts" -name "$module.ko*" | head -n 1)
        [ -n "$library" ] || stop "$kernel has no module $module"
        case $library in
        *.xz) xz -dc "$library" >"$root/modules/$module.ko" ;;
        *) cp "$library" "$root/modules/" ;;
        esac
    done
    install -m 755 $sources/init "$root/init"
    install -m 755 $sources/echo.pl "$root/bin/echo.pl"
    cp "$(find "$parts" -name 'vmlinuz-*' | head -n 1)" "$build/guest/vmlinuz"
    # busybox of the guest has cpio, so this machine need not
    (cd "$root" && find . | "$parts/bin/busybox" cpio -o -H newc) 2>"$log" | gzip -9 >"$build/guest/initrd.draft"
    mv "$build/guest/initrd.draft" "$build/guest/initrd.gz" # last: it says that the guest is whole
    rm -rf "$parts" "$root"
    say "build/guest/initrd.gz has $(du -k "$build/guest/initrd.gz" | cut -f1) KB"
}

has_guest() { [ -e "$build/guest/initrd.gz" ] && [ -z "$(find deploy/guest.sh $sources -newer "$build/guest/initrd.gz")" ]; }
has_qemu() {
    [ -x "$build/qemu/qemu-system-x86_64" ] || [ "$(version_of qemu-system-x86_64 || echo 0)" -ge $oldest ] 2>/dev/null
}

mkdir -p "$build"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if has_qemu && has_guest; then exit 0; fi
prepare_apt
has_qemu || fetch_qemu
has_guest || make_guest
say "ready"

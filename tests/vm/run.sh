#!/bin/sh
# Run tests in a virtual machine that has cgroup version 2 only (`make test-vm`).
#
# usage: sh tests/vm/run.sh [TEST…]      (default: the list in tests/vm/selection)
#
# QEMU boots Debian's kernel by software emulation (VM_ACCEL=kvm where that works). The guest's root is this machine's /,
# read-only over 9p under a tmpfs overlay, so the tests run with this checkout and its Python; their
# /tmp is an ext4 file system on a disk of its own. Nothing of the guest stays. The flavour of the
# kernel is the common one: Debian's "cloud" flavour has no 9p.
#
# Environment: VM_MEMORY (megabytes, 1536), VM_PYTHON (an interpreter with pytest and orchestra; .venv/bin/python),
# VM_TIMEOUT (seconds, 3600), VM_CACHE (directory that keeps kernel and initramfs for the next time),
# VM_CONSOLE (1: show the kernel's messages), VM_RESULTS (the file that is written, docs/vm-results.md;
# with TESTs given nothing is written unless it is set), VM_ACCEL and VM_CPU (QEMU's -accel and -cpu).
# Exit code: pytest's; 124 out of time, 125 the machine gave no result.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
cd "$repo"
python=${VM_PYTHON:-$repo/.venv/bin/python}
results=${VM_RESULTS-}
[ $# -gt 0 ] || results=${VM_RESULTS-$repo/docs/vm-results.md}
[ "$(id -u)" = 0 ] || { echo "run.sh: needs root (the guest reads all of /)" >&2; exit 1; }
[ -x "$python" ] || { echo "run.sh: no $python: run 'make setup' or set VM_PYTHON" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || { echo "run.sh: only for x86_64 machines" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/orchestra-vm.XXXXXX")
machine=
clean() {
    [ -z "$machine" ] || { kill "$machine" 2>/dev/null || :; wait "$machine" 2>/dev/null || :; }
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install_packages() {
    missing=
    for package in qemu-system-x86 busybox-static cpio kmod e2fsprogs nftables iproute2; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# $1: directory for tools/: the programs of an NFS server and their libraries, for the guest only (installed here,
# they would start a server on this machine)
prepare_tools() {
    mkdir -p "$1/tools.new" "$1/package"
    (cd "$1/package" && apt-get -qq -o APT::Sandbox::User=root download nfs-kernel-server libwrap0 libtirpc3 libnsl2 \
        libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1 libcom-err2)
    for archive in "$1"/package/*.deb; do dpkg-deb -x "$archive" "$1/tools.new"; done
    rm -rf "$1/package" "$1/tools.new/etc" "$1/tools.new/usr/share"
    mv "$1/tools.new" "$1/tools"
}

# $1: directory for vmlinuz, initrd and modules/
prepare_kernel() {
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || { apt-get update -qq; package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1); }
    mkdir -p "$1/package" "$1/tree/bin" "$1/tree/modules"
    (cd "$1/package" && apt-get -qq -o APT::Sandbox::User=root download "$package")
    dpkg-deb -x "$1"/package/*.deb "$1/kernel"
    [ -d "$1/kernel/lib/modules" ] || ln -s usr/lib "$1/kernel/lib"
    version=$(ls "$1/kernel/lib/modules")
    depmod -b "$1/kernel" "$version"
    for module in virtio_pci virtio_console virtio_blk 9pnet_virtio 9p overlay ext4; do
        modprobe -d "$1/kernel" -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
        cp "$file" "$1/tree/modules/"
        basename "$file" >>"$1/tree/modules/order"
    done
    mkdir -p "$1/tree/proc" "$1/tree/sys" "$1/tree/dev" "$1/tree/lower" "$1/tree/kmod" "$1/tree/up" "$1/tree/new"
    cp "$(command -v busybox)" "$1/tree/bin/busybox"
    for name in sh mount insmod mkdir switch_root ip hostname; do ln -s busybox "$1/tree/bin/$name"; done
    cp "$here/init" "$1/tree/init"
    chmod 755 "$1/tree/init"
    (cd "$1/tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$1/initrd"
    cp "$1"/kernel/boot/vmlinuz-* "$1/vmlinuz"
    rm -rf "$1/package" "$1/tree"
    touch "$1/ready"
}

install_packages
cache=${VM_CACHE:-$work/boot}
[ -e "$cache/ready" ] || prepare_kernel "$cache"
[ -e "$cache/tools" ] || prepare_tools "$cache"

out=$work/out
mkdir "$out"
truncate -s 4G "$work/disk"
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$work/disk"
{
    echo "repo='$repo'"
    echo "python='$python'"
} >"$out/settings"
if [ $# -gt 0 ]; then
    for word in "$@"; do printf '%s\n' "$word"; done
else
    sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$here/selection"
fi >"$out/tests"
cp "$here/guest.sh" "$out/guest.sh"
cp -a "$cache/tools" "$out/tools"

set -- -M q35 -accel "${VM_ACCEL:-tcg,thread=multi,tb-size=256}" -cpu "${VM_CPU:-Nehalem}" -smp 2 -m "${VM_MEMORY:-1536}"
set -- "$@" -nodefaults -no-user-config -display none -no-reboot -kernel "$cache/vmlinuz" -initrd "$cache/initrd"
set -- "$@" -append "console=ttyS0 loglevel=$((${VM_CONSOLE:-0} * 5 + 1)) panic=-1 cgroup_no_v1=all mitigations=off nokaslr \
audit=0 apparmor=0 random.trust_cpu=on tsc=reliable nowatchdog"
fs=security_model=none
set -- "$@" -fsdev "local,id=r,path=/,$fs,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=r,mount_tag=root
set -- "$@" -fsdev "local,id=k,path=$cache/kernel/lib/modules,$fs,readonly=on" -device virtio-9p-pci,fsdev=k,mount_tag=kmod
set -- "$@" -fsdev "local,id=o,path=$out,$fs" -device virtio-9p-pci,fsdev=o,mount_tag=out
set -- "$@" -drive "file=$work/disk,format=raw,if=none,id=d,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=d
set -- "$@" -device virtio-serial-pci -chardev stdio,id=c,signal=off -device virtconsole,chardev=c
set -- "$@" -object rng-random,id=g,filename=/dev/urandom -device virtio-rng-pci,rng=g -serial "file:$work/console"

begun=$(date +%s)
timeout "${VM_TIMEOUT:-3600}" qemu-system-x86_64 "$@" </dev/null 2>"$work/stderr" &
machine=$!
code=0
wait "$machine" || code=$?
machine=
seconds=$(($(date +%s) - begun))
cat "$work/stderr" >&2
[ "${VM_CONSOLE:-0}" = 0 ] || cat "$work/console" >&2
if [ -e "$out/code" ]; then
    code=$(cat "$out/code")
elif [ "$code" = 124 ]; then
    echo "run.sh: out of time after $seconds s" >&2
else
    echo "run.sh: no result from the machine (exit $code); VM_CONSOLE=1 shows its messages" >&2
    code=125
fi
"$python" "$here/report.py" "$out" --code "$code" --seconds "$seconds" --accel "${VM_ACCEL:-software emulation}" ${results:+--write "$results"}
exit "$code"

#!/usr/bin/env bash
# Puts Debian's kernel and its static busybox where the test of a Linux guest looks for them (LinuxGuest.ts). The
# packages are only unpacked: nothing is installed, and nothing on this machine boots from them.
set -euo pipefail
target=${POSTCOPY_LINUX_GUEST:-${XDG_CACHE_HOME:-$HOME/.cache}/postcopy/linux-guest}
[ -s "$target/vmlinuz" ] && [ -s "$target/busybox" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# The package without a version depends on the one that has the kernel.
kernel() { apt-cache depends linux-image-cloud-amd64 2> /dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1; }
[ -n "$(kernel)" ] || apt-get update
name=$(kernel)
apt-get download "${name:?there is no Debian kernel in the package lists}" busybox-static ||
  { apt-get update && apt-get download "$(kernel)" busybox-static; }
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

mkdir -p "$target"
install -m 755 unpacked/bin/busybox "$target/busybox"
# Last, and at once: what is there is whole.
install -m 644 unpacked/boot/vmlinuz-* "$target/.vmlinuz"
mv "$target/.vmlinuz" "$target/vmlinuz"

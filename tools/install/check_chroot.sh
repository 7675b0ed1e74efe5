#!/bin/bash
# Installs Palinode in a bare Debian and runs the demo there, once for each way of tools/install/debian.sh; prints how long each took.
#
#   tools/install/check_chroot.sh wheel|archive|source …     needs root and mmdebstrap, which it installs
#
# The wheel is the one in target/wheel/dist (scripts/check_wheel.py), the archive the one in target/archives (scripts/make_archive.py). For
# `source` the Rust toolchain and the downloaded packages of this machine are mounted, and a fresh copy of the committed files is built.
# SUITE names another release than bookworm. The bare system is kept in target/chroot: remove it to have a newer one.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
suite=${SUITE:-bookworm}
command -v mmdebstrap >/dev/null || { apt-get update -q && apt-get install -yq --no-install-recommends mmdebstrap; } >/dev/null
[ $# -gt 0 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }

work=$(mktemp -d)
root=$work/root
mounted=() toolchain=()
finish() {
  for place in "${mounted[@]}"; do umount "$place" 2>/dev/null || umount -l "$place" || true; done
  # What is still mounted there is this machine's own.
  if grep -q " $work/" /proc/mounts; then echo "left as it is, since something is still mounted there: $work" >&2; else rm -rf "$work"; fi
}
trap finish EXIT
bind() { # FROM TO: a folder of this machine, at a place in the chroot
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  mounted=("$root$2" "${mounted[@]}")
}
mapfile -t registries < <(env | grep -iE '^(https?_proxy|no_proxy|pip_|ssl_cert_|cargo_(http|registries|net|build|source)_)' || true)
inside() { # a command in the chroot, with this machine's way to the registries and nothing else of its environment
  env -i HOME=/opt RUSTUP_HOME=/opt/rustup CARGO_HOME=/opt/cargo PATH=/opt/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "${registries[@]}" "${toolchain[@]}" \
    PIP_CERT=/etc/trusted.pem SSL_CERT_FILE=/etc/trusted.pem CARGO_HTTP_CAINFO=/etc/trusted.pem chroot "$root" "$@"
}

bare=$here/target/chroot/$suite.tar
mkdir -p "${bare%/*}"
[ -f "$bare" ] || { mmdebstrap --variant=minbase --format=tar --quiet "$suite" "$bare.new" && mv "$bare.new" "$bare"; }
echo "a bare $suite: $(du -h "$bare" | cut -f1)"
for way in "$@"; do
  mkdir -p "$root"
  tar -xf "$bare" -C "$root"
  cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
  bind /proc /proc
  bind /dev /dev
  # What this machine trusts, since its registries may be mirrors with certificates of their own.
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/trusted.pem"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
  mkdir -p "$root/src"
  git -C "$here" archive HEAD | tar -x -C "$root/src"
  given=/src
  case $way in
    wheel) cp "$here"/target/wheel/dist/*.whl "$root/opt/" && given=/opt/$(basename "$here"/target/wheel/dist/*.whl) ;;
    archive) cp "$here"/target/archives/* "$root/opt/" && given=/opt/$(cd "$here/target/archives" && ls -- *.tar.gz) ;;
    source)
      # Only to be read: a rustup that misses a toolchain under the name that it looks for would install it, and on failure take away what is there.
      bind "${RUSTUP_HOME:-$HOME/.rustup}" /opt/rustup
      mount -o remount,bind,ro "$root/opt/rustup"
      # By the name of its folder: other names are links, which may lead nowhere in the chroot.
      toolchain=("RUSTUP_TOOLCHAIN=$(cd "$here" && basename "$(realpath "$(rustc --print sysroot)")")")
      bind "${CARGO_HOME:-$HOME/.cargo}" /opt/cargo
      ;;
  esac
  begin=$SECONDS
  inside /bin/bash /src/tools/install/debian.sh "$way" "$given" >"$work/log" 2>&1 || { tail -n 40 "$work/log"; echo "WRONG: $way"; exit 1; }
  installed=$((SECONDS - begin))
  begin=$SECONDS
  inside /bin/sh -c 'cd /src && palinode run pipelines/demo.yaml' >"$work/said" 2>>"$work/log" || { tail -n 40 "$work/log"; exit 1; }
  grep -q '^rome  *memit ' "$work/said" || { cat "$work/said"; echo "WRONG: $way: no table"; exit 1; }
  echo "$way: $(inside palinode --version) installed in $installed s, the demo ran in $((SECONDS - begin)) s: $(tail -n 1 "$work/said")"
  for place in "${mounted[@]}"; do umount "$place"; done
  mounted=()
  rm -rf "$root"
done
echo "all well"

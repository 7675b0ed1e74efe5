#!/bin/bash
# Installs Palinode on a bare Debian or Ubuntu, as root: all that is needed, from nothing but this script and what it is given.
#
#   debian.sh source FOLDER     builds the repository in FOLDER and installs the program in /usr/local/bin
#   debian.sh wheel [FILE]      makes the Python environment /opt/palinode with palinode, from FILE or from the index
#   debian.sh archive FILE      unpacks a release archive into /usr/local; SHA256SUMS has to lie beside it
#
# The Dockerfile beside this script has the first as its one step; check_chroot.sh runs all three where there is no container runtime.
set -euo pipefail
way=${1:-} given=${2:-}
export DEBIAN_FRONTEND=noninteractive

packages() {
  apt-get update -q
  apt-get install -yq --no-install-recommends "$@"
}

case $way in
  source)
    cd "${given:?debian.sh source FOLDER}"
    # A C compiler and a linker for zstd and mimalloc; certificates and curl for Rust, where there is none yet.
    packages build-essential ca-certificates curl
    export PATH=$PATH:$HOME/.cargo/bin
    if ! command -v cargo >/dev/null; then
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
      # The one that rust-toolchain.toml names.
      rustup toolchain install
    fi
    cargo install --locked --path crates/cli --root /usr/local
    palinode --version
    ;;
  wheel)
    packages python3 python3-venv
    python3 -m venv /opt/palinode
    /opt/palinode/bin/pip install --quiet "palinode[tables]${given:+ @ file://$(realpath "$given")}"
    ln -sf /opt/palinode/bin/palinode /usr/local/bin/palinode
    palinode --version
    ;;
  archive)
    : "${given:?debian.sh archive FILE}"
    (cd "$(dirname "$given")" && sha256sum --check --ignore-missing SHA256SUMS)
    tar -xzf "$given" -C /usr/local --strip-components=1 --no-same-owner
    palinode --version
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

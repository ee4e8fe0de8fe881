# Sourced by the scripts beside it: where things are, and how a script speaks.
# shellcheck shell=bash
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cache=${OLLAMA_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ollama-fleet-operator}
bin=$cache/bin
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
mkdir -p "$bin"

say() { printf '==> %s\n' "$*"; }

die() {
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# A hash of the files named on standard input, and of their names.
hash_files() { LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum | cut -c 1-32; }

#!/usr/bin/env bash
# The static binary into dist/, checked to be static.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tools/scripts/build.sh release
mkdir -p dist
# Never into a file that may be running.
rm -f dist/ollama-fleet-operator
cp -L target/release/ollama-fleet-operator dist/ollama-fleet-operator
# A dynamic executable names its interpreter.
if LC_ALL=C grep -qaE '/ld-(linux|musl)[^/]*\.so' <(head -c 4096 dist/ollama-fleet-operator); then
	die "dist/ollama-fleet-operator is not static"
fi
say "dist/ollama-fleet-operator: $(dist/ollama-fleet-operator --version), $(stat -c %s dist/ollama-fleet-operator | awk '{ printf "%.1f MiB", $1 / 1048576 }'), static"

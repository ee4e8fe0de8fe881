#!/usr/bin/env bash
# The static binaries into dist/, checked to be static.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

tools/scripts/build.sh release
mkdir -p dist
for program in ollama-fleet-operator kubectl-ollama; do
	# Never into a file that may be running.
	rm -f "dist/$program"
	cp -L "target/release/$program" "dist/$program"
	strip "dist/$program"
	# A dynamic executable names its interpreter.
	if LC_ALL=C grep -qaE '/ld-(linux|musl)[^/]*\.so' <(head -c 4096 "dist/$program"); then
		die "dist/$program is not static"
	fi
	say "dist/$program: $("dist/$program" --version), $(stat -c %s "dist/$program" | awk '{ printf "%.1f MiB", $1 / 1048576 }'), static"
done

#!/usr/bin/env bash
# build.sh dev|release: the operator, kubectl-ollama and fleetsim. The release is static, and is what ships, what the
# image holds and what the benchmark measures: there is one release build, not two.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
dev)
	say "building the operator and fleetsim: about 3 minutes on two cores the first time, seconds afterwards"
	cargo build --quiet --locked --package ollama-fleet-operator --package fleetsim
	;;
release)
	say "building the release: about 5 minutes on two cores the first time"
	host=$(rustc -vV | sed -n 's/^host: //p')
	# With --target the flag reaches neither build scripts nor macros, which cannot be static.
	export RUSTFLAGS="-C target-feature=+crt-static"
	cargo build --quiet --locked --release --target "$host" --package ollama-fleet-operator --package fleetsim \
		--bin kubectl-ollama --bin fleetsim
	# With the names of its functions, for profilers; they go where it is shipped.
	cargo rustc --quiet --locked --release --target "$host" --package ollama-fleet-operator \
		--bin ollama-fleet-operator -- -C strip=debuginfo
	mkdir -p target/release
	for program in ollama-fleet-operator kubectl-ollama fleetsim; do
		built=$CARGO_TARGET_DIR/$host/release/$program
		# With CARGO_TARGET_DIR=target this would link a file to itself.
		[[ $built -ef target/release/$program ]] || ln -sfn "$built" "target/release/$program"
	done
	say "built target/release/{ollama-fleet-operator,kubectl-ollama,fleetsim}"
	;;
*)
	die "usage: build.sh dev|release"
	;;
esac

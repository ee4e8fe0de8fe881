#!/usr/bin/env bash
# Fuzzes every target of fuzz/ for FUZZ_SECONDS each; FUZZ_TARGETS names some of them. With a nightly toolchain and
# cargo-fuzz it is cargo-fuzz, with the address sanitizer; without, the same targets are built by the toolchain that is
# there, guided by coverage all the same, but without the sanitizer. What is found is kept in the cache, and an input
# that breaks a promise is written to fuzz/artifacts/.
set -euo pipefail
cd "$(dirname "$0")/../.."

SECONDS_EACH=${FUZZ_SECONDS:-60}
TARGETS=${FUZZ_TARGETS:-$(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' fuzz/Cargo.toml)}
CORPUS=${OLLAMA_FLEET_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ollama-fleet-operator}/fuzz
# Answers of agents take the place of a seed each.
LENGTH_MAX=65536

if ! command -v "${CXX:-c++}" >/dev/null; then
  echo 'make fuzz: nothing was fuzzed: libFuzzer needs a C++ compiler, and there is no c++ (or $CXX)'
  exit 0
fi

NIGHTLY=
if cargo +nightly --version >/dev/null 2>&1 && cargo +nightly fuzz --version >/dev/null 2>&1; then
  NIGHTLY=1
else
  echo 'make fuzz: no nightly toolchain with cargo-fuzz (rustup toolchain install nightly; cargo install cargo-fuzz):'
  echo '           fuzzing with the present toolchain, without the address sanitizer'
  HOST=$(rustc -vV | sed -n 's/^host: //p')
  FLAGS='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1'
  # A --target, even this machine's own, keeps the flags from build scripts. rust-lld does not keep the sections that
  # the counters are found by.
  (cd fuzz && RUSTFLAGS="$FLAGS ${FUZZ_RUSTFLAGS-}" cargo build --locked --release --quiet --target "$HOST" \
    --target-dir "$CORPUS/target")
fi

seeds() { # TARGET: what is known to be right, beside the seeds of its own
  case $1 in
    agent_json) find plugins/*/tests -name '*.json' ;;
    agent_text) find plugins/*/tests tests/fixtures/exposition -type f -size -64k ! -name '*.json' ;;
    *) ;;
  esac
  find fuzz/seeds -path "fuzz/seeds/$1/*" -type f
}

mkdir -p fuzz/artifacts
for target in $TARGETS; do
  corpus=$CORPUS/corpus/$target
  mkdir -p "$corpus"
  seeds "$target" | while read -r file; do
    cp "$file" "$corpus/seed-$(sha256sum <"$file" | cut -c1-16)"
  done
  echo "make fuzz: $target for $SECONDS_EACH s"
  options=(-max_total_time="$SECONDS_EACH" -max_len=$LENGTH_MAX -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
    -artifact_prefix="fuzz/artifacts/$target-")
  if [[ -n $NIGHTLY ]]; then
    cargo +nightly fuzz run --fuzz-dir fuzz "$target" "$corpus" -- "${options[@]}"
  else
    "$CORPUS/target/$HOST/release/$target" "$corpus" "${options[@]}"
  fi
done

# Everything that can be done with this repository. `make` alone lists it.
#
# Needs Rust (rust-toolchain.toml), Go 1.26, a C compiler and Python 3.9 or newer. What else is needed is installed
# from the package registries into the cache folder, which outlives the clone.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ollama-fleet-operator
export CARGO_TARGET_DIR ?= $(CACHE)/target
export OLLAMA_FLEET_CACHE := $(CACHE)
# Cargo and Go talk to terminals; the scripts are read in logs.
export CARGO_TERM_PROGRESS_WHEN ?= never

# The image that `make manifests` and `make image` name.
IMAGE ?= registry.example.com/ollama-fleet-operator:0.1.0
export IMAGE

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: tools ## Control plane, simulated fleet and operator on this machine; DEMO_EXIT=1 checks the table and ends
	@tools/scripts/build.sh dev
	@exec python3 tools/demo/demo.py

.PHONY: test
test: ## Everything that CI checks
	@exec tools/scripts/test.sh

.PHONY: build
build: tools ## Release binaries into target/release/, tools into target/tools/ (links into the cache)
	@tools/scripts/build.sh release

.PHONY: tools
tools: ## The control plane, Helm and cargo-deny, into the cache
	@tools/scripts/tools.sh

.PHONY: generate
generate: ## CRDs in crds/ and in the chart, and docs/api.md, from the code
	cargo run --quiet --locked --bin crdgen

.PHONY: manifests
manifests: tools ## dist/install.yaml for `kubectl apply --server-side`, with the image IMAGE=…
	@tools/scripts/manifests.sh

.PHONY: release
release: ## The static binaries, into dist/
	@tools/scripts/release.sh

.PHONY: sbom
sbom: ## dist/sbom.cdx.json: what the binaries are made of (CycloneDX), checked against the lock file
	@tools/scripts/sbom.sh

.PHONY: image
image: ## The image IMAGE=…, from the static binary; needs docker, podman or buildah
	@tools/scripts/image.sh

.PHONY: bench
bench: build ## Measure fleets of BENCH_SERVERS (1000,10000) servers; about half an hour
	@exec python3 tools/bench/bench.py

.PHONY: instructions
instructions: build ## Count the instructions of a poll, by function; needs valgrind
	@exec python3 tools/bench/instructions.py

.PHONY: fuzz
fuzz: ## Fuzz the parsers of foreign input, FUZZ_SECONDS (60) each
	@exec tools/scripts/fuzz.sh

.PHONY: faults
faults: tools ## The long forms of the tests of faults: every kill, full sizes; about half an hour
	@exec tools/scripts/faults.sh

.PHONY: soak
soak: build ## A fleet of SOAK_SERVERS (300) that never rests, for SOAK_MINUTES (10); growth and untruths fail
	@exec python3 tools/soak/soak.py

.PHONY: lint
lint: ## Format and lints only
	@exec tools/scripts/test.sh lint

.PHONY: clean
clean: ## Remove what was built for this clone and the Cargo target folder; tools stay in the cache
	rm -rf target dist
	cargo clean --quiet

#!/usr/bin/env bash
# make test: every check, one after the other, and a summary. `test.sh lint` stops after format and lints.
# A step that fails does not keep the others from running.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stamps=$cache/passed
mkdir -p "$stamps"
names=() results=() failed=0

# step NAME COMMAND…: runs it, and remembers how it ended and how long it took.
step() {
	local name=$1 begin=$SECONDS result=ok
	shift
	say "$name"
	# 77 is "skipped"; the command has said why.
	local status=0
	"$@" || status=$?
	if ((status == 77)); then
		result=skipped
	elif ((status)); then
		result=FAILED
		failed=1
	fi
	names+=("$name") results+=("$(printf '%-7s %4d s' "$result" $((SECONDS - begin)))")
}

summary() {
	printf '\n'
	local i
	for i in "${!names[@]}"; do printf '%s   %s\n' "${results[i]}" "${names[i]}"; done
	if ((failed)); then
		printf '\nmake test: FAILED after %d s\n' "$SECONDS"
		exit 1
	fi
	printf '\nmake %s: all passed in %d s\n' "${1:-test}" "$SECONDS"
	exit 0
}

skip() {
	printf 'skipped: %s\n' "$*"
	return 77
}

# Over a minute long, so not again on sources that passed.
control_plane_tests() {
	local wanted stamp=$stamps/control-plane
	wanted="$(find tools/control-plane -type f | hash_files) $(go env GOVERSION)"
	if [[ $(cat "$stamp" 2>/dev/null) == "$wanted" ]]; then
		skip "passed before on the same sources; rm $stamp to run it anyway"
		return
	fi
	local unformatted
	unformatted=$(cd tools/control-plane && gofmt -l .)
	if [[ -n $unformatted ]]; then
		printf 'not formatted by gofmt: %s\n' "$unformatted"
		return 1
	fi
	# No `set -e` in here: what runs under a condition ignores it.
	(cd tools/control-plane && go vet ./... && CONTROL_PLANE_BIN=$bin/control-plane go test -count=1 ./e2e) || return 1
	printf '%s\n' "$wanted" >"$stamp"
}

python_tests() {
	python3 -m unittest discover --start-directory plugins/fleet-metrics/tests --buffer || return 1
	python3 -m py_compile tools/stack/*.py tools/scripts/*.py tools/demo/*.py tools/bench/*.py tools/soak/*.py tests/*.py
}

lua_tests() {
	local lua
	for lua in lua lua5.4 lua5.3 lua5.1 luajit; do
		if command -v "$lua" >/dev/null; then
			"$lua" examples/gitops/health_test.lua
			return
		fi
	done
	skip "no lua is installed"
}

shell_tests() {
	local script
	for script in .ci/run tools/scripts/*.sh; do bash -n "$script" || return 1; done
	! command -v shellcheck >/dev/null || shellcheck --external-sources .ci/run tools/scripts/*.sh
}

deny() {
	# Advisories come from the network and change by themselves; they are for a schedule, not for a test.
	"$bin/cargo-deny" --log-level error --workspace --locked check bans licenses sources
}

helm_lint() {
	local values
	for values in charts/ollama-fleet-operator/ci/*-values.yaml; do
		"$bin/helm" lint --strict charts/ollama-fleet-operator -f "$values" || return 1
	done
}

release_tests() {
	tools/scripts/release.sh || return 1
	python3 tests/release.py dist/ollama-fleet-operator target/release/fleetsim
}

soak() {
	OPERATOR_BIN=$CARGO_TARGET_DIR/debug/ollama-fleet-operator FLEETSIM_BIN=$CARGO_TARGET_DIR/debug/fleetsim \
		SOAK_MINUTES=0.3 SOAK_SERVERS=100 python3 tools/soak/soak.py
}

demo() { DEMO_EXIT=1 python3 tools/demo/demo.py; }

step "format (cargo fmt)" cargo fmt --all --check
step "lints (cargo clippy)" cargo clippy --quiet --workspace --all-targets --locked -- --deny warnings
step "scripts" shell_tests
if [[ ${1:-} == lint ]]; then summary lint; fi

step "tools" tools/scripts/tools.sh
step "agent of fleet-metrics, Python" python_tests
step "health checks of Argo CD, Lua" lua_tests
step "control plane, Go" control_plane_tests
step "dependencies (cargo deny)" deny
step "chart (helm lint)" helm_lint
step "build" cargo build --quiet --workspace --locked
step "generated files" cargo run --quiet --locked --bin crdgen -- --check
step "unit tests" cargo test --quiet --locked --lib --bins
step "tests of fleetsim" cargo test --quiet --locked --package fleetsim
# A part of them with the rights of watchNamespaces; all of them: TEST_RIGHTS=namespaced cargo test --test integration.
namespaced_tests() {
	TEST_RIGHTS=namespaced cargo test --quiet --locked --test integration -- --test-threads="${TEST_THREADS:-4}" \
		server_lifecycle::a_host_that_dies_and_returns server_lifecycle::a_deleted_server_vanishes \
		plugins::readings_of_the_shipped plugins::a_selector_follows pressure::a_hot_gpu quiet::what_happened_during \
		credentials::a_credential_goes api::the_api_says
}

# They mostly wait, so there may be more of them than cores.
step "integration tests" cargo test --quiet --locked --test integration -- --test-threads="${TEST_THREADS:-4}"
step "soak, for some seconds" soak
step "integration tests, rights by namespace" namespaced_tests
step "plain manifests" tools/scripts/manifests.sh
step "demo" demo
step "static binary" release_tests
summary

#!/usr/bin/env bash
# make faults: the tests of faults in their long forms, a line for each plan and figure. TEST_THREADS as in make test.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cargo build --quiet --workspace --locked
TEST_FAULTS=full OUTAGE_SECONDS=${OUTAGE_SECONDS:-60} cargo test --quiet --locked --test integration -- \
	--nocapture --test-threads="${TEST_THREADS:-3}" \
	apiserver_faults apiserver_watches apiserver_writes kills process_faults leader hostile_hosts hostile_agents \
	credentials host_tls backend_lives

//! Prometheus' text and OpenMetrics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ollama_fleet_operator::untrusted;

fuzz_target!(|data: &[u8]| {
    untrusted::agent_text(data);
});

//! Host strings, durations, quantities, ranges of versions, annotations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ollama_fleet_operator::untrusted;

fuzz_target!(|data: &[u8]| {
    untrusted::host(data);
    untrusted::scalars(data);
    untrusted::annotation(data);
});

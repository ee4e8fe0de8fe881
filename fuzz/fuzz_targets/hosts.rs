//! What hosts answer: version, lists of models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ollama_fleet_operator::untrusted;

fuzz_target!(|data: &[u8]| {
    untrusted::version(data);
    untrusted::lists_of_models(data);
});

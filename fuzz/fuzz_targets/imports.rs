//! What `kubectl ollama import` reads: each input as each kind of file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ollama_fleet_operator::untrusted;

fuzz_target!(|data: &[u8]| {
    untrusted::servers_json(data);
    untrusted::plugin_json(data);
    untrusted::dotenv(data);
    untrusted::compose(data);
});

//! state.json, and the file of a network

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::network::Config;
use runtime::store::{State, parse_name};

fuzz_target!(|text: &[u8]| {
    if let Ok(network) = Config::parse(text) {
        assert!(network.short_id().len() == 12 && network.bridge.len() <= 15);
        assert!(!network.name.contains('/') && network.subnet().is_ok());
    }
    let id = "0123456789abcdef".repeat(4);
    let Ok(state) = State::parse(text, &id) else { return };
    assert_eq!(state.short_id(), &id[..12]);
    assert!(parse_name(&state.name).is_ok());
    let written = serde_json::to_vec(&state).unwrap();
    let again = State::parse(&written, &id).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
});

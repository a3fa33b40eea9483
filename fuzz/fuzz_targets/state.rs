//! state.json

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::store::{State, parse_name};

fuzz_target!(|text: &[u8]| {
    let id = "0123456789abcdef".repeat(4);
    let Ok(state) = State::parse(text, &id) else { return };
    assert_eq!(state.short_id(), &id[..12]);
    assert!(parse_name(&state.name).is_ok());
    let written = serde_json::to_vec(&state).unwrap();
    let again = State::parse(&written, &id).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
});

//! Names that end up in paths, in messages to the kernel and on the terminal

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::store::parse_name;
use runtime::verbs::kill::parse_signal;
use step01_namespaces::parse_hostname;
use step04_bridge_veth::parse_link_name;

fuzz_target!(|text: &str| {
    for (parsed, longest) in
        [(parse_name(text), 128), (parse_hostname(text), 64), (parse_link_name(text), 15)]
    {
        if let Ok(name) = parsed {
            assert_eq!(name, text);
            assert!((1..=longest).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
            assert!(!name.starts_with(['.', '-']));
        }
    }
    if let Ok(signal) = parse_signal(text) {
        assert_eq!(parse_signal(signal.as_str()).unwrap(), signal);
        assert_eq!(parse_signal(&(signal as i32).to_string()).unwrap(), signal);
    }
});

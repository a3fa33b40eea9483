//! `--publish`, on the command line and in config.json

#![no_main]

use libfuzzer_sys::fuzz_target;
use step05_nat::Publish;

fuzz_target!(|text: &str| {
    for wanted in runtime::network::Wanted::parse(text).into_iter().flatten().take(10) {
        let shown = wanted.to_string();
        assert_eq!(runtime::network::Wanted::parse(&shown).unwrap(), [wanted]);
        assert_eq!(shown.split_whitespace().count(), 1);
    }
    if let Ok(publish) = text.parse::<Publish>() {
        assert!(publish.host != 0 && publish.container != 0);
        assert_eq!(publish.to_string().parse::<Publish>().unwrap(), publish);
        assert!(publish.arrow().bytes().all(|byte| byte.is_ascii_graphic()));
        // config.json has them one behind the other.
        assert_eq!(publish.to_string().split_whitespace().count(), 1);
    }
});

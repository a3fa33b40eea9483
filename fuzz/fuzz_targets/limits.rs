//! `--memory`, `--cpus`, `--cpuset-cpus`

#![no_main]

use libfuzzer_sys::fuzz_target;
use step02_cgroups::{Cpus, Cpuset, Memory};

fuzz_target!(|text: &str| {
    if let Ok(memory) = text.parse::<Memory>() {
        assert!((Memory::LEAST..=i64::MAX as u64).contains(&memory.bytes()));
        assert_eq!(memory.bytes().to_string().parse::<Memory>().unwrap(), memory);
        assert_eq!(Memory::new(memory.bytes()).unwrap(), memory);
        assert!(memory.to_string().ends_with(" MiB"));
    }
    if let Ok(cpus) = text.parse::<Cpus>() {
        assert!((1_000..=1_000_000).contains(&cpus.period()) && cpus.quota() >= 1_000);
        let quota = i64::try_from(cpus.quota()).unwrap();
        assert_eq!(Cpus::from_quota(quota, cpus.period()).unwrap(), cpus);
    }
    if let Ok(cpuset) = text.parse::<Cpuset>() {
        let shown = cpuset.to_string();
        assert!(shown.bytes().all(|byte| byte.is_ascii_digit() || b"-,".contains(&byte)));
        assert_eq!(shown.parse::<Cpuset>().unwrap(), cpuset);
    }
});

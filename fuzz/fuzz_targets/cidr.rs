//! `--subnet`, on the command line and in config.json

#![no_main]

use libfuzzer_sys::fuzz_target;
use step04_bridge_veth::Cidr;

fuzz_target!(|text: &str| {
    let Ok(cidr) = text.parse::<Cidr>() else { return };
    assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
    let (first, last) = (cidr.network(), cidr.broadcast());
    assert_eq!(first.to_bits() & cidr.mask(), first.to_bits());
    assert_eq!(last.to_bits() & cidr.mask(), first.to_bits());
    assert!(first < cidr.gateway() && cidr.gateway() < last);
    assert!(!cidr.has_host(first) && !cidr.has_host(cidr.gateway()) && !cidr.has_host(last));
    assert!(cidr.hosts().take(10).all(|host| cidr.has_host(host)));
    assert_eq!(cidr.hosts().size_hint().0 as u64 + 3, 1_u64 << (32 - cidr.prefix()));
    assert!(cidr.overlaps(first, cidr.prefix()) && cidr.overlaps(last, 32));
    assert!(!first.is_loopback() && !first.is_multicast() && !first.is_unspecified());
});

//! config.json, which an OCI engine may have written

#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::bundle::Bundle;
use step04_bridge_veth::parse_link_name;

fuzz_target!(|text: &[u8]| {
    let Ok(spec) = serde_json::from_slice(text) else { return };
    let Ok(bundle) = Bundle::new(&spec) else { return };
    assert!(!bundle.process.args.is_empty());
    if let Some(plan) = &bundle.network {
        assert!(parse_link_name(&plan.bridge.bridge).is_ok());
    }
    // What we understood is still there when it has been written and read.
    let text = serde_json::to_vec(&spec).unwrap();
    let again = Bundle::new(&serde_json::from_slice(&text).unwrap()).unwrap();
    assert_eq!(again.namespaces, bundle.namespaces);
    assert_eq!(again.limits, bundle.limits);
    let ports = |bundle: &Bundle| bundle.network.as_ref().map(|plan| plan.publish.clone());
    assert_eq!(ports(&again), ports(&bundle));
    assert_eq!(again.process.args, bundle.process.args);
    assert_eq!(again.process.env, bundle.process.env);
    assert_eq!(again.process.capabilities, bundle.process.capabilities);
    assert_eq!(again.rootfs.mounts, bundle.rootfs.mounts);
    assert_eq!(again.rootfs.masked, bundle.rootfs.masked);
});

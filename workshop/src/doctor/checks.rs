//! The table of all checks, in the order of the steps.

use super::{Check, cgroup, firewall, machine, mounts, network, user};

/// All of them. The names are stable.
pub const CHECKS: &[Check] = &[
    Check {
        name: "kernel",
        needed_by: "all steps",
        tries: "each of the newer system calls, with arguments that no kernel takes",
        attempt: machine::system_calls,
        explain: machine::explain_system_calls,
    },
    Check {
        name: "wsl",
        needed_by: "all steps on Windows",
        tries: "the kernel's name for a word from Microsoft",
        attempt: machine::wsl,
        explain: machine::explain_wsl,
    },
    Check {
        name: "container",
        needed_by: "all steps, if this is a container",
        tries: "marks of Docker, podman and others; our capabilities, seccomp filter and /proc",
        attempt: machine::container,
        explain: machine::explain_container,
    },
    Check {
        name: "security-module",
        needed_by: "all steps",
        tries: "whether SELinux enforces, and whom it confines",
        attempt: machine::selinux,
        explain: machine::explain_selinux,
    },
    Check {
        name: "namespaces",
        needed_by: "all steps",
        tries: "unshare(2) with each kind of namespace, in a child",
        attempt: user::namespaces,
        explain: user::explain_namespaces,
    },
    Check {
        name: "userns",
        needed_by: "everything without root; --user",
        tries: "a user namespace, its id maps, and in it a mount and a network namespace with a tmpfs",
        attempt: user::user_namespace,
        explain: user::explain_user_namespace,
    },
    Check {
        name: "id-range",
        needed_by: "all steps without root, where /etc/subuid has a range",
        tries: "newuidmap(1) and newgidmap(1) with our ranges, on a child in a user namespace",
        attempt: user::id_range,
        explain: user::explain_id_range,
    },
    Check {
        name: "limits",
        needed_by: "many containers at once; cargo test",
        tries: "the limits of processes (ulimit -u, pids.max) and of namespaces, against what is in use",
        attempt: user::limits,
        explain: user::explain_limits,
    },
    Check {
        name: "cgroup-delegation",
        needed_by: "step 2; final run --memory, --cpus, --pids-limit, --cpuset-cpus",
        tries: "an empty cgroup where a container's would be, removed at once",
        attempt: cgroup::delegation,
        explain: cgroup::explain_delegation,
    },
    Check {
        name: "proc",
        needed_by: "steps 3 to 5, final, the lab",
        tries: "mounts of proc and sysfs, in new namespaces",
        attempt: mounts::proc,
        explain: mounts::explain_proc,
    },
    Check {
        name: "overlay",
        needed_by: "steps 3 to 5, final",
        tries: "an overlay on a tmpfs, mounted as your containers mount it, in a mount namespace",
        attempt: mounts::overlay,
        explain: mounts::explain_overlay,
    },
    Check {
        name: "overlay-userns",
        needed_by: "step 3 and final without root",
        tries: "the same in a user namespace (userxattr), and there to remove one of its directories",
        attempt: mounts::overlay_in_user_namespace,
        explain: mounts::explain_overlay_in_user_namespace,
    },
    Check {
        name: "tmp",
        needed_by: "steps 3 to 5, final; cargo install and documentation tests",
        tries: "to map a file there as a program (it has no name any more by then)",
        attempt: mounts::tmp,
        explain: mounts::explain_tmp,
    },
    Check {
        name: "veth",
        needed_by: "steps 4 and 5, final run --net bridge, the lab",
        tries: "a veth pair, in a network namespace",
        attempt: network::veth,
        explain: network::explain_veth,
    },
    Check {
        name: "bridge",
        needed_by: "steps 4 and 5, final run --net bridge",
        tries: "a bridge, in a network namespace",
        attempt: network::bridge,
        explain: network::explain_bridge,
    },
    Check {
        name: "tun",
        needed_by: "step 4's example tap",
        tries: "a TAP device, in a network namespace",
        attempt: network::tap,
        explain: network::explain_tap,
    },
    Check {
        name: "subnet",
        needed_by: "steps 4 and 5, final run --net bridge, on this machine itself",
        tries: "the routes for one that shares an address with 10.77.0.0/24",
        attempt: network::subnet,
        explain: network::explain_subnet,
    },
    Check {
        name: "nf-tables",
        needed_by: "step 5, final run --net bridge",
        tries: "a table with NAT chains and each kind of rule, in a network namespace",
        attempt: firewall::tables,
        explain: firewall::explain_tables,
    },
    Check {
        name: "forwarding",
        needed_by: "step 5, final run --net bridge, on this machine itself",
        tries: "net.ipv4.ip_forward: its value, who may have set it, whether it can be written",
        attempt: firewall::forwarding,
        explain: firewall::explain_forwarding,
    },
    Check {
        name: "firewall",
        needed_by: "step 5, final run --net bridge, on this machine itself",
        tries: "the firewall's chains for one that drops forwarded packets, as Docker's does",
        attempt: firewall::foreign_chains,
        explain: firewall::explain_foreign_chains,
    },
    Check {
        name: "bridge-netfilter",
        needed_by: "containers on one bridge that talk to each other, on this machine itself",
        tries: "net.bridge.bridge-nf-call-iptables (the module br_netfilter)",
        attempt: firewall::bridge_netfilter,
        explain: firewall::explain_bridge_netfilter,
    },
    Check {
        name: "tools",
        needed_by: "what the book shows in a shell; no program of ours",
        tries: "to find ip, nft, curl and the others on PATH",
        attempt: machine::tools,
        explain: machine::explain_tools,
    },
    Check {
        name: "lab",
        needed_by: "cargo workshop lab, cargo test",
        tries: "a whole lab, which ends at once",
        attempt: machine::lab,
        explain: machine::explain_lab,
    },
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::CHECKS;

    #[test]
    fn every_check_that_an_error_names_is_there() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut named = 0;
        for step in fs::read_dir(workspace).unwrap() {
            let Ok(sources) = fs::read_dir(step.unwrap().path().join("src")) else { continue };
            for source in sources.filter_map(Result::ok).filter(|entry| entry.path().is_file()) {
                let text = fs::read_to_string(source.path()).unwrap();
                for name in text.split("see(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                    assert!(CHECKS.iter().any(|check| check.name == name), "{source:?}: {name}");
                    named += 1;
                }
            }
        }
        assert!(named > 5, "only {named} were found");
    }
}

//! IP forwarding and nf_tables: what step 5 changes, and who else does.

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{AccessFlags, access, geteuid};

use super::attempt::{Refused, Seen, in_namespaces};
use super::machine::{PRIVILEGED, outer_container, setting};
use super::{Finding, hint, stops, stops_as_root};
use crate::nft;
use crate::wire::Wire;

/// The fix if the kernel lacks a module.
pub fn load_module(name: &str) -> String {
    if super::machine::wsl().is_ok_and(|seen| seen == "WSL 2") {
        return "in PowerShell: wsl --update, then wsl --shutdown".into();
    }
    format!("sudo modprobe {name}; if there is no such module, take a distribution's kernel")
}

pub fn tables() -> Seen {
    in_namespaces(CloneFlags::CLONE_NEWNET, || {
        nft::add_nat_table("doctor").map_err(|(module, error)| {
            anyhow::Error::from(error).context(format!("the module {module} refuses or is missing"))
        })?;
        Ok("a table with NAT, connection tracking and fib rules can be made".into())
    })
}

pub fn explain_tables(refused: &Refused) -> Finding {
    let module = refused.text.split(' ').find(|word| word.starts_with("nf")).unwrap_or("nf_tables");
    match refused.errno {
        Errno::EPERM if outer_container().is_some() => stops(refused.text.clone(), PRIVILEGED),
        _ => stops(refused.text.clone(), load_module(module)),
    }
}

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

pub fn forwarding() -> Seen {
    let value =
        setting("net.ipv4.ip_forward").ok_or_else(|| Refused::because("there is no ip_forward"))?;
    if geteuid().is_root()
        && value == "0"
        && let Err(errno) = access(IP_FORWARD, AccessFlags::W_OK)
    {
        return Err(anyhow::Error::from(errno)
            .context(format!("cannot write {IP_FORWARD}"))
            .into());
    }
    let by = setters(&value);
    let by = if by.is_empty() { String::new() } else { format!(", by {}", by.join(" and ")) };
    Ok(match value.as_str() {
        "0" => format!("off{by}; step 5 switches it on, and off again with its last container"),
        _ => format!("on{by}; step 5 leaves it on"),
    })
}

/// Who says so, as far as it can be seen: files of sysctl.d(5), our own note, programs with bridges.
fn setters(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut files = vec![PathBuf::from("/etc/sysctl.conf")];
    for directory in
        ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"]
    {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "conf")));
    }
    let says_so = |line: &str| {
        let Some((name, set)) = line.split_once('=') else { return false };
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"].contains(&name.as_str())
            && set.trim() == value
    };
    for path in files {
        if fs::read_to_string(&path).is_ok_and(|text| text.lines().any(says_so)) {
            found.push(path.display().to_string());
        }
    }
    if value == "0" {
        return found;
    }
    if noted() {
        found.push("step 5, for a container that runs".into());
    }
    let links = Wire::open().and_then(|wire| wire.links()).unwrap_or_default();
    let known = [
        ("docker0", "Docker"),
        ("virbr0", "libvirt"),
        ("lxdbr0", "LXD"),
        ("incusbr0", "Incus"),
        ("podman0", "podman"),
        ("cni0", "Kubernetes"),
    ];
    let there = known.into_iter().filter(|(link, _)| links.iter().any(|name| name == link));
    found.extend(there.map(|(link, program)| format!("{program}, it seems (there is a {link})")));
    found
}

/// Whether step 5 has noted that it was off before, in the pool of a bridge.
fn noted() -> bool {
    let pools =
        fs::read_dir("/run/container-workshop").into_iter().flatten().filter_map(Result::ok);
    pools.into_iter().any(|pool| pool.path().join("ip_forward-was-0").exists())
}

pub fn explain_forwarding(refused: &Refused) -> Finding {
    let fix =
        if outer_container().is_some() { PRIVILEGED } else { "sudo mount -o remount,rw /proc/sys" };
    stops_as_root(refused.text.clone(), fix)
}

pub fn foreign_chains() -> Seen {
    let chains = nft::chains().map_err(anyhow::Error::from)?;
    if let Some(chain) = chains.into_iter().find(|chain| chain.drops_forwarded) {
        return Err(Refused::because(chain.path));
    }
    // Rules of the old iptables, which nf_tables does not show.
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    let legacy = legacy.lines().any(|table| table == "filter");
    let more =
        if legacy { " in nf_tables; iptables-legacy -S FORWARD shows the others" } else { "" };
    Ok(format!("no chain drops what is forwarded{more}"))
}

pub fn explain_foreign_chains(refused: &Refused) -> Finding {
    let chain = &refused.text;
    match refused.errno {
        Errno::EPERM => return only_root_sees("firewall"),
        Errno::UnknownErrno => {}
        _ => {
            return hint(
                format!("the firewall cannot be listed: {}", refused.text),
                load_module("nf_tables"),
            );
        }
    }
    let cause = format!(
        "the chain {chain} drops forwarded packets that no rule accepts, so containers may reach nothing \
         beyond this machine"
    );
    let both = |insert: &str, from: &str, to: &str, accept: &str| {
        format!("sudo {insert} {from} workshop0 {accept}; sudo {insert} {to} workshop0 {accept}")
    };
    let fix = match (chain.as_str(), has_docker_user()) {
        ("ip filter FORWARD", true) => both("iptables -I DOCKER-USER", "-i", "-o", "-j ACCEPT"),
        ("ip filter FORWARD", false) => both("iptables -I FORWARD", "-i", "-o", "-j ACCEPT"),
        _ => both(&format!("nft insert rule {chain}"), "iifname", "oifname", "accept"),
    };
    stops_as_root(cause, fix)
}

fn only_root_sees(check: &str) -> Finding {
    let program = std::env::current_exe().unwrap_or_else(|_| Path::new("workshop").into());
    Finding::Unseen(format!(
        "only root may look at the firewall: sudo {} doctor {check}",
        program.display()
    ))
}

/// Whether Docker's chain for other people's rules is there.
fn has_docker_user() -> bool {
    nft::chains().is_ok_and(|all| all.iter().any(|chain| chain.path == "ip filter DOCKER-USER"))
}

pub fn bridge_netfilter() -> Seen {
    match setting("net.bridge.bridge-nf-call-iptables").as_deref() {
        None => Ok("br_netfilter is not loaded: frames on a bridge pass no firewall".into()),
        Some("0") => Ok("off: frames on a bridge pass no firewall".into()),
        Some(_)
            if nft::chains().map_err(anyhow::Error::from)?.iter().any(|c| c.drops_forwarded) =>
        {
            Err(Refused::because("net.bridge.bridge-nf-call-iptables=1"))
        }
        Some(_) => Ok("on: frames on a bridge pass the firewall, but no chain drops them".into()),
    }
}

pub fn explain_bridge_netfilter(refused: &Refused) -> Finding {
    if refused.errno == Errno::EPERM {
        return only_root_sees("bridge-netfilter");
    }
    hint(
        format!(
            "{}: frames between containers on one bridge pass the chains for forwarded packets, too; \
             the one that the check firewall names drops these, too",
            refused.text
        ),
        "what the check firewall says",
    )
}

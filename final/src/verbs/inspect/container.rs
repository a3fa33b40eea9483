//! What `inspect` shows of a container: what its state.json and its config.json say, in docker's words.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use humantime::format_rfc3339_nanos;
use serde_json::{Map, Value, json};
use step04_bridge_veth::{Cidr, mac_of};

use super::host_config::host_config;
use crate::bundle::{Annotation, Bundle};
use crate::mounts;
use crate::network::ports::Shown;
use crate::network::{Config, Endpoint, Networks};
use crate::status::Status;
use crate::store::Container;
use crate::verbs::size::Size;

pub(super) fn about(container: &Container, with_size: bool) -> Result<Value> {
    let state = &container.state;
    let config = Bundle::read(container.bundle())?;
    let status = Status::of(container)?;
    let (path, args) = state.command.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
    let image_id = state.image_id.as_ref().map(|id| format!("sha256:{id}"));
    let mut about = json!({
        "Id": state.id,
        "Created": time(Some(state.created)),
        "Path": path,
        "Args": args,
        "State": {
            "Status": status.to_string(),
            "Running": status.is_running(),
            "Paused": status == Status::Paused,
            "Restarting": status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Pid": state.process.filter(|_| status.is_up()).map_or(0, |process| process.pid),
            "ExitCode": state.exited.unwrap_or_default(),
            "Error": state.error.as_deref().unwrap_or_default(),
            "StartedAt": time(state.started),
            "FinishedAt": time(state.finished),
        },
        "Image": image_id.unwrap_or_else(|| state.image.clone()),
        "LogPath": container.bundle().join("log.json"),
        "Name": format!("/{}", state.name),
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": host_config(state, &config),
        "Mounts": mounts::of_user(&config, &state.image),
        "Config": own_config(container, &config),
        "NetworkSettings": network(container, &config, status)?,
    });
    if with_size {
        let Size { written, whole } = Size::of(container)?;
        (about["SizeRw"], about["SizeRootFs"]) = (json!(written), json!(whole));
    }
    Ok(about)
}

/// A point in time; none is year 1, as docker has it.
fn time(nanoseconds: Option<u64>) -> String {
    let format = |n| format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(n)).to_string();
    nanoseconds.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), format)
}

/// The words of an annotation.
pub(super) fn words(config: &Value, annotation: &str) -> Vec<String> {
    let text = config["annotations"][annotation].as_str().unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn own_config(container: &Container, config: &Value) -> Value {
    let (state, annotations) = (&container.state, &config["annotations"]);
    let entrypoint = annotations[Annotation::ENTRYPOINT].as_str();
    let entrypoint = entrypoint.and_then(|words| words.parse().ok()).unwrap_or(0);
    let (entrypoint, cmd) = state.command.split_at_checked(entrypoint).unwrap_or_default();
    let exposed = words(config, Annotation::EXPOSED).into_iter().map(|port| (port, json!({})));
    json!({
        "Hostname": config["hostname"],
        "User": annotations[Annotation::USER],
        "ExposedPorts": exposed.collect::<Map<_, _>>(),
        "Tty": config["process"]["terminal"],
        "OpenStdin": annotations[Annotation::INTERACTIVE] == "true",
        "Env": config["process"]["env"],
        "Entrypoint": if entrypoint.is_empty() { Value::Null } else { json!(entrypoint) },
        "Cmd": if cmd.is_empty() { Value::Null } else { json!(cmd) },
        "Image": state.image,
        "WorkingDir": config["process"]["cwd"],
        "Labels": state.labels,
        "StopSignal": state.stop_signal,
        "StopTimeout": state.stop_timeout.map_or(-1, i64::from),
    })
}

/// Its ports and addresses, which it has only while it runs.
fn network(container: &Container, config: &Value, status: Status) -> Result<Value> {
    let name = config["annotations"][Annotation::NETWORK].as_str().unwrap_or_default();
    let mut settings = json!({ "Ports": {}, "Networks": {} });
    if status.is_up() {
        settings["Ports"] = ports(container);
    }
    let store = container.store();
    let Some(network) = Networks::of(&store).meant(name)? else {
        return Ok(settings); // another container's, or one that is gone
    };
    let mut place = json!({
        "NetworkID": network.id,
        "Aliases": words(config, Annotation::ALIASES),
        "IPAddress": "",
        "IPPrefixLen": 0,
        "Gateway": "",
        "MacAddress": "",
    });
    if status.is_up() {
        add_addresses(&mut place, container, config, &network)?;
    }
    if name == "bridge" {
        for key in ["IPAddress", "IPPrefixLen", "Gateway", "MacAddress"] {
            settings[key] = place[key].clone(); // docker's, from before there were networks
        }
    }
    settings["Networks"][name] = place;
    Ok(settings)
}

/// Where on the host each port is reached; `null` is nowhere.
fn ports(container: &Container) -> Value {
    let mut ports = json!({});
    let shown = container.state.ports.iter().filter_map(|port| port.parse::<Shown>().ok());
    for port in shown {
        let places = &mut ports[format!("{}/{}", port.container, port.protocol)];
        if let Some(host) = port.host {
            let address = port.address.trim_matches(['[', ']']);
            let one = json!({ "HostIp": address, "HostPort": host.to_string() });
            add(places, one);
        }
    }
    ports
}

/// One more in a list, or the first one in place of `null`.
pub(super) fn add(list: &mut Value, one: Value) {
    match list {
        Value::Array(all) => all.push(one),
        none => *none = json!([one]),
    }
}

/// What it has on its bridge, if it is on one.
fn add_addresses(
    place: &mut Value,
    container: &Container,
    config: &Value,
    network: &Config,
) -> Result<()> {
    let annotation = |name| config["annotations"][name].as_str();
    let bridge = annotation(Annotation::BRIDGE).zip(annotation(Annotation::SUBNET));
    let Some((bridge, subnet)) = bridge else { return Ok(()) };
    let all = Endpoint::all(bridge)?;
    let own = all.iter().find(|(_, endpoint)| endpoint.id == container.state.id);
    let Some((address, endpoint)) = own else { return Ok(()) };
    let subnet: Cidr = subnet.parse()?;
    place["IPAddress"] = json!(address);
    place["IPPrefixLen"] = subnet.prefix().into();
    place["Gateway"] = json!(subnet.gateway());
    place["MacAddress"] = mac_of(*address).map(|byte| format!("{byte:02x}")).join(":").into();
    if let (Some(address), Some(subnet)) = (endpoint.address6, network.subnet6()?) {
        place["GlobalIPv6Address"] = json!(address);
        place["GlobalIPv6PrefixLen"] = subnet.prefix().into();
        place["IPv6Gateway"] = json!(subnet.gateway());
    }
    Ok(())
}

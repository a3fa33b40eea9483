//! `final port`

use anyhow::{Result, ensure};
use clap::Args;

use crate::network::Exposed;
use crate::network::ports::Shown;
use crate::status::Status;

/// `port CONTAINER [PORT[/tcp|udp]]`
#[derive(Args, Debug, Clone)]
pub struct PortArgs {
    /// Name, id, or the beginning of an id
    pub container: String,

    /// Only where this port of the container's is reached
    #[arg(value_name = "PORT[/tcp|udp]", value_parser = parse_port)]
    pub port: Option<Exposed>,
}

fn parse_port(text: &str) -> Result<Exposed> {
    let ports = Exposed::parse(text)?;
    ensure!(ports.len() == 1, "one port, or none for all of them");
    Ok(ports[0])
}

/// Shows where on the host a container's ports are reached.
pub fn run(args: &PortArgs) -> Result<()> {
    let store = super::open()?;
    let container = store.find(&args.container)?;
    let is_up = Status::of(&container)?.is_up();
    let ports = container.state.ports.iter().filter(|_| is_up);
    let mut ports: Vec<Shown> = ports.filter_map(|port| port.parse().ok()).collect();
    ports.sort_by_key(|port| (port.container, port.protocol as u8));
    let (mut lines, mut found) = (String::new(), false);
    for port in ports {
        let Some(host) = port.host else { continue }; // only exposed
        let own = Exposed { port: port.container, protocol: port.protocol };
        match args.port {
            None => lines += &format!("{own} -> {}:{host}\n", port.address),
            Some(wanted) if wanted == own => lines += &format!("{}:{host}\n", port.address),
            Some(_) => continue,
        }
        found = true;
    }
    if let Some(wanted) = args.port {
        ensure!(found, "no public port '{wanted}' published for {}", container.state.name);
    }
    super::print(&lines)
}

//! The mission's sentence, `docker run -d --net=host --name nginx-host nginx`, said to `final`, with an nginx of
//! Debian's own packages (`.ci/nginx-image` makes its archive; without it the tests are ignored).

use std::process::ExitCode;
use std::time::Duration;

use workshop::internet::{SERVER, UPLINK};
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{Test, command, eventually, get, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_final");
const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/nginx.tar");

static TESTS: &[Test] = &[
    Test { tools: &[ARCHIVE], ..test!(nginx_on_the_hosts_network, [Root]) },
    Test { tools: &[ARCHIVE], ..test!(nginx_on_a_bridge, [Root]) },
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// Runs `final`; returns what it printed.
fn final_(words: &[&str]) -> String {
    let outcome = run(&mut command(BINARY, words), Duration::from_secs(100));
    assert_eq!(outcome.status, Some(0), "{words:?}: {outcome:?}");
    outcome.stdout
}

fn load() {
    assert_eq!(final_(&["load", "-i", ARCHIVE]), "Loaded image: nginx:latest\n");
}

/// Stops it, which takes nginx no signal that it does not know, and removes all.
fn end(name: &str) {
    assert_eq!(final_(&["stop", name]), format!("{name}\n"));
    assert!(final_(&["ps", "-a"]).contains("Exited (0)"), "SIGQUIT is nginx's way to end well");
    final_(&["rm", name]);
    final_(&["rmi", "nginx"]);
    assert_eq!(final_(&["ps", "-aq"]) + &final_(&["images", "-q"]), "", "nothing is left");
}

fn nginx_on_the_hosts_network(_: Who) {
    load();
    let id = final_(&["run", "-d", "--net=host", "--name", "nginx-host", "nginx"]);
    assert_eq!(id.trim().len(), 64, "{id:?} is an id");
    eventually("nginx answers at the host's own port 80", || {
        get("127.0.0.1:80", "/").contains("Welcome to nginx!")
    });
    assert!(final_(&["ps"]).contains("nginx-host"));
    end("nginx-host");
}

fn nginx_on_a_bridge(_: Who) {
    load();
    final_(&["run", "-d", "-p", "8080:80", "--name", "nginx-bridge", "nginx"]);
    eventually("nginx answers the internet at port 8080", || {
        get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK}/8080")).contains("Welcome to nginx!")
    });
    let asked = |log: String| log.contains("\"GET / HTTP/1.") && log.contains("\" 200 ");
    eventually("the log has it", || asked(final_(&["logs", "nginx-bridge"])));
    let mut terminal = Terminal::start(command(BINARY, &["exec", "-it", "nginx-bridge", "sh"]));
    terminal.expect("# ");
    terminal.type_in("cat /proc/1/comm; exit 7\n");
    terminal.expect("nginx\r\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(7));
    let stats = final_(&["stats", "--no-stream"]);
    assert!(stats.lines().nth(1).is_some_and(|line| line.contains("nginx-bridge")), "{stats}");
    end("nginx-bridge");
}

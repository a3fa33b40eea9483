//! To processes, terminals and machines beside the container.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{
    Running, command, eventually, finish, probe_volume, read, run, this_program,
};

use crate::{FINAL, Host, PATIENCE, SECRET, fails, final_, in_final, in_step1, in_step3, works};

/// A process of the host; ours, so that an attack on it hurts nobody.
struct Victim(Child);

impl Victim {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who shares the host's process numbers can send signals to them, as root to all, as a user to his own.
///
/// Ours always has a PID namespace (`namespaces` in spec/linux.rs), in which the victim has no number.
pub fn a_signal_to_a_process_of_the_host(_: Who) {
    let mut victim = Victim::new();
    works(in_step1(&["--share", "pid"], &["!signal", &victim.pid()]), "signalled");
    assert_eq!(victim.0.wait().unwrap().signal(), Some(libc::SIGTERM));
    let mut victim = Victim::new();
    fails(in_final(&[], &["!signal", &victim.pid()]), "ESRCH");
    assert_eq!(victim.0.try_wait().unwrap(), None, "it has ended");
}

/// ptrace(2): to be the debugger of a process is to be that process.
///
/// Ours does not have the victim in its PID namespace. (The kernel keeps a user namespace from it in any
/// case: it takes CAP_SYS_PTRACE over the victim's.) With `--pid host` that is what stops it, as the victim
/// has more capabilities than ours.
pub fn a_debugger_for_a_process_of_the_host(_: Who) {
    let victim = Victim::new();
    works(in_step1(&["--share", "pid"], &["!trace", &victim.pid()]), "traced");
    fails(in_final(&[], &["!trace", &victim.pid()]), "ESRCH");
    fails(in_final(&["--pid", "host"], &["!trace", &victim.pid()]), "EPERM");
}

/// /proc/PID/root is the root directory of that process: with the host's processes the host's files are
/// there, too.
///
/// In ours /proc is of its own PID namespace, and has only its own. With `--pid host` all are there, but who
/// looks at a process with more capabilities needs CAP_SYS_PTRACE; a privileged container has it.
pub fn the_root_of_a_process_of_the_host(_: Who) {
    let (host, victim) = (Host::new(), Victim::new());
    let attack = ["!look-into", &victim.pid(), &host.secret()];
    works(in_step3(&["--share", "pid"], &attack), SECRET);
    fails(in_final(&[], &attack), "No such file or directory");
    fails(in_final(&["--pid", "host"], &attack), "Permission denied");
    works(in_final(&["--pid", "host", "--privileged"], &attack), SECRET);
}

/// CVE-2016-9962: who joins a container is one of its processes before he has let go of the host's files.
/// Root in there looks through /proc/PID/fd and walks out.
///
/// Nobody can look into ours: it is not "dumpable" (prctl(2)) from before it joins to its exec
/// (`close_to_others` in process.rs). That goes for a container that shares its processes, too.
pub fn the_open_files_of_whoever_comes_in(_: Who) {
    let host = Host::new();
    let attack = ["!look-into-all", &host.secret()];
    let mut weak = in_step3(&[], &attack).stdout(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(weak.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(seen.next().as_deref(), Some("ready"));
    let inside = child_of(weak.id());
    let mut careless = command_of_ours(&["!join", &inside]).spawn().unwrap();
    assert!(seen.any(|line| line == SECRET), "the attack is broken");
    kill(Pid::from_raw(inside.parse().unwrap()), Signal::SIGKILL).unwrap(); // and all in there
    weak.wait().unwrap();
    careless.wait().unwrap();

    let volume = probe_volume();
    let words = ["run", "--rm", "--name", "box", "--volume", &volume, "host", "/probe"];
    let mut ours = command(FINAL, &[&words, &attack[..]].concat());
    let ours = ours.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it runs", || final_(&["exec", "box", "true"]).status == Some(0));
    for _ in 0..10 {
        assert_eq!(final_(&["exec", "box", "true"]).status, Some(0));
        let joining = ["run", "--rm", "--pid", "container:box", "host", "true"];
        assert_eq!(final_(&joining).status, Some(0));
    }
    assert_eq!(final_(&["kill", "box"]).status, Some(0));
    let seen = finish(ours, PATIENCE).stdout;
    assert!(seen.contains("saw "), "nobody came in: {seen}");
    assert!(!seen.contains(SECRET), "it has read the secret");
}

/// An attack's program, in no container.
fn command_of_ours(words: &[&str]) -> Command {
    let mut command = Command::new(this_program());
    command.args(words);
    command
}

/// The first process whose parent is this one.
fn child_of(parent: u32) -> String {
    let parent = format!("PPid:\t{parent}");
    let list = fs::read_dir("/proc").unwrap();
    let mut names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_child = |pid: &String| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent)
    };
    names.find(is_child).expect("it has a child")
}

/// Whoever has the user's terminal as its controlling one can type into it: what the shell reads when the
/// container has ended is the container's command (CVE-2016-2568 and many others of that kind).
///
/// Ours is in a session of its own, without a controlling terminal (`leave_caller` in process.rs), or with
/// a terminal of its own. Since Linux 6.2 dev.tty.legacy_tiocsti=0 ends it for all but root.
pub fn typing_into_the_users_terminal(_: Who) {
    // The words are split so that the echo of what was typed is not taken for an answer.
    let attack = ["!type", "echo ow''ned"];
    let mut terminal = Terminal::start(Command::new("sh"));
    run_at(&mut terminal, &in_step3(&[], &attack));
    terminal.expect("owned\r\n");
    for option in [&[][..], &["--interactive"], &["--tty"], &["--interactive", "--tty"]] {
        run_at(&mut terminal, &in_final(option, &attack));
        let shown = terminal.expect("the e''nd\r\n");
        // With a terminal of its own it types into that one.
        let own = option.contains(&"--tty");
        assert!(own || shown.contains("attack: TIOCSTI"), "{option:?}: {shown}");
        terminal.type_in("echo do''ne\n");
        let shown = shown + &terminal.expect("done\r\n");
        assert!(!shown.contains("owned"), "{option:?}: {shown}");
    }
    terminal.type_in("exit\n");
    assert!(terminal.child.wait().unwrap().success());
}

/// A terminal that is open for output is open for input, too: a program that is to print there, and whose
/// input is /dev/null, reads what the user types, a password perhaps. (Those who only share a terminal
/// with a container know that; those who did not ask for one do not expect it.)
///
/// In ours a program without a terminal writes to a pipe, as with docker (`hide_users_terminal` in
/// terminal.rs).
pub fn listening_at_the_users_terminal(_: Who) {
    let mut terminal = Terminal::start(Command::new("sh"));
    run_at(&mut terminal, &in_step3(&[], &["!listen"]));
    terminal.expect("ready\r\n");
    terminal.type_in("password\n");
    terminal.expect("heard password");
    terminal.expect("the e''nd\r\n");
    run_at(&mut terminal, &in_final(&[], &["!listen"]));
    let shown = terminal.expect("the e''nd\r\n");
    assert!(shown.contains("ready\r\n") && shown.contains("attack: "), "{shown}");
    terminal.type_in("exit\n");
    assert!(terminal.child.wait().unwrap().success());
}

/// Types a command line.
fn run_at(terminal: &mut Terminal, command: &Command) {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> = words
        .map(|word| format!("'{}'", word.display().to_string().replace('\'', "'\\''")))
        .collect();
    terminal.type_in(&format!("{}; echo \"the e''nd\"\n", quoted.join(" ")));
}

/// A Unix socket can have a name that is in no file system, and is seen by everybody in the network
/// namespace, whatever his root is. containerd's shim had one, which ran programs as root for whoever
/// asked (CVE-2020-15257); desktops have D-Bus and X11 there.
///
/// With `--net host` this cannot be stopped: the test shows that it works. Ours has a network namespace
/// of its own unless it is told otherwise.
pub fn an_abstract_socket_of_the_host(_: Who) {
    let address = SocketAddr::from_abstract_name("workshop").unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            client.unwrap().write_all(SECRET.as_bytes()).unwrap();
        }
    });
    works(in_final(&["--net", "host"], &["!connect", "workshop"]), SECRET);
    fails(in_final(&[], &["!connect", "workshop"]), "Connection refused");
    fails(in_final(&["--net", "none"], &["!connect", "workshop"]), "Connection refused");
}

/// CVE-2020-13401: with CAP_NET_RAW, which docker gives, a container says to all on its bridge that it is
/// an IPv6 router. The host believes it, and sends it what is for others.
///
/// Our bridge does not listen to that (`create_bridge` in step04's network.rs); we switch it on again to
/// show that the attack works.
pub fn posing_as_a_router(_: Who) {
    let hear = "/proc/sys/net/ipv6/conf/workshop0/accept_ra";
    let words = ["run", "--rm", "--interactive", "host", "sh", "-c", "echo ready; read end"];
    let (_box, line) = Running::start(&mut command(FINAL, &words));
    assert_eq!(line, "ready\n");
    let pose = |prefix: &str| {
        let before = advertisements();
        let outcome = run(&mut in_final(&[], &["!advertise", prefix]), PATIENCE);
        assert_eq!(outcome.status, Some(0), "{outcome:?}");
        eventually("it is heard", || advertisements() > before);
    };
    let believed =
        |prefix: &str| read("/proc/net/ipv6_route").lines().any(|r| r.starts_with(prefix));
    pose("2001:db8:1::");
    assert!(!believed("20010db80001"), "{}", read("/proc/net/ipv6_route"));
    fs::write(hear, "1").unwrap();
    pose("2001:db8:2::");
    eventually("it is believed", || believed("20010db80002"));
}

/// How many router advertisements have come to this host.
fn advertisements() -> u64 {
    let counters = read("/proc/net/snmp6");
    let count = counters.lines().find_map(|line| line.strip_prefix("Icmp6InRouterAdvertisements"));
    count.unwrap().trim().parse().unwrap()
}

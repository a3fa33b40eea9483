//! A container's shell, and somebody who types at it.

use nix::sys::termios::LocalFlags;
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{command, eventually};

use crate::{BINARY, final_, start, stop};

pub fn a_shell_has_a_terminal_with_job_control(_: Who) {
    let mut terminal =
        Terminal::start(command(BINARY, &["run", "--rm", "--name", "shell", "--hostname", "box"]));
    terminal.expect("# ");
    assert!(!terminal.mode().local_flags.contains(LocalFlags::ECHO), "our side is raw");

    // The words are split so that the echo of what was typed is not taken for an answer.
    terminal.type_in("echo pid''=$$ $(hostname) $(id -u) $(tty) $(stty size)\n");
    terminal.expect("pid=1 box 0 /dev/pts/0 24 80\r\n");
    terminal.resize(33, 99);
    terminal.type_in("while [ \"$(stty size)\" != '33 99' ]; do :; done; echo resi''zed\n");
    terminal.expect("resized\r\n");

    terminal.type_in("sh -c \"echo it''runs; exec sleep 1000\"\n");
    terminal.expect("itruns\r\n");
    terminal.type_in("\x1a"); // Ctrl-Z
    terminal.expect("Stopped");
    terminal.type_in("fg\n");
    eventually("sleep goes on", || {
        let state = "grep State $(dirname $(grep -l sleep /proc/[0-9]*/comm))/status";
        final_(&["exec", "shell", "sh", "-c", state]).stdout.contains("S (sleeping)")
    });
    terminal.type_in("\x03"); // Ctrl-C: ends sleep, not the shell
    terminal.type_in("echo inter''rupted $?\n");
    terminal.expect("interrupted 130\r\n");

    terminal.type_in("exit 7\n");
    let status = terminal.child.wait().unwrap();
    assert_eq!(status.code(), Some(7));
    assert_eq!(terminal.mode(), terminal.before, "the terminal is as it was");
}

pub fn exec_has_a_terminal_too(_: Who) {
    let runtime = start("box", &[], &["sleep", "1000"]);
    let mut terminal = Terminal::start(command(BINARY, &["exec", "-it", "box", "sh"]));
    terminal.expect("# ");
    terminal.type_in("echo $(tty) $(stty size) $(cat /proc/1/comm)\n");
    terminal.expect("/dev/pts/0 24 80 sleep\r\n");
    terminal.type_in("exit 3\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(3));
    stop("box", runtime);
}

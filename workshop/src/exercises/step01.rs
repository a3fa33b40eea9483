//! Step 1: namespaces.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "1.1",
        title: "Eight kinds of namespace, eight flags",
        minutes: 10,
        start: Start::Blank,
        task: "A namespace is a copy of one global thing: the mounts, the host name, the process \
               numbers. For each kind there is a bit that tells clone(2) to make a new one. Say \
               which bit belongs to which kind. (One of the constants has an odd name, as it was \
               the first, and one is missing in the crate libc: its value is 0x80.)",
        hints: [
            "namespaces(7) has a table with a row for each kind, and the flag in the second \
             column. `ls -l /proc/self/ns` shows which kinds your kernel has.",
            "Write a match over self, with an arm for each of the eight. The constants are in \
             libc and all begin with CLONE_NEW.",
            "Host name: NEWUTS. System V IPC: NEWIPC. Mounts, in 2002 the only kind: NEWNS. The \
             others are named as in /proc/self/ns, and time is the number 0x80.",
        ],
        mutants: &[
            Mutant {
                what: "CLONE_NEWNET is not passed",
                from: "libc::CLONE_NEWNET",
                to: "0",
                says: "the flag of net makes /proc/self/ns/net a new namespace",
            },
            Mutant {
                what: "CLONE_NEWNS taken for all namespaces, or for none",
                from: "libc::CLONE_NEWNS",
                to: "libc::CLONE_NEWNS | libc::CLONE_NEWUTS",
                says: "the arm of Mnt",
            },
            Mutant {
                what: "the time namespace's flag is another's",
                from: "0x80,",
                to: "0x40,",
                says: "the flag of time",
            },
        ],
    },
    Exercise {
        id: "1.2",
        title: "The child waits for Go",
        minutes: 15,
        start: Start::Blank,
        task: "After the clone there are two processes, and the child must not begin before the \
               parent has made its cgroup, its id maps and its network. So it waits until the \
               parent says Go. And if the parent dies, by a Ctrl-C or kill -9, the child has to \
               die too: nobody would clean up behind it. See to both, in the order that leaves \
               no gap: the parent may die at any line.",
        hints: [
            "message.rs is the whole protocol. What does Channel::receive return when the other \
             end is closed, and which message do you wait for?",
            "prctl(2) has PR_SET_PDEATHSIG: a signal that the kernel sends us when our parent \
             dies. nix calls it prctl::set_pdeathsig. If the parent was dead before that call, the \
             signal never comes; what else tells you of its death?",
            "First the death signal, SIGKILL. Then receive, and let only Message::Go through: a \
             `let ... else` that bails out with a message takes everything else, end of file too.",
        ],
        mutants: &[
            Mutant {
                what: "it does not wait",
                from: "let Some(Message::Go) = channel.receive()? else { bail!(\"the parent went away\") };",
                to: "",
                says: "the child's set-up begins after the parent said Go",
            },
            Mutant {
                what: "no death signal",
                from: "prctl::set_pdeathsig(Signal::SIGKILL).context(\"cannot tie the child to its parent\")?;",
                to: "",
                says: "the container ends when its runtime is killed",
            },
        ],
    },
    Exercise {
        id: "1.3",
        title: "Root inside, yourself outside",
        minutes: 15,
        start: Start::Blank,
        task: "In a new user namespace nobody is anybody: every id is 65534 until somebody writes \
               the maps. Write the map of one id: inside 0, outside the caller, for user and \
               group. Three files in /proc/PID, in an order that the kernel insists on.",
        hints: [
            "The files are setgroups, uid_map and gid_map. A line of a map has three numbers; \
             user_namespaces(7) says which is which. `write` below does a file.",
            "The kernel refuses gid_map with EPERM as long as the process inside could still call \
             setgroups(2): a group can also keep people out of a file, and nobody may shed it this \
             way. What has to be written to setgroups?",
            "setgroups first, with the word deny. A map is the id inside, then the id outside, \
             then how many: zero, ours, one.",
        ],
        mutants: &[
            Mutant {
                what: "setgroups is not denied",
                from: "write(&format!(\"{proc}/setgroups\"), \"deny\")?;",
                to: "",
                says: "gid_map",
            },
            Mutant {
                what: "inside and outside are swapped",
                from: "\"0 {uid} 1\"",
                to: "\"{uid} 0 1\"",
                says: "uid_map",
            },
            Mutant {
                what: "the group's map has the wrong line",
                from: "\"0 {gid} 1\"",
                to: "\"{gid} {gid} 1\"",
                says: "gid_map says that 0 inside",
            },
        ],
    },
    Exercise {
        id: "1.4",
        title: "What is mounted inside stays inside",
        minutes: 10,
        start: Start::Repair,
        task: "Somebody wrote this, tried it, saw a new mount namespace, and went home. On a host \
               with systemd everything that the container mounts appears on the host. Repair it: \
               the new namespace is a copy of the mounts, but each copy still belongs to a group of \
               peers, to which mounts spread.",
        hints: [
            "mount_namespaces(7), \"Shared subtrees\". `findmnt -o TARGET,PROPAGATION` shows the \
             kind of each mount of your machine.",
            "mount(2) changes the propagation of a mount if it gets one of four flags; source, \
             type and data are ignored then. You see which one is used here. Whose propagation \
             does it change, and whose not?",
            "The flags are for the one mount at /; there are many below it. A second flag, added \
             with |, makes the call recursive.",
        ],
        mutants: &[
            Mutant {
                what: "MS_PRIVATE for / alone",
                from: "MsFlags::MS_REC | MsFlags::MS_PRIVATE",
                to: "MsFlags::MS_PRIVATE",
                says: "a tmpfs mounted inside is not seen on the host",
            },
            Mutant {
                what: "no MS_PRIVATE",
                from: "MsFlags::MS_REC | MsFlags::MS_PRIVATE",
                to: "MsFlags::MS_REC | MsFlags::MS_SHARED",
                says: "a tmpfs mounted inside is not seen on the host",
            },
        ],
    },
    Exercise {
        id: "1.5",
        title: "How did it end?",
        minutes: 10,
        start: Start::Blank,
        task: "The status of `run` is the status of the program in the container, so that scripts \
               can rely on it. A process that exits has a number from 0 to 255. One that a signal \
               ends has none: shells, and docker, make one for it. What waitid(2) says is in \
               `ended`; every other answer is an error.",
        hints: [
            "Try `sh -c 'kill -KILL $$'; echo $?` and the same with -TERM. Subtract the signals' \
             numbers (`kill -l`).",
            "Two arms of WaitStatus matter: Exited and Signaled. The rest cannot happen here: \
             bail out and show it.",
            "For a signal: 128 and its number (`signal as i32`). The result is a u8; of an i32 \
             that is known to be small take the first of its to_le_bytes.",
        ],
        mutants: &[
            Mutant {
                what: "a signal is told as its number",
                from: "128 + (signal",
                to: "(signal",
                says: "`kill -KILL $$` is reported as 137",
            },
            Mutant {
                what: "an exit is success, whatever its number",
                from: "code.to_le_bytes()[0]",
                to: "u8::from(code < 0)",
                says: "`exit 7` is reported as 7",
            },
        ],
    },
];

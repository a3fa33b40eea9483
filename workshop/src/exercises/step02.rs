//! Step 2: cgroups.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "2.1",
        title: "A limit is a number in a file",
        minutes: 15,
        start: Start::Blank,
        task: "cgroups have no system call of their own: a limit is set by writing a number into \
               a file of the group's directory. For version 2, say which file gets which text: \
               memory (and no swap, or the limit would only move the memory there), processor \
               time, the number of processes, the processors. `set` notes one: the option, the \
               controller, the file, the text. A limit that is None is not to be written.",
        hints: [
            "Documentation/admin-guide/cgroup-v2.rst has a chapter for each controller. Version 1 \
             below does the same with other names, and may serve as a pattern.",
            "memory.max and memory.swap.max take bytes; pids.max a number; cpuset.cpus the list. \
             cpu.max is the only one with two numbers in it: $MAX $PERIOD, in microseconds.",
            "Half a processor is \"50000 100000\": cpus.quota(), a space, cpus.period(). Swap gets \
             \"0\" whenever memory is limited. Each of the four is an `if let Some(...)`.",
        ],
        mutants: &[
            Mutant {
                what: "quota and period swapped",
                from: "format!(\"{} {}\", cpus.quota(), cpus.period())",
                to: "format!(\"{} {}\", cpus.period(), cpus.quota())",
                says: "quota and period in microseconds",
            },
            Mutant {
                what: "swap is left open",
                from: "set(\"memory\", \"memory\", \"memory.swap.max\", \"0\".into());",
                to: "",
                says: "memory.swap.max (or the rest would go to swap)",
            },
            Mutant {
                what: "memory.high slows down, and does not limit",
                from: "\"memory.max\"",
                to: "\"memory.high\"",
                says: "memory.max (64 MiB, in bytes)",
            },
        ],
    },
    Exercise {
        id: "2.2",
        title: "Who was it? Reading an OOM kill",
        minutes: 10,
        start: Start::Repair,
        task: "A program that is over its memory limit gets SIGKILL: exit status 137, and not a \
               word. Only the group's files tell why. Somebody wrote this, and the report says 9 \
               processes were killed where there were 3. Read the documentation of memory.events, \
               and repair it.",
        hints: [
            "memory.events has several lines that look alike. In cgroup-v2.rst each has a \
             sentence: which one counts kills, and which one counts how often the limit was met?",
            "`oom` counts the times that an allocation was about to fail; after it memory may \
             still be found, or a process of the group may be killed more than once per time.",
            "Version 1 below has the right key already, in its own file memory.oom_control.",
        ],
        mutants: &[
            Mutant {
                what: "oom is not oom_kill",
                from: "entry(\"memory.events\", \"oom_kill\")",
                to: "entry(\"memory.events\", \"oom\")",
                says: "processes killed over the limit: 3",
            },
            Mutant {
                what: "the memory in use now is taken for the most",
                from: "number(\"memory.peak\")",
                to: "number(\"memory.current\")",
                says: "the most memory that was in use (bytes): 2097152",
            },
            Mutant {
                what: "version 1's failcnt is not about kills",
                from: "entry(\"memory.oom_control\", \"oom_kill\")",
                to: "entry(\"memory.oom_control\", \"under_oom\")",
                says: "version 1, processes killed over the limit: 3",
            },
        ],
    },
    Exercise {
        id: "2.3",
        title: "The right process at the right time",
        minutes: 10,
        start: Start::Blank,
        task: "What a process used before it was in the group, the group never sees; and who is \
               moved in after the exec may have forked already. Since Linux 5.7 a child can be \
               born in its group. Tell clone3(2) to do that: `directory` is the open directory of \
               the group. (On version 1 the child has to move itself: Cgroup::join.)",
        hints: [
            "clone3(2), \"The flags mask\": CLONE_INTO_CGROUP. The constant is defined above; libc's \
             own does not fit the field.",
            "It takes two fields of `args`: a bit is added to one that has others in it already, \
             and one says which group.",
            "flags gets the bit with |=, and cgroup the number of the file descriptor, as u64.",
        ],
        mutants: &[
            Mutant {
                what: "the flag is forgotten, and the field ignored",
                from: "args.flags |= CLONE_INTO_CGROUP;",
                to: "",
                says: "the kernel refuses /run as a cgroup (EBADF)",
            },
            Mutant {
                what: "the group's fd is forgotten: that is fd 0",
                from: "args.cgroup = directory.as_raw_fd() as u64;",
                to: "",
                says: "cgroup",
            },
        ],
    },
];

//! The runtime.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "6.1",
        title: "Joining a running container",
        minutes: 20,
        start: Start::Blank,
        task: "`exec` joins the namespaces of a running container with setns(2). The runtime \
               itself has to stay outside, where the terminal is and the files are; so most of \
               them are joined by the new process, after the clone. Two kinds must come before: \
               find out which. The result is those for before, and those for after.",
        hints: [
            "setns(2) has a paragraph for each kind. One kind does not move the caller at all, but \
             its next child.",
            "That kind takes a capability over the user namespace that owns it. As a plain user you \
             have that only when you are in there.",
            "User and Pid before, all other kinds after. namespaces.contains says which ones the \
             container has; partition splits an iterator in two.",
        ],
        mutants: &[
            Mutant {
                what: "the PID namespace is joined after the clone, so nobody is in it",
                from: "matches!(namespace, Namespace::User | Namespace::Pid)",
                to: "matches!(namespace, Namespace::User)",
                says: "the new process is in the container's pid",
            },
            Mutant {
                what: "the user namespace comes last",
                from: "matches!(namespace, Namespace::User | Namespace::Pid)",
                to: "matches!(namespace, Namespace::Pid)",
                says: "setns takes what you chose for before the clone",
            },
            Mutant {
                what: "the runtime moves in as well",
                from: "matches!(namespace, Namespace::User | Namespace::Pid)",
                to: "!matches!(namespace, Namespace::Uts)",
                says: "the runtime itself stays outside",
            },
        ],
    },
    Exercise {
        id: "6.2",
        title: "Cutting the ties",
        minutes: 15,
        start: Start::Blank,
        task: "A new process has more from its caller than it should keep: signals that stay ignored, \
               the controlling terminal, the session keyring. And while it prepares itself in the \
               container, root in there may look into it and find files of the host. Cut all \
               four. Two were real ways out once: CVE-2016-9962, and TIOCSTI. (The files themselves are \
               closed right before the exec.)",
        hints: [
            "One call for each: a process flag that keeps others from looking in (PR_SET_DUMPABLE), \
             the default action of every signal, a new session, a new keyring.",
            "close_to_others and default_action below do the first two. setsid makes a session without \
             a terminal. security has the keyring.",
            "First the flag: from then on nobody looks in. Signals are 1 to 64, but SIGPIPE and SIGXFSZ \
             we need ignored ourselves, up to the exec. setsid gets a context().",
        ],
        mutants: &[
            Mutant {
                what: "an ignored signal stays ignored",
                from: ".for_each(default_action)",
                to: ".for_each(drop)",
                says: "no signal is ignored because our caller ignored it",
            },
            Mutant {
                what: "real-time signals are forgotten",
                from: "(1..=64)",
                to: "(1..=31)",
                says: "no signal is ignored because our caller ignored it",
            },
            Mutant {
                what: "those that we need ignored are not spared",
                from: "!ours.contains(number)",
                to: "ours.len() > 0 && *number > 0",
                says: "SIGPIPE and SIGXFSZ stay ignored",
            },
            Mutant {
                what: "the caller's keys are kept",
                from: "security::new_session_keyring()",
                to: "Ok(())",
                says: "its session keyring is a new one",
            },
            Mutant {
                what: "still in the caller's session",
                from: "setsid().context(\"cannot start a session\")?;",
                to: "",
                says: "it leads a session of its own",
            },
            Mutant {
                what: "others can look in",
                from: "close_to_others()?;",
                to: "",
                says: "the container's processes cannot look into this one",
            },
        ],
    },
    Exercise {
        id: "6.3",
        title: "Privileges are given up last, and for good",
        minutes: 20,
        start: Start::Blank,
        task: "All that comes before took privileges: mounts, networks, namespaces. Now the process \
               gives up what the program must not have: its resource limits are set; it joins the \
               user's groups and leaves the caller's; all capabilities but those of the list leave the \
               bounding set, which limits what a later exec can gain; it becomes the user; it gives up \
               all capabilities but those of the list; no_new_privs is set; and last, if there is \
               one, the filter of system calls is applied. Why is this the order in which each step \
               still has what it needs? And where no_new_privs is not to be set: when must the filter \
               come then?",
        hints: [
            "Ask of each step what it takes. setgroups(2), the bounding set and setresuid(2) take a \
             capability each, who is not root any more has none, and the filter takes away system \
             calls, perhaps those of the steps before.",
            "nix has setrlimit, `user` has join_groups and switch, `security` has the rest; \
             `self.rlimits` is a list of (resource, soft, hard). Setting one gets a context() that names \
             what could not be done.",
            "Limits, groups, limit_bounding_set, switch, limit_capabilities, no_new_privileges, and the \
             filter as the very last: it is an Option, and Filters::apply takes a reference. Without \
             no_new_privs it takes CAP_SYS_ADMIN, so then it comes before the bounding set.",
        ],
        mutants: &[
            Mutant {
                what: "a set-user-ID program gets everything back",
                from: "security::no_new_privileges()?;",
                to: "",
                says: "a set-user-ID program gains nothing",
            },
            Mutant {
                what: "the filter comes before what it forbids",
                from: "security::limit_capabilities(&self.capabilities)?;",
                to: "filter()?;\n        security::limit_capabilities(&self.capabilities)?;",
                says: "every step of giving up succeeds",
            },
            Mutant {
                what: "the user comes before what takes root",
                from: "security::limit_bounding_set(&self.capabilities)?;\n        user.switch()?;",
                to: "user.switch()?;\n        security::limit_bounding_set(&self.capabilities)?;",
                says: "every step of giving up succeeds",
            },
            Mutant {
                what: "the user stays root",
                from: "user.switch()?;",
                to: "",
                says: "it is the user that it is to be",
            },
            Mutant {
                what: "no limit is set",
                from: "setrlimit(resource, soft, hard)",
                to: "Ok::<(), nix::errno::Errno>(())",
                says: "the limits are those of the list",
            },
            Mutant {
                what: "the bounding set is kept",
                from: "security::limit_bounding_set(&self.capabilities)?;",
                to: "",
                says: "no exec gets more than the three that it keeps",
            },
            Mutant {
                what: "what is inherited is kept",
                from: "security::limit_capabilities(&self.capabilities)?;",
                to: "",
                says: "nothing is inherited",
            },
            Mutant {
                what: "the caller's groups are kept",
                from: "user.join_groups()?;",
                to: "",
                says: "it is in no group of the caller's",
            },
            Mutant {
                what: "no filter at all",
                from: "self.seccomp.as_ref().map_or(Ok(()), Filters::apply)",
                to: "Ok::<(), anyhow::Error>(())",
                says: "system calls are filtered, if there is a filter",
            },
            Mutant {
                what: "no filter where a program may gain privileges",
                from: "if !self.no_new_privileges {\n            filter()?;\n        }",
                to: "",
                says: "system calls are filtered, if there is a filter",
            },
        ],
    },
];

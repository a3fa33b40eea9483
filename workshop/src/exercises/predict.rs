//! Predict, then run: a question for each step, whose answer is not written down here. The lab finds
//! it, on the learner's own kernel.

use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

use super::learner::programs;

/// A question, and the experiment that answers it.
#[derive(Debug)]
pub struct Question {
    /// The step that it goes with.
    pub step: usize,
    /// The question.
    pub text: &'static str,
    /// The answers to choose from.
    pub options: [&'static str; 3],
    /// A script for sh(1) in the lab, with our programs on its PATH. Its last line of output is the
    /// right option's letter.
    pub experiment: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Whether it takes a cgroup of one's own.
    pub needs_cgroup: bool,
}

/// All of them, in the order of the steps.
pub const QUESTIONS: [Question; 5] = [
    Question {
        step: 1,
        text: "A shell in a new PID namespace is process 1. It counts the directories /proc/1, \
               /proc/2, ... How many does it find?",
        options: ["as many as the host has", "one: itself", "none"],
        experiment: "count='ls -d /proc/[0-9]* | wc -l'
            host=$(sh -c \"$count\"); inside=$(step01-namespaces sh -c \"$count\")
            echo \"on the host $host, inside $inside\"
            case $inside in 0) echo c;; 1) echo b;; *) echo a;; esac",
        meaning: "A PID namespace gives new numbers, and hides nothing: /proc is a mount, and this \
                  one was made in the host's namespace. It takes a new /proc, and that is step 3.",
        needs_cgroup: false,
    },
    Question {
        step: 2,
        text: "A container may use 20 MiB of memory. A program in it reads a file of 60 MiB, from \
               beginning to end. What happens?",
        options: ["it is killed", "it reads to the end", "read(2) fails: out of memory"],
        experiment: "cd \"$XDG_RUNTIME_DIR\" && file=${TMPDIR:-/var/tmp}/workshop-predict-$$
            head -c 62914560 /dev/zero >\"$file\" && sync \"$file\"
            dd if=\"$file\" iflag=nocache count=0 2>/dev/null # out of the page cache: it is charged once
            step02-cgroups --memory 20m sh -c \"cat '$file' | wc -c\"; status=$?
            rm \"$file\"; echo \"exit status $status\"
            case $status in 0) echo b;; 137) echo a;; *) echo c;; esac",
        meaning: "What is read stays in the page cache, and that counts; but the kernel can drop \
                  such pages when the limit is near. Memory that a program has written to, it cannot.",
        needs_cgroup: true,
    },
    Question {
        step: 3,
        text: "A program in a container mounts a tmpfs on /mnt, and a second container is started \
               from the same image. What does /mnt look like in the second?",
        options: ["as in the image", "the first one's tmpfs", "nothing can be mounted there"],
        experiment: "cd \"$XDG_RUNTIME_DIR\" || exit
            one='mount -t tmpfs t /mnt && echo mounted && touch /mnt/first && echo >/tell/go; sleep 1'
            mkdir tell && mkfifo tell/go
            step03-rootfs -v \"$PWD/tell:/tell\" sh -c \"$one\" & read -r go <tell/go
            step03-rootfs sh -c 'ls -A /mnt' >seen; wait; cat seen
            if [ -s seen ]; then echo b; else echo a; fi
            rm -r tell seen",
        meaning: "Each container has a mount namespace, and an overlay of its own over the image. The \
                  two share the image's files, and neither sees the other's mounts.",
        needs_cgroup: false,
    },
    Question {
        step: 4,
        text: "A container on the bridge of step 4 (an address, a default route, no NAT yet) asks a \
               web server on the internet for a page. What happens?",
        options: [
            "an error at once: network unreachable",
            "the page comes",
            "nothing: no answer, until it gives up",
        ],
        experiment: "step04-bridge-veth -v \"$WORKSHOP_PROBE:/probe:ro\" /probe @get 198.51.100.1:80 |
                tee \"$XDG_RUNTIME_DIR/seen\"
            case $(cat \"$XDG_RUNTIME_DIR/seen\") in
                *nreachable*) echo a;; *'timed out'*) echo c;; *) echo b;; esac
            rm \"$XDG_RUNTIME_DIR/seen\"",
        meaning: "The container has a route, so it may send. The host does not forward what is not \
                  for itself (ip_forward is 0), and drops it without a word; and if it did, the server \
                  would not know the way back to 10.77.0.2. Step 5 mends both.",
        needs_cgroup: false,
    },
    Question {
        step: 5,
        text: "Two containers on the host's network (--net host) both want to listen on port 8000. \
               What happens?",
        options: ["both get it", "the second takes it from the first", "the second is refused"],
        experiment: "run='final run --rm --net host -v '\"$WORKSHOP_PROBE:/probe:ro\"
            cd \"$XDG_RUNTIME_DIR\" || exit
            $run --name first host /probe @serve 127.0.0.1:8000 >first & # says ready when it listens
            until grep -qs ready first; do sleep 0.1; done
            timeout -k 1 5 $run --name second host /probe @serve 127.0.0.1:8000; status=$?
            until final kill first 2>/dev/null; do sleep 0.1; done # a PID 1 like this ignores SIGTERM
            wait; rm first; echo \"the second one's exit status: $status\"
            case $status in 1) echo c;; 124|137) echo a;; *) echo b;; esac",
        meaning: "One network stack, one set of ports: a container with --net host competes with the \
                  host's own programs and with every other such container. With a network namespace each \
                  has all 65535 ports for itself.",
        needs_cgroup: false,
    },
];

/// Asks, runs, and tells. The status is 1 if it was another letter.
pub fn run(step: usize, answer: Option<String>) -> Result<u8> {
    let question = QUESTIONS.iter().find(|question| question.step == step);
    let question = question.context("there is a question for each of the steps 1 to 5")?;
    ensure!(
        !question.needs_cgroup || geteuid().is_root(),
        "the experiment of this question takes a cgroup of its own, so run it as root"
    );
    programs()?; // before the question, as it takes a minute where they are not built
    println!("{}\n", question.text);
    for (letter, option) in ["a", "b", "c"].iter().zip(question.options) {
        println!("  {letter}) {option}");
    }
    let answer = answer.map_or_else(ask, Ok)?;
    ensure!(["a", "b", "c"].contains(&&*answer), "{answer:?} is none of a, b, c");
    let right = experiment(question)?;
    println!(
        "\n{}\n\n{}",
        if right == answer { "As you said.".into() } else { format!("It is {right}.") },
        question.meaning
    );
    Ok(u8::from(right != answer))
}

fn ask() -> Result<String> {
    print!("\nYour prediction: ");
    stdout().flush()?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line).context("cannot read your answer")?;
    Ok(line.trim().to_lowercase())
}

/// Runs the experiment in a lab, shows what it writes, and returns the letter that it ends with.
pub fn experiment(question: &Question) -> Result<String> {
    let programs = programs()?;
    let workshop = programs.join("workshop");
    let output = Command::new(&workshop)
        .args(["lab", "--", "sh", "-c", question.experiment])
        .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display()))
        .env("WORKSHOP_PROBE", &workshop)
        .output()
        .context("cannot open a lab")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    print!("\nThe lab says:\n{}", indented(&errors));
    let Some((shown, letter)) = text.trim_end().rsplit_once('\n') else {
        bail!("the experiment failed: {text}{errors}")
    };
    print!("{}", indented(shown));
    Ok(letter.to_owned())
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["  | ", line, "\n"]).collect()
}

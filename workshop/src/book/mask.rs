//! What may be different each time: process numbers, times, addresses by chance.
//!
//! Two outputs are the same if they are so after every rule below was applied to both. Runs of
//! blanks count as one blank, since columns are as wide as what is in them. A line `...` on a page
//! stands for any number of lines.

use std::sync::LazyLock;

use regex_lite::Regex;

/// A pattern, and what takes its place in what is compared.
const RULES: &[(&str, &str)] = &[
    // A namespace's inode number: net:[4026531840]
    (r"\b(cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]", "$1:[INODE]"),
    // The kernel picks the MAC addresses of veth pairs, and sets this bit in them (the second
    // digit is 2, 6, a or e). Ours begin with 02:42, and are the same each time.
    (
        r"\b(?:(?:[1-9a-f][26ae]|0[6ae]):[0-9a-f]{2}|02:(?:[0-35-9a-f][0-9a-f]|4[013-9a-f]))(?::[0-9a-f]{2}){4}\b",
        "MAC",
    ),
    // The addresses that the kernel makes from those.
    (r"\bfe80::[0-9a-f:]+", "LINK-LOCAL"),
    // The number of a link in another network namespace.
    (r"@if\d+", "@ifN"),
    // A container's number, and the host name made from it.
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\bcontainer-workshop-\d+", "container-workshop-PID"),
    // ps: process numbers, but a container's first process is 1; the terminal; the time used.
    (r"^ *(?:\d{2,}|[2-9]) +(?:\?|pts/\d+) +\d\d:\d\d:\d\d", "PID TTY TIME"),
    (r"^ *1 +(?:\?|pts/\d+) +\d\d:\d\d:\d\d", "1 TTY TIME"),
    // pgrep -a, and grep over cgroup.procs
    (r"^\d+ (sleep|sh|bash)\b", "PID $1"),
    (r"\bcgroup\.procs:\d+", "cgroup.procs:PID"),
    // tcpdump's time of day, and the number of a ping program
    (r"\b\d\d:\d\d:\d\d\.\d{6}\b", "TIME"),
    (r"ICMP echo (request|reply), id \d+", "ICMP echo $1, id N"),
    // ping's round-trip times
    (r"\btime[= ][\d.]+ ?ms", "time=N ms"),
    (r"(rtt min/avg/max/mdev =) [\d./]+ ms", "$1 N ms"),
    (r"\bafter \d+ milliseconds", "after N milliseconds"),
    // The shell's `times`
    (r"\b\d+m\d+\.\d+s\b", "NmNs"),
    // overlayfs shows by which descriptor its layers were opened.
    (r"/proc/self/fd/\d+", "/proc/self/fd/N"),
    // The kernel tells the state of the lab's new link a little late.
    (r"^(uplink@if\S+ +)(?:UP|UNKNOWN|DOWN)\b", "${1}STATE"),
    // ls -l, and ps of a container
    (r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b", "DATE"),
    (r"(?:About a|Less than a|\d+) (?:second|minute)s?\b", "N seconds"),
    // How many processors there are
    (r"\bthis host has \d+", "this host has N"),
    // Bytes in use
    (r"\bmemory\.(current|peak):\d+", "memory.$1:N"),
    // The version of the container's shell
    (r"^bash-\d\.\d+([#$])", "bash$1"),
];

/// Lines that are not shown: what the shell says about its jobs, at a time of its own.
const NOT_SHOWN: &str = r"^\[\d+\][+-]? ";

/// Whether a line is left out of the pages.
pub fn not_shown(line: &str) -> bool {
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(NOT_SHOWN).expect("a pattern"));
    PATTERN.is_match(line)
}

/// The line, with a mask over all that may be different.
pub fn masked(line: &str) -> String {
    static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        RULES.iter().map(|&(rule, mask)| (Regex::new(rule).expect("a pattern"), mask)).collect()
    });
    let line = PATTERNS.iter().fold(line.to_owned(), |line, (pattern, mask)| {
        pattern.replace_all(&line, *mask).into_owned()
    });
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether what a page shows is what came.
pub fn same(shown: &[String], came: &[String]) -> bool {
    match shown.split_first() {
        None => came.is_empty(),
        Some((line, rest)) if line == "..." => {
            (0..=came.len()).any(|skipped| same(rest, &came[skipped..]))
        }
        Some((line, rest)) => came
            .split_first()
            .is_some_and(|(other, others)| masked(line) == masked(other) && same(rest, others)),
    }
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn mac_addresses_by_chance_are_masked_and_ours_are_not() {
        for by_chance in ["5a:2a:e3:be:8e:1c", "06:42:0a:4d:00:01", "02:0c:ef:d8:d5:10"] {
            assert_eq!(masked(by_chance), "MAC");
        }
        for ours in ["02:42:0a:4d:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert_eq!(masked(ours), ours);
        }
    }
}

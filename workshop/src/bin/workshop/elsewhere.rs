//! What the tool says on a system that is not Linux: all that there is of this crate then.

/// Where to get Linux on the system `os`, named as in [`std::env::consts::OS`].
#[must_use]
pub fn advice(os: &str) -> String {
    let (name, fix) = match os {
        "macos" => (
            "macOS",
            "Lima, a Linux in a virtual machine:\n\n    \
             brew install lima\n    \
             limactl start\n    \
             lima",
        ),
        "windows" => (
            "Windows",
            "WSL 2, a Linux in a virtual machine (the first line as administrator; then restart):\n\n    \
             wsl --install\n    \
             wsl --update\n    \
             wsl",
        ),
        other => (other, "a virtual machine with Linux 5.12 or later"),
    };
    format!(
        "error: this is {name}, and containers are made of namespaces and cgroups, which only Linux has\n\
         fix: {fix}\n\n\
         Go on in its shell, in its own home directory (cd ~): install Rust (https://rustup.rs) and a C \
         linker (sudo apt install build-essential), clone the workshop there, and run: \
         cargo workshop doctor"
    )
}

#[cfg(test)]
mod tests {
    use super::advice;

    #[test]
    fn each_system_is_told_its_own_way() {
        for (os, fix) in [
            ("macos", "    brew install lima\n    limactl start\n    lima\n"),
            ("windows", "    wsl --install\n"),
            ("freebsd", "virtual machine with Linux 5.12"),
        ] {
            let text = advice(os);
            assert!(text.contains(fix) && text.contains("cargo workshop doctor"), "{text}");
        }
    }
}

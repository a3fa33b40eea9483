//! Step 3: the root file system.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "3.1",
        title: "A layer that takes what is written",
        minutes: 15,
        start: Start::Blank,
        task: "An image is a directory, and ten containers may share it, so none may write to it. \
               An overlay shows the image with a layer above it: reads fall through, writes stay in \
               the layer. Make one of `lower`, `upper` and `work`, attached to nothing yet. \
               (Mount::new takes a type, a place and options; `open` makes the mount.)",
        hints: [
            "By hand it is: mount -t overlay -o lowerdir=L,upperdir=U,workdir=W overlay PLACE. The \
             options go into `overlay.options`, one string for each.",
            "A path could have a comma in it, and `lower` may be covered by another mount by now: \
             its proc_path() is a way to it that needs no path. The place is \"/\", the first option \
             \"nodev\".",
            "In a user namespace the kernel refuses the attributes in which overlayfs notes what is \
             deleted, unless one more option, userxattr, puts them where anybody may write. \
             in_user_namespace() tells.",
        ],
        mutants: &[
            Mutant {
                what: "the image itself takes the writes",
                from: "format!(\"upperdir={}\", upper.display()),",
                to: "format!(\"upperdir={}\", lower.proc_path().display()),",
                says: "look at: the options of `mount -t overlay`",
            },
            Mutant {
                what: "one directory for both",
                from: "format!(\"workdir={}\", work.display()),",
                to: "format!(\"workdir={}\", upper.display()),",
                says: "an overlay of the three directories",
            },
        ],
    },
    Exercise {
        id: "3.2",
        title: "Changing the root, for good",
        minutes: 20,
        start: Start::Blank,
        task: "chroot(2) changes where / begins for one process, and root leaves it with four \
               lines of C. pivot_root(2) changes what is mounted at the root of the whole mount \
               namespace, and then the old tree can be unmounted: what is not there cannot be \
               reached. Put the overlay in its place on `new_root`, make it the root, and let go of \
               the host's tree. Try first what the kernel says to a plain directory as new root.",
        hints: [
            "`attach` puts a mount on a directory (Root::open opens one). pivot_root(2) says what \
             EINVAL and EBUSY mean: new_root has to be a mount point, and another than the root.",
            "Where does the old root go? Its Notes have a trick that needs no directory for it: \
             go to the new root, and pass \".\" twice. Then the old root lies on top of the new one.",
            "Five calls: attach, chdir, pivot_root, umount2 of \".\" with MNT_DETACH (something of the \
             host is always in use), and chdir to \"/\".",
        ],
        mutants: &[
            Mutant {
                what: "the host's tree stays mounted",
                from: "umount2(\".\", MntFlags::MNT_DETACH).context(\"cannot let go of the host's tree\")?;",
                to: "",
                says: "the new root file system is all that this mount namespace has",
            },
            Mutant {
                what: "EBUSY: a plain directory is no new root",
                from: "attach(overlay, &Root::open(new_root)?, new_root)?;",
                to: "",
                says: "cannot make it the root (pivot_root)",
            },
            Mutant {
                what: "chroot instead of pivot_root",
                from: "pivot_root(\".\", \".\").context(\"cannot make it the root (pivot_root)\")?;",
                to: "nix::unistd::chroot(\".\").context(\"cannot chroot\")?;",
                says: "look at: pivot_root(2)",
            },
        ],
    },
    Exercise {
        id: "3.3",
        title: "Masked paths",
        minutes: 10,
        start: Start::Blank,
        task: "/proc and /sys have files that are about the whole machine: /proc/kcore is its \
               memory, /proc/keys its keys. A bind mount hides what is below it. Cover `place`, \
               which is a file or a directory, so that it looks empty and takes nothing.",
        hints: [
            "docker covers a file with /dev/null, and a directory with an empty tmpfs that is \
             mounted read-only. is_directory tells which one it is.",
            "sys::open_tree_at makes a bind mount of an open file, attached to nothing; `null` is \
             /dev/null, open. Mount::new(...).open() makes the tmpfs.",
            "The options of the tmpfs: ro, and as nothing is to be run or opened there, nosuid, \
             nodev, noexec. `attach` puts either into the place.",
        ],
        mutants: &[
            Mutant {
                what: "/dev/null over a directory",
                from: "is_directory(place.as_fd())",
                to: "false",
                says: "is covered",
            },
            Mutant {
                what: "a cover that can be written to",
                from: "\"ro,nosuid,nodev,noexec\"",
                to: "\"nosuid,nodev,noexec\"",
                says: "nothing can be written into a masked directory",
            },
        ],
    },
    Exercise {
        id: "3.4",
        title: "An image is not to be trusted",
        minutes: 15,
        start: Start::Repair,
        task: "The image's /etc may be a symbolic link to the host's /etc, or to ../../etc. Who \
               mounts something \"at /etc in the image\" by its path mounts it on the host. \
               Somebody knew that, and forbade it; but in many honest images /bin is a link to \
               /usr/bin, and now they do not start. Repair it: links are to lead where they would \
               lead a process in the container.",
        hints: [
            "openat2(2) has a field `resolve` with a handful of flags. One refuses to leave the \
             directory, and one takes the directory as the root.",
            "RESOLVE_BENEATH gives EXDEV at every absolute link. Which flag resolves these as after \
             a chroot?",
            "RESOLVE_IN_ROOT; and RESOLVE_NO_MAGICLINKS stays, for links like /proc/self/fd/3, \
             which lead to an open file and not along a path.",
        ],
        mutants: &[
            Mutant {
                what: "links that leave are refused, not resolved inside",
                from: "ResolveFlag::RESOLVE_IN_ROOT |",
                to: "ResolveFlag::RESOLVE_BENEATH |",
                says: "looked up in the image: it was found",
            },
            Mutant {
                what: "no flag: the host's files",
                from: "ResolveFlag::RESOLVE_IN_ROOT |",
                to: "",
                says: "looked up in the image",
            },
        ],
    },
];

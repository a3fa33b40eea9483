//! Four faults of limits, signals and mounts.

use super::{Drill, PLAIN};

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "memory-too-low",
        title: "A job is killed",
        ticket: r#"
            From a developer: "web was started with --memory 128M. Its report takes 48 MiB, and is
            killed every time since today: `final exec web /probe @eat 48; echo $?` says 137. web
            itself must go on running.""#,
        limits: true,
        up: "serve --name web -p 8080:80 --memory 128M",
        fault: r#"
group=container-workshop-$(final ps -q)
limit=$(find /sys/fs/cgroup -path "*/$group/memory.max" -o -path "*/$group/memory.limit_in_bytes")
echo 16M >"$limit""#,
        symptom: r#"
answer=$(final exec web /probe @eat 48) || { echo "the report ended with status $?"; exit 1; }"#,
        hints: [
            r"137 is 128 + 9: something has sent SIGKILL. Nobody did by hand, so ask the kernel: who
            kills, and why? (`dmesg | tail`, if you may.)",
            r"`cat /proc/$(pid web)/cgroup` names the container's groups, below /sys/fs/cgroup
            (version 1: below /sys/fs/cgroup/memory). How much memory may that group have?",
            r"The file is memory.max (version 1: memory.limit_in_bytes). What was ordered is 128M, and
            no more.",
        ],
        answer: r"
            Somebody has lowered the group's limit to 16 MiB. When a group is at its limit and
            nothing can be reclaimed, the kernel kills one of its processes, the biggest. So the
            limit has to be what was ordered again. No limit at all would also end the complaints;
            but with the next leak in web the whole machine would run out of memory.",
        repair: r#"group=container-workshop-$(final ps -q)
limit=$(find /sys/fs/cgroup -path "*/$group/memory.max" -o -path "*/$group/memory.limit_in_bytes")
echo 128M >"$limit""#,
        wrong: &[(
            r#"group=container-workshop-$(final ps -q)
for file in memory.memsw.limit_in_bytes memory.limit_in_bytes memory.max; do
    for limit in $(find /sys/fs/cgroup -path "*/$group/$file"); do echo 8G >$limit; done
done"#,
            "- web: limit memory.",
        )],
        ..PLAIN
    },
    Drill {
        name: "sigterm-ignored",
        title: "Every deployment takes three seconds too long",
        ticket: r#"
            From the customers: "At each of your deployments my running request is cut off."

            From a developer: "/run/web/deploy ends web with SIGTERM, but web does not end; after
            three seconds comes SIGKILL. deploy is the company's, leave it alone. web's own is
            /run/web/start.""#,
        up: r#"
mkdir /run/web
cat >/run/web/start <<'END'
#!/bin/sh
trap 'exit 0' TERM
/probe @serve 0.0.0.0:80 &
wait
END
cat >/run/web/deploy <<'END'
#!/bin/sh
# Ends web, and starts it again. Says how the old one ended.
running() { final ps $1 | grep -q ' web$'; }
if running; then
    final kill -s TERM web >/dev/null
    end=$(($(date +%s) + 3))
    while running && [ "$(date +%s)" -lt $end ]; do sleep 0.1; done
    if running; then final kill web >/dev/null; how='had to be killed'; fi
    while running -a; do sleep 0.1; done
    echo "web ${how:-ended}"
fi
final run --rm --name web -p 8080:80 -v "$PROBE:/probe:ro" -v /run/web:/web:ro host \
    sh /web/start >/dev/null 2>>/run/drill/log &
until final exec web true 2>/dev/null; do sleep 0.1; done
until probe @get 10.77.0.2:80 | grep -q hello; do sleep 0.1; done
END
chmod +x /run/web/start /run/web/deploy
/run/web/deploy"#,
        fault: "
cat >/run/web/start <<'END'
#!/bin/sh
/probe @serve 0.0.0.0:80
exit $?
END
/run/web/deploy",
        symptom: r#"
answer=$(timeout 60 /run/web/deploy)
case $answer in 'web ended') ;; *) echo "/run/web/deploy says: ${answer:-nothing}"; exit 1 ;; esac"#,
        touches: &["file /run/web/start"],
        restarts: true,
        hints: [
            r"Who gets the signal? Only the container's first process: `ps -fp $(pid web)`. What does
            it do with SIGTERM? SigCgt and SigIgn in /proc/$(pid web)/status are bit masks; SIGTERM
            is bit 15 from the right, 0x4000.",
            r"Neither caught nor ignored. For every other process that means: SIGTERM ends it. But not
            for the first process of a PID namespace: the kernel drops signals that it has no
            handler for. (pid_namespaces(7).) So `exec /probe ...` in /run/web/start does not help:
            probe has no handler either.",
            r"The shell can have a handler: trap. But it runs only when the shell is not waiting for a
            program in the foreground. Then /run/web/deploy twice: the first one still ends the old
            web.",
        ],
        answer: r"
            web's first process is a shell that waits for the server in the foreground and has no
            handler for SIGTERM. The kernel drops signals without a handler for the first process of
            a PID namespace, so that a container is not ended by accident; only SIGKILL from outside
            comes through. With a trap, and the server in the background, SIGTERM ends the shell,
            and with it all of the container. (An init program, Docker's --init, does the same: it
            has handlers, and passes signals on.) To make deploy more impatient would cut off the
            requests even sooner.",
        repair: "cat >/run/web/start <<'END'
#!/bin/sh
trap 'exit 0' TERM
/probe @serve 0.0.0.0:80 &
wait
END
/run/web/deploy",
        wrong: &[
            (
                r"printf '#!/bin/sh\nexec /probe @serve 0.0.0.0:80\n' >/run/web/start
/run/web/deploy",
                "Not repaired. /run/web/deploy says: web had to be killed",
            ),
            ("sed -i 's/kill -s TERM/kill -s KILL/' /run/web/deploy", "- file /run/web/deploy"),
        ],
        ..PLAIN
    },
    Drill {
        name: "leaked-mount",
        title: "A disk that nothing uses is busy",
        ticket: r#"
            From the storage team: "We need the disk /run/disk back, but `umount /run/disk` says
            that the target is busy, and no process has anything open there. Please unmount it.
            /run/archive stays, and so does web."

            From a developer: "My backup container used it, but that has ended.""#,
        up: "
serve --name web -p 8080:80
mkdir /run/disk /run/archive
mount -t tmpfs archive /run/archive",
        fault: "
mount -t tmpfs disk /run/disk
mount --make-shared /run/disk
mkdir /run/disk/cache
unshare --mount --propagation unchanged mount -t tmpfs cache /run/disk/cache",
        symptom: r#"
if left=$(grep -h ' - tmpfs disk ' /proc/[0-9]*/mountinfo); then
    echo "the disk is mounted still: $(echo "$left" | head -n 1)"
    exit 1
fi"#,
        hints: [
            "A file system is busy also if something is mounted on a directory of it.",
            r"`findmnt -R /run/disk`, or /proc/self/mountinfo: what is mounted there, and who has
            mounted it? The word `shared:N` is a hint how it came here.",
            r"The backup container's tmpfs on /run/disk/cache was propagated to this host, because
            /run/disk is a shared mount. The container's copy went with its mount namespace; this
            one did not.",
        ],
        answer: r"
            /run/disk is a shared mount (mount_namespaces(7)), and the backup container's mount
            namespace was a copy in the same peer group: what was mounted inside appeared outside,
            too. When the container ended, its own mounts went with its namespace; the host's copy
            stayed. Unmount from the top down, and only that. `final` cannot leak like this: it
            makes all mounts of a container private before it mounts anything.",
        repair: "umount /run/disk/cache
umount /run/disk",
        wrong: &[(
            "umount -l $(grep -o ' /run/[ad][^ ]*' /proc/self/mountinfo | sort -r)",
            "- mount /run/archive",
        )],
        ..PLAIN
    },
    Drill {
        name: "pids-full",
        title: "Cannot fork",
        ticket: r#"
            From a developer: "web was started with --pids-limit 24, which was always enough. Since
            last night's job nothing can be started in it: `final exec web sh -c 'ls | wc -l'` says
            `Cannot fork` (or bash: `Resource temporarily unavailable`). Clients are connected, so
            web must go on running.""#,
        limits: true,
        up: "serve --name web -p 8080:80 --pids-limit 24",
        fault: "
final exec web sh -c 'i=0; while [ $i -lt 21 ]; do sleep 100000 & i=$((i + 1)); done' \\
    >/dev/null 2>&1",
        symptom: r#"
answer=$(final exec web /probe @forks 8 2>&1)
case $answer in 'no limit'*) ;; *)
    echo "a program that starts eight processes in web: $answer"
    exit 1 ;;
esac"#,
        hints: [
            r"fork fails with EAGAIN when a limit on processes is reached. The container's group has
            one: pids.max, and pids.current says how many there are.",
            r"Which are they? `final ps` does not tell, but `ps -e --forest` on the host does, or the
            file cgroup.procs in the group's directory.",
            r"The night's job has left its `sleep`s behind. They are processes of this host as well:
            kill them from here, by their numbers.",
        ],
        answer: r"
            Twenty-one forgotten processes fill the group. When their parent ended they became
            children of the container's first process, and live on. Inside, nothing can be started
            to clean up; but the host sees them, too, under other numbers. The limit did what it is
            there for: it kept a leak in one container from filling the machine's process table. A
            higher one would be full again soon.",
        repair: r#"limit=$(find /sys/fs/cgroup -path "*/container-workshop-$(final ps -q)/pids.max")
for pid in $(cat "$(dirname "$limit")/cgroup.procs"); do
    if [ "$(cat /proc/$pid/comm)" = sleep ]; then kill $pid; fi
done"#,
        wrong: &[
            (
                r#"limit=$(find /sys/fs/cgroup -path "*/container-workshop-$(final ps -q)/pids.max")
echo max >"$limit""#,
                "+ web: limit pids.max = max",
            ),
            ("final rm -f web", "Not repaired."),
        ],
        ..PLAIN
    },
];

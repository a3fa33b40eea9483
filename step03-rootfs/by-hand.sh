#!/bin/bash
# Step 3 by hand: in a root file system of its own. In a lab:  bash step03-rootfs/by-hand.sh bash
# What is new:  diff step02-cgroups/by-hand.sh step03-rootfs/by-hand.sh
# Needs: bash setpriv unshare hostname awk mount umount findmnt nsenter pivot_root
set -eu
PATH=$PATH:/usr/sbin:/sbin # for a plain user, who has no use for pivot_root outside
name=container user='' memory='' cpus='' pids='' cpuset='' rootfs=host volumes=() workdir=/
[ "$(id -u)" = 0 ] || user=--map-root-user # only root makes the other namespaces without it
while [[ ${1-} = -* ]]; do
    case $1 in
    --user) user=--map-root-user && shift && continue ;;
    --hostname) name=$2 ;;
    --memory) memory=$2 ;;
    --cpus) cpus=$(awk "BEGIN { print $2 * 100000 }") ;; # of a period of 100000 microseconds
    --pids) pids=$2 ;;
    --cpuset) cpuset=$2 ;;
    --rootfs) rootfs=$2 && [ "$2" = host ] || rootfs=$(realpath -e "$2") ;;
    --volume | -v) volumes+=("$(realpath -e "${2%%:*}"):${2#*:}") ;;
    --workdir | -w) workdir=$2 ;;
    *) echo "unknown option $1" >&2 && exit 125 ;;
    esac
    shift 2
done

# The parent's side. What it makes on the host is undone in the reverse order.
undo=()
trap 'for ((i = ${#undo[@]}; i-- > 0; )); do eval "${undo[i]}" || :; done' EXIT
trap : INT TERM HUP # they are for the program: we wait for its end

# A cgroup (cgroup.rs, create): mkdir makes one, and a limit is a number in one of its files (settings.rs).
groups=()
make() { groups+=("$(mktemp -d "$1/by-hand-XXXXXX")") && undo+=("rmdir '${groups[-1]}'"); }
limit() { for group in "${groups[@]}"; do [ ! -e "$group/$1" ] || echo "$2" >"$group/$1"; done; }
if [ -w /sys/fs/cgroup/cgroup.subtree_control ]; then # version 2: one tree for all controllers
    make /sys/fs/cgroup
    echo +memory +cpu +pids +cpuset >/sys/fs/cgroup/cgroup.subtree_control # for the groups in it
    limit memory.max "${memory:-max}"
    [ -z "$memory" ] || limit memory.swap.max 0
    limit cpu.max "${cpus:-max} 100000"
    limit pids.max "${pids:-max}"
    limit cpuset.cpus "$cpuset"
elif [ -w /sys/fs/cgroup/memory ]; then # version 1: a tree for each
    for controller in memory cpu pids cpuset; do # in each, below the group that we are in
        own=$(sed -nE "s/^[0-9]+:([^:]*,)?$controller(,[^:]*)?://p" /proc/self/cgroup)
        make "/sys/fs/cgroup/$controller$own"
    done
    limit memory.limit_in_bytes "${memory:--1}"
    limit memory.memsw.limit_in_bytes "${memory:--1}" # memory and swap together
    limit cpu.cfs_quota_us "${cpus:--1}"
    limit pids.max "${pids:-max}"
    limit cpuset.mems "$(cat "${groups[3]%/*}/cpuset.mems")" # without them it takes no process
    limit cpuset.cpus "${cpuset:-$(cat "${groups[3]%/*}/cpuset.cpus")}"
elif [ "$memory$cpus$pids$cpuset" ]; then
    echo "limits take root" >&2 && exit 125
fi

# The child's side, in the new namespaces. First of all into the cgroup, or it would not count what
# follows (cgroup.rs, join). Then the cgroup namespace: its root is the group of who makes it.
join() {
    for group in "${groups[@]}"; do echo 0 >"$group/cgroup.procs"; done
    exec unshare --cgroup "$@"
}
join=(bash -euc "$(declare -p groups; declare -f join); join \"\$@\"" join)
child() {
    hostname "$name" # namespace.rs, set_up
    enter
    cd "$workdir"
    exec "$@"
}

# The root file system (rootfs.rs, enter): everything below /tmp/root, and then the pivot. /mnt is the
# host's tree once more, as it is before a tmpfs for what the container writes covers /tmp.
enter() {
    umask 022
    mount() { command mount --no-mtab "$@"; } # or it would make /run/mount on the host
    mount --rbind / /mnt
    mount -t tmpfs -o mode=755 none /tmp
    cd /tmp && mkdir root
    read -r _ _ ids </proc/self/uid_map && [ "$ids" = 4294967295 ] || xattr=userxattr, # in a user namespace
    if [ "$rootfs" = host ]; then
        mkdir skeleton && (cd skeleton && skeleton)
        overlay skeleton root
        overlay /mnt/usr root/usr
        for path in /etc/alternatives /etc/ld.so.cache; do # they belong to /usr
            [ ! -e "$path" ] || volumes=("$path:$path:ro" "${volumes[@]}")
        done
    else
        mkdir image && mount --rbind "/mnt$rootfs" image # its path may have a colon or a comma
        overlay image root
    fi
    for place in /proc /sys /dev; do place "$place" && mkdir -p "root$place"; done
    mount -t proc -o nosuid,nodev,noexec none root/proc
    mount -t sysfs -o ro,nosuid,nodev,noexec none root/sys
    [ ! -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 -o ro,nosuid,nodev,noexec none root/sys/fs/cgroup
    mount -t tmpfs -o nosuid,nodev,strictatime,mode=755,size=64m none root/dev
    devices
    for volume in "${volumes[@]}"; do
        IFS=: read -r source destination mode <<<"$volume"
        volume "$source" "$destination" "$mode"
    done
    hide
    place "$workdir" && mkdir -p "root$workdir"

    # pivot_root exchanges the root also of this shell, and then no tool of the host is at its place. So
    # it is called by a shell that has its root at /mnt; and this one lets go of the old root.
    nsenter --root=/mnt --wd=root bash -euc 'nsenter --root=/proc/self/fd/3 --wd=. pivot_root . .
        umount --lazy --no-mtab --no-canonicalize .' 3</
}

# What is around /usr in the image `host` (image.rs, write_skeleton).
skeleton() {
    mkdir dev etc home mnt opt proc run srv sys usr var && mkdir -m 700 root && mkdir -m 1777 tmp var/tmp
    ln -s /run var/run
    for link in bin sbin lib lib32 lib64 libx32; do [ ! -L "/$link" ] || cp -P "/$link" .; done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/usr/sbin/nologin >etc/passwd
    printf '%s\n' root:x:0: tty:x:5: nogroup:x:65534: >etc/group
    printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >etc/nsswitch.conf
    printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >etc/hosts
    ln -s /proc/mounts etc/mtab
}

# overlay LOWER PLACE: the image below, a fresh layer above (staging.rs).
overlay() {
    upper=$(mktemp -d upper.XXX) work=$(mktemp -d work.XXX)
    chmod --reference="$1" "$upper"
    mount -t overlay -o "nodev,${xattr-}lowerdir=$1,upperdir=$upper,workdir=$work" none "$2"
}

# place PATH: refuses a path in the image that a link leads away, maybe out of it (root.rs).
place() {
    [ "$(realpath -m "root$1")" = "$PWD/root${1%/}" ] || { echo "$1 in the image is a link" >&2 && exit 125; }
}

# volume SOURCE PLACE [ro]: a bind mount, and none of what is mounted below it has devices (mount.rs).
volume() {
    place "$2"
    if [ -d "/mnt$1" ]; then mkdir -p "root$2"; else mkdir -p "root${2%/*}" && touch "root$2"; fi
    mount --rbind "/mnt$1" "root$2"
    findmnt -Rrno TARGET "root$2" | while read -r below; do
        below=$(printf %b "$below") # a space is \x20
        [ ! -e "$below" ] || mount -o "remount,bind,nodev${3:+,$3}" "$below" # unless covered by another
    done
}

# /dev is nodev, too: each of the six devices is a mount of its own (devices.rs).
devices() {
    for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
        IFS=: read -r node major minor <<<"$node"
        touch "root/dev/$node"
        if [ "${xattr-}" ]; then # mknod(2) is not for user namespaces
            mount --bind "/dev/$node" "root/dev/$node"
        else
            mknod -m 666 "$node" c "$major" "$minor" && mount --bind "$node" "root/dev/$node"
        fi
    done
    mkdir root/dev/{pts,shm,mqueue}
    gid=,gid=5 && [ -z "${xattr-}" ] || gid=''
    mount -t devpts -o "nosuid,noexec,newinstance,ptmxmode=666,mode=620$gid" none root/dev/pts
    mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m none root/dev/shm
    mount -t mqueue -o nosuid,nodev,noexec none root/dev/mqueue
    ln -s /proc/self/fd root/dev/fd
    ln -s /proc/self/fd/0 root/dev/stdin
    ln -s /proc/self/fd/1 root/dev/stdout
    ln -s /proc/self/fd/2 root/dev/stderr
    ln -s /proc/kcore root/dev/core
    ln -s pts/ptmx root/dev/ptmx
}

# What is the whole machine's looks empty, or cannot be written (rootfs.rs, hide).
hide() {
    for path in proc/{acpi,asound,interrupts,kcore,keys,latency_stats,sched_debug,scsi,timer_list,timer_stats} \
        sys/{devices/virtual/powercap,firmware}; do
        if [ -d "root/$path" ]; then
            mount -t tmpfs -o ro,nosuid,nodev,noexec none "root/$path"
        elif [ -e "root/$path" ]; then
            mount --bind root/dev/null "root/$path"
        fi
    done
    for path in root/proc/{bus,fs,irq,sys,sysrq-trigger}; do
        [ ! -e "$path" ] || mount -o bind,ro,nosuid,nodev,noexec "$path" "$path"
    done
}
child=(bash -euc "$(declare -p name rootfs volumes workdir; declare -f child enter skeleton overlay place \
    volume devices hide); child \"\$@\"" child)

# One clone (child.rs, spawn). A process keeps its number for life, so the new PID and time namespaces
# are for the children of the shell that unshare becomes. (With --fork it would itself wait for the
# child, but in util-linux 2.38 it does not tell 137.) Private, as systemd shares every mount with its
# copies. And each dies with its parent.
fork=(bash -c 'setpriv --pdeathsig KILL "$@"; exit' fork)
setpriv --pdeathsig KILL unshare --mount --propagation private --uts --ipc --net --time --pid \
    ${user:+"$user"} "${fork[@]}" "${join[@]}" "${child[@]}" "$@"

#!/bin/bash
# Step 2 by hand: in a cgroup, with limits. In a lab:  bash step02-cgroups/by-hand.sh --memory 64M bash
# What is new:  diff step01-namespaces/by-hand.sh step02-cgroups/by-hand.sh
# Needs: bash setpriv unshare hostname awk
set -eu
name=container user='' memory='' cpus='' pids='' cpuset=''
[ "$(id -u)" = 0 ] || user=--map-root-user # only root makes the other namespaces without it
while [[ ${1-} = -* ]]; do
    case $1 in
    --user) user=--map-root-user && shift && continue ;;
    --hostname) name=$2 ;;
    --memory) memory=$2 ;;
    --cpus) cpus=$(awk "BEGIN { print $2 * 100000 }") ;; # of a period of 100000 microseconds
    --pids) pids=$2 ;;
    --cpuset) cpuset=$2 ;;
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
    exec "$@"
}
child=(bash -euc "$(declare -p name; declare -f child); child \"\$@\"" child)

# One clone (child.rs, spawn). A process keeps its number for life, so the new PID and time namespaces
# are for the children of the shell that unshare becomes. (With --fork it would itself wait for the
# child, but in util-linux 2.38 it does not tell 137.) Private, as systemd shares every mount with its
# copies. And each dies with its parent.
fork=(bash -c 'setpriv --pdeathsig KILL "$@"; exit' fork)
setpriv --pdeathsig KILL unshare --mount --propagation private --uts --ipc --net --time --pid \
    ${user:+"$user"} "${fork[@]}" "${join[@]}" "${child[@]}" "$@"

#!/bin/bash
# Step 1 by hand: new namespaces. In a lab:  bash step01-namespaces/by-hand.sh --hostname box bash
# Needs: bash setpriv unshare hostname
set -eu
name=container user=''
[ "$(id -u)" = 0 ] || user=--map-root-user # only root makes the other namespaces without it
while [[ ${1-} = -* ]]; do
    case $1 in
    --user) user=--map-root-user && shift && continue ;;
    --hostname) name=$2 ;;
    *) echo "unknown option $1" >&2 && exit 125 ;;
    esac
    shift 2
done

# The parent's side.
trap : INT TERM HUP # they are for the program: we wait for its end

# The child's side, in the new namespaces.
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
setpriv --pdeathsig KILL unshare --mount --propagation private --uts --ipc --net --cgroup --time --pid \
    ${user:+"$user"} "${fork[@]}" "${child[@]}" "$@"

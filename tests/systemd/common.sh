# What both hosts do: take facts down, wait for conditions, follow docs/systemd.md as a reader would. Judges nothing.
set -u
me=$HOSTNAME
trap 'journalctl -q -b >"/proof/log/journal.$me"' EXIT

fact() { printf '%s\t%s\n' "$1" "${*:2}" >>"/proof/facts.$me"; }

# Nothing that comes after would mean anything, on either host.
give_up() {
    fact "given up" "$*"
    touch /proof/given-up
    exit 1
}

# A minute for a condition: the machine may be busy.
await() {
    local _
    for _ in {1..600}; do
        "$@" >/dev/null 2>&1 && return
        [ ! -e /proof/given-up ] || give_up "as the other host"
        sleep 0.1
    done
    give_up "waited in vain: $*"
}

# page WHO BLOCK: one block of the page, in the shell session of its reader.
page() {
    local status=0 as=(env -i HOME=/root)
    [ "$1" = root ] || as=(runuser -u "$1" -- env -i "HOME=/home/$1")
    "${as[@]}" LANG=C.UTF-8 PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin \
        bash -euo pipefail /proof/session.sh "/proof/page/$2.sh" <"/proof/password" >"/proof/log/$me.$2" 2>&1 || status=$?
    fact "page $2" "$status"
    [ "$status" = 0 ] || give_up "page $2: $(tail -n 3 "/proof/log/$me.$2" | xargs -0)"
}

show() { systemctl show --value -p "$2" "$1"; }
shows() { [ "$(show "$1" "$2")" = "$3" ]; }
pid() { show "keyrotd-$1" MainPID; }
# Whether a user, with the groups that a service of theirs would have, can read something.
reads() {
    if setpriv --reuid "$1" --regid "$1" --groups "$2" -- head -c 1 "$3" >/dev/null 2>&1; then echo yes; else echo no; fi
}
logged() { journalctl -q -o cat -u "$1" | grep -q -- "$2"; }
drop_in() {
    mkdir -p "/run/systemd/system/$1.d"
    printf '%s\n' "${@:2}" >"/run/systemd/system/$1.d/zz-proof.conf"
    systemctl daemon-reload
}

ip link set lo up
ip link set host0 up

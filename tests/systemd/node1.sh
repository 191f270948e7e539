# The first host, the store and the owner's machine. node2.sh runs meanwhile; they meet in /proof.
. /proof/common.sh
alice_status() { runuser -u alice -- env HOME=/home/alice bash -c '. ~/.session && keyrotd status'; }

ip address add 192.0.2.1/24 dev host0
ip address add 192.0.2.10/24 dev host0
useradd -m alice
cp -r /proof/checkout /home/alice/keyrotd
cp /proof/ca.pem /home/alice/site-ca.pem
echo 'cd ~/keyrotd' >/home/alice/.session
chown -R alice /home/alice
install -o redis -m 0600 -t /etc/redis /proof/redis.conf /proof/store.pem /proof/ca.pem
systemctl start redis-server

# The owner's machine.
page alice build-1
page alice configure-1
printf '[agent]\npoll_interval = "500ms"\n' >>/home/alice/fleet/keyrotd.toml # or the first window takes 44 s
page alice configure-2
page alice hand-out-1
touch /proof/handed-out

# This host.
cp -r /proof/to/node1/. /root/
page root install-1
page root install-2
cp /proof/haproxy.cfg /etc/haproxy/haproxy.cfg
page root start-1
await test -e /proof/node2-runs
two_live() { alice_status | grep -q '2 live'; }
await two_live
await alice_status
page root look-1
page alice from-your-own-machine-1
fact "fleet" "$(grep -m 1 '^nodes ' "/proof/log/$me.from-your-own-machine-1")"
touch /proof/fleet-shown

for unit in keyrotd-agent keyrotd-scheduler; do
    fact "active $unit" "$(show $unit ActiveState) $(show $unit Type)"
    fact "exposure $unit" "$(systemd-analyze security --no-pager $unit | sed -n 's/.*level for .*: \([0-9.]*\) .*/\1/p')"
    fact "verified $unit" "$(systemd-analyze verify $unit.service 2>&1) $?"
    fact "core limit $unit" "$(prlimit --core -o SOFT,HARD --noheadings -p "$(show $unit MainPID)" | xargs)"
done
fact "locks" "$(ulimit -Hl) $(awk '/VmLck/ {print ($2 > 0)}' "/proc/$(pid agent)/status")"

# Credentials.
credential=/run/credentials/keyrotd-agent.service/edge.kek
fact "credential" "$(stat -c '%a %U' $credential) $(reads keyrotd keyrotd $credential)"
fact "credential for a tls server" "$(reads haproxy keyrotd-tls $credential)"
fact "secret for keyrotd" "$(reads keyrotd keyrotd-tls /etc/keyrotd/secrets/edge.kek)"
fact "agent sees" "$(nsenter -m -t "$(pid agent)" find /run/credentials -type f | sort | xargs)"
fact "scheduler sees" "$(nsenter -m -t "$(pid scheduler)" find /run/credentials -type f | sort | xargs)"

# Key files.
keys=/run/keyrotd/haproxy.keys
fact "key file" "$(stat -c '%a %U %G' $keys) $(findmnt -n -o FSTYPE -T $keys)"
fact "key file for a member" "$(reads haproxy keyrotd-tls $keys)"
fact "key file for others" "$(reads haproxy haproxy $keys)"
fact "state" "$(stat -c '%a %U' /var/lib/keyrotd)"

# Reload: a good configuration, then a bad one, by systemctl and by the bare signal.
before=$(pid agent)
page root another-configuration-1
await logged keyrotd-agent configuration.reloaded
fact "reloaded" "$(show keyrotd-agent ActiveState) $(show keyrotd-agent NRestarts)"
cp /etc/keyrotd/keyrotd.toml /root/good.toml
echo 'nonsense = true' >>/etc/keyrotd/keyrotd.toml
systemctl reload keyrotd-agent
await logged keyrotd-agent 'nothing was changed'
fact "bad reload" "$(show keyrotd-agent ActiveState) $(show keyrotd-agent NRestarts)"
fact "one process" "$([ "$before" = "$(pid agent)" ] && echo yes)"

# Exit code 78 is not tried again.
systemctl restart keyrotd-agent >/dev/null 2>&1
await shows keyrotd-agent ActiveState failed
sleep 2 # twice RestartSec
fact "bad start" "$(show keyrotd-agent ActiveState) $(show keyrotd-agent ExecMainStatus) $(show keyrotd-agent NRestarts)"
cp /root/good.toml /etc/keyrotd/keyrotd.toml

# Stopped, it leaves the key file, and the server can start anew from it.
systemctl start keyrotd-agent
systemctl stop keyrotd-agent
fact "key file after stop" "$(stat -c '%a %U %G' $keys)"
systemctl restart haproxy --job-mode=ignore-dependencies
fact "haproxy without agent" "$(show haproxy ActiveState) $(show keyrotd-agent ActiveState)"

# The watchdog: the process stops and its life does not.
drop_in keyrotd-agent.service '[Service]' WatchdogSec=2
drop_in keyrotd-scheduler.service '[Service]' WatchdogSec=2
page root another-configuration-2
stopped=$(pid agent)
kill -STOP "${stopped:?}"
await shows keyrotd-agent NRestarts 1
await shows keyrotd-agent ActiveState active
fact "watchdog" "$(show keyrotd-agent NRestarts) $(show keyrotd-agent ActiveState) $([ "$stopped" != "$(pid agent)" ] && echo 'another process')"
fact "watchdog said" "$(logged keyrotd-agent 'Watchdog timeout' && echo yes)"
systemctl restart keyrotd-agent

# The store is away for three watchdog periods.
systemctl stop redis-server
touch /proof/store-away
sleep 7
for unit in keyrotd-agent keyrotd-scheduler; do
    fact "store away $unit" "$(show $unit NRestarts) $(show $unit ActiveState) $(show $unit Result)"
done
fact "store away said" "$(logged keyrotd-agent 'refused' && echo yes)"
fact "start without store" "$(systemctl restart keyrotd-agent && show keyrotd-agent ActiveState)"
systemctl start redis-server
await alice_status
fact "well again" "$(alice_status >/proof/log/status; echo $?)"

# Somebody else's group, without the page's drop-in and with it.
sed -i 's/^mode = "0640"/&\ngroup = "haproxy"/' /etc/keyrotd/keyrotd.toml
systemctl restart keyrotd-agent
await logged keyrotd-agent 'setting an owner or a foreign group needs a privilege'
fact "group without drop-in" "$(stat -c '%a %U %G' $keys)"
drop_in keyrotd-agent.service '[Service]' SupplementaryGroups=haproxy PrivateUsers=no SystemCallFilter=@chown
systemctl restart keyrotd-agent
grouped() { [ "$(stat -c %G $keys)" = haproxy ]; }
await grouped
fact "group with drop-in" "$(stat -c '%a %U %G' $keys)"

# Upgrade: the same wheels once more stand for newer ones.
sed -i '/^group = /d' /etc/keyrotd/keyrotd.toml
rm -r /run/systemd/system/keyrotd-*.d
rm -rf /root/keyrotd
cp -r /proof/to/node1/. /root/
upgraded=$(pid agent)
page root upgrade-1
fact "upgraded" "$([ "$upgraded" != "$(pid agent)" ] && show keyrotd-agent ActiveState)"
touch /proof/node1-done

# The second host; at the end it is given back, and becomes a machine of its own.
. /proof/common.sh

ip address add 192.0.2.2/24 dev host0
await test -e /proof/handed-out
cp -r /proof/to/node2/. /root/
page root install-1
page root install-2
cp /proof/haproxy.cfg /etc/haproxy/haproxy.cfg
page root start-1
touch /proof/node2-runs
await test -e /proof/fleet-shown

fact "out of reach of a unit that names nobody" "$(systemd-run -q --pipe --wait -p IPAddressDeny=any -p IPAddressAllow=localhost \
    python3 -c 'import socket; socket.create_connection(("192.0.2.10", 6379), 3); print("reached")' 2>&1 | tail -n 1)"

# A TLS server that starts before its agent has written a key waits for it.
systemctl stop haproxy keyrotd-agent keyrotd-scheduler
rm -r /run/keyrotd
systemctl start haproxy
fact "boot order" "$(show haproxy ActiveState) $(show keyrotd-agent ActiveState) $(show haproxy NRestarts)"

cp /etc/haproxy/haproxy.cfg.before /etc/haproxy/haproxy.cfg
systemctl restart haproxy --job-mode=ignore-dependencies
page root uninstall-1
fact "left behind" "$(find / -xdev \( -path /proof -o -path /proc -o -path /sys -o -path /var/log \) -prune -o -iname '*keyrotd*' -print | xargs) $(getent passwd keyrotd) $(getent group keyrotd keyrotd-tls)"

# One machine.
cp -r /proof/checkout /root/checkout
cp /proof/pip.conf /etc/pip.conf
echo 'cd ~/checkout' >/root/.session
page root one-machine-1
page root one-machine-2
fact "standalone" "$(show keyrotd-standalone ActiveState) $(show keyrotd-standalone NRestarts)"
fact "standalone exposure" "$(systemd-analyze security --no-pager keyrotd-standalone | sed -n 's/.*level for .*: \([0-9.]*\) .*/\1/p')"
leads() { bash -c '. /root/.session; keyrotd status' >/proof/log/standalone 2>&1; grep -q leader /proof/log/standalone; }
await leads
store=$(pgrep -P "$(pid standalone)" -f valkey-server)
kill -KILL "${store:?}"
await shows keyrotd-standalone NRestarts 1
await shows keyrotd-standalone ActiveState active
fact "standalone without its store" "$(show keyrotd-standalone NRestarts) $(show keyrotd-standalone ActiveState)"
await test -e /proof/node1-done

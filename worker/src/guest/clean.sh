#!/bin/sh
# The last thing that runs on a builder: remove every trace of it, then switch it off. Only a clean server is ever off.
set -eu
user=imagewright

# cloud-init of Ubuntu 22.04 and Debian 12 does not know all of these.
if command -v cloud-init >/dev/null; then
    known=$(cloud-init clean --help 2>&1 || true)
    set -- --logs --seed
    case "$known" in *--machine-id*) set -- "$@" --machine-id ;; esac
    case "$known" in *--configs*) set -- "$@" --configs all ;; esac
    cloud-init clean "$@"
fi
rm -rf /var/lib/cloud/instances /var/lib/cloud/instance /var/lib/cloud/data /var/lib/cloud/sem
: >/etc/machine-id
rm -f /etc/ssh/ssh_host_* /etc/sudoers.d/90-cloud-init-users /root/.bash_history /var/lib/dbus/machine-id

# The key of this build, wherever cloud-init has put it, and the user that it was for.
for home in /root /home/*; do
    keys=$home/.ssh/authorized_keys
    [ -f "$keys" ] && [ ! -L "$keys" ] || continue
    grep -vF 'PUBLIC_KEY' "$keys" >"$keys.new" || true
    cat "$keys.new" >"$keys"
    rm -f "$keys.new"
done
pkill -KILL -u "$user" || true
id "$user" >/dev/null 2>&1 && userdel --force --remove "$user" 2>/dev/null || true
if id "$user" >/dev/null 2>&1; then
    echo "the user of the build cannot be removed" >&2
    exit 1
fi

# What is still logged until the power is off goes to memory alone: the host name has the job's id in it.
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/run/systemd/journald.conf.d/imagewright.conf
systemctl restart systemd-journald.service
systemctl stop syslog.socket rsyslog.service 2>/dev/null || true
[ ! -f /etc/hostname ] || echo localhost >/etc/hostname
find /var/log -type f -exec truncate --size=0 {} +
rm -rf /var/log/journal/* /tmp/* /var/tmp/* /dev/shm/imagewright-script
sync
systemctl --no-block poweroff

# $1: how many versions are installed now.
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers balance.conf
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # An upgrade: the kernel goes on balancing meanwhile. Nothing is started that was not running.
    if [ "$1" -gt 1 ]; then
        systemctl try-restart balance.service 'balance@*.service' ||
            echo 'balance: the daemon could not be restarted; the kernel goes on balancing. See: journalctl -u balance' >&2
    fi
fi

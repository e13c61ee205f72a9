if [ "$1" -eq 0 ]; then
    rm -f /etc/systemd/system/multi-user.target.wants/balance.service /etc/systemd/system/multi-user.target.wants/balance@*.service
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

# $1: how many versions will be left. An upgrade leaves everything as it is: the new version takes over.
if [ "$1" -eq 0 ]; then
    if [ -d /run/systemd/system ]; then
        systemctl stop balance.service 'balance@*.service'
    fi
    # What balances on without the daemon. If something cannot be put back the program must stay, to try again.
    for folder in /run/balance/*/ /sys/fs/bpf/balance/*/; do
        if [ -d "$folder" ]; then
            balance-user --instance "$(basename "$folder")" stop || exit 1
        fi
    done
fi

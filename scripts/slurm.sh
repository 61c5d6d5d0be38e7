#!/usr/bin/env bash
# A whole Slurm on this one machine, to try launch=slurm and to test it: four pretended CPUs and two pretended GPUs, one
# partition `main`. All of its state lies in one folder, its ports are its own, and no other Slurm or munge is touched.
#
#   scripts/slurm.sh start FOLDER      then: export SLURM_CONF=FOLDER/slurm.conf
#   scripts/slurm.sh stop FOLDER
#
# It needs Debian's packages: apt-get install --no-install-recommends slurm-wlm munge
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "slurm.sh: $*" >&2
    exit 1
}

# A port from 16001 on that nothing listens on, and that is not the one given.
free_port() {
    local port
    for _ in $(seq 100); do
        port=$((16001 + RANDOM % 16000))
        [ "$port" != "${1:-}" ] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && echo "$port" && return
    done
    fail "found no free port"
}

# Waits until a command succeeds: seconds, what for, the command.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$what did not come up; the logs are in $folder"
        sleep 0.2
    done
}

check_packages() {
    local missing=() name
    for name in munged slurmctld slurmd sbatch srun squeue scontrol; do
        command -v "$name" >/dev/null || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] ||
        fail "missing: ${missing[*]}. Install Debian's packages: apt-get install --no-install-recommends slurm-wlm munge"
}

# cred_expire is also how long Slurm lets a requeued job wait; its own default is two minutes.
configure() {
    local host controller_port
    host=$(hostname -s)
    controller_port=$(free_port)
    mkdir -p "$folder/state" "$folder/spool"
    # Any device serves as a pretended GPU: nobody opens it.
    printf 'Name=gpu File=/dev/%s\n' null zero >"$folder/gres.conf"
    cat >"$folder/slurm.conf" <<END
ClusterName=actmax
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller_port
SlurmdPort=$(free_port "$controller_port")
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
GresTypes=gpu
DefMemPerCPU=500
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

start() {
    check_packages
    [ ! -e "$folder/slurm.conf" ] || fail "there is a Slurm in $folder already: stop it first"
    configure
    # A socket's path has an end at 107 characters.
    [ ${#folder} -le 90 ] || fail "the folder's path is too long for a socket: $folder"
    (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    # --force: the folder need not be open to other users, whose jobs are none of its business.
    munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" >"$folder/munged.out" 2>&1 ||
        fail "munged did not start: $(cat "$folder/munged.out")"
    wait_for 10 munged munge --no-input --socket="$folder/munge.socket"
    slurmctld -f "$folder/slurm.conf" >"$folder/slurmctld.out" 2>&1 ||
        fail "slurmctld did not start: $(cat "$folder/slurmctld.out")"
    wait_for 20 slurmctld scontrol ping
    slurmd -f "$folder/slurm.conf" >"$folder/slurmd.out" 2>&1 || fail "slurmd did not start: $(cat "$folder/slurmd.out")"
    wait_for 20 "the node" idle
    echo "export SLURM_CONF=$folder/slurm.conf"
}

idle() { [ "$(sinfo --noheader --format=%t)" = idle ]; }

no_jobs() { [ -z "$(squeue --noheader)" ]; }

# The process that a pid file names, if it is still ours: its command line names this folder.
own() {
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$folder/" && echo "$pid"
}

stop() {
    local name pid
    if own slurmctld >/dev/null; then
        timeout 10 scancel --signal=KILL --full --user="$(id -un)" 2>/dev/null || true
        timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 50); do no_jobs && break || sleep 0.2; done
    fi
    for name in slurmd slurmctld munged; do
        pid=$(own "$name") || continue
        kill "$pid"
        for _ in $(seq 50); do own "$name" >/dev/null && sleep 0.2 || break; done
        ! own "$name" >/dev/null || kill -KILL "$pid"
    done
    rm -f "$folder/slurm.conf"
}

[ $# -eq 2 ] || fail "usage: slurm.sh start|stop FOLDER"
mkdir -p "$2"
folder=$(cd "$2" && pwd -P)
export SLURM_CONF=$folder/slurm.conf
case $1 in
start) start ;;
stop) stop ;;
*) fail "usage: slurm.sh start|stop FOLDER" ;;
esac

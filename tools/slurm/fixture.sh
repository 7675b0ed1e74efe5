#!/bin/bash
# A real Slurm on this machine alone: controller and virtual nodes on loopback, without root's services. Needs slurm-wlm and munge.
#
#   tools/slurm/fixture.sh up FOLDER [NODES] [VARIANT ...]     start it; afterwards: export SLURM_CONF=FOLDER/slurm.conf
#   tools/slurm/fixture.sh down FOLDER                         stop it, with its jobs
#   tools/slurm/fixture.sh controller FOLDER stop|start        the controller alone, as when it is down
#   tools/slurm/fixture.sh node FOLDER N stop|start            a node's daemon alone, as when the node is lost
#   tools/slurm/fixture.sh kill FOLDER N                       a node with all that works on it
#
# Partitions: `main`, and `urgent`, whose jobs preempt those of `main`.
# Variants: `forget` (a job that is over is forgotten at once), `small` (arrays of 20 jobs at most), `watch` (memory is watched, and a job
# that takes more than it asked for is killed).
set -euo pipefail
usage() {
  sed -n '2,13s/^# \?//p' "$0" >&2
  exit 2
}
[ $# -ge 2 ] || usage
cmd=$1 D=$(realpath -m "$2") N=${3:-2}
export PATH=$PATH:/usr/sbin SLURM_CONF=$D/slurm.conf

ended() { # waits until these processes are gone, and ends them if need be
  for _ in $(seq 50); do
    kill -0 "$@" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$@" 2>/dev/null || true
}

stop() { # the process of a pid file
  [ -s "$1" ] || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || true
  ended "$pid"
}

idle() { sinfo -h -N -p main -t idle -o %N 2>/dev/null | sort -u | wc -l; }

ready() {
  for _ in $(seq 150); do
    [ "$(idle)" = "$1" ] && return 0
    sleep 0.1
  done
  echo "slurm is not ready" >&2
  sinfo -N -o '%N %T %E' >&2 || true
  tail -20 "$D"/log/slurmctld.log >&2
  return 1
}

case $cmd in
down)
  timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
  sleep 0.3
  for f in "$D"/slurmd-*.pid "$D"/slurmctld.pid "$D"/munged.pid; do stop "$f"; done
  # Jobs whose node was stopped before they were.
  for pid in $(grep -lsz "^SLURM_CONF=$D/slurm.conf" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
    grep -qsz '^SLURM_JOB_ID=' "/proc/$pid/environ" && kill -KILL "$pid" 2>/dev/null || true
  done
  exit 0
  ;;
controller)
  if [ "$3" = stop ]; then stop "$D/slurmctld.pid"; else slurmctld -f "$D/slurm.conf"; fi
  exit 0
  ;;
node)
  if [ "$4" = stop ]; then stop "$D/slurmd-n$3.pid"; else slurmd -N "n$3" -f "$D/slurm.conf"; fi
  exit 0
  ;;
kill)
  # The daemon and those that watch its jobs first, and at once: nobody is left to tell the controller how a job ended.
  gone=$(find /proc/[0-9]*/fd -lname "$D/log/slurmd-n$3.log" 2>/dev/null | cut -d/ -f3 | sort -u) || true
  [ -z "$gone" ] || kill -KILL $gone 2>/dev/null || true
  for pid in $(grep -lsz "^SLURMD_NODENAME=n$3$" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do
    grep -qsz "^SLURM_CONF=$D/slurm.conf$" "/proc/$pid/environ" && kill -KILL "$pid" 2>/dev/null || true
  done
  rm -f "$D/slurmd-n$3.pid"
  exit 0
  ;;
up)
  if [ -s "$D/slurmctld.pid" ] && kill -0 "$(cat "$D/slurmctld.pid")" 2>/dev/null; then
    echo "a Slurm is up in $D; to stop it: $0 down $D" >&2
    exit 1
  fi
  ;;
*) usage ;;
esac

shift 3 2>/dev/null || shift $#
remember=300 array=1001 gather=none gather_params= main_mode=REQUEUE
for variant in "$@"; do
  case $variant in
  # Two seconds are the least that Slurm accepts.
  forget) remember=2 ;;
  small) array=20 ;;
  watch) gather=linux gather_params=OverMemoryKill ;;
  *)
    echo "there is no variant $variant" >&2
    exit 2
    ;;
  esac
done
mkdir -p "$D/state" "$D/log"
chmod 755 "$D"
H=$(hostname -s) U=$(id -un)
[ -s "$D/munge.key" ] || head -c 1024 /dev/urandom >"$D/munge.key"
chmod 600 "$D/munge.key"
# The controller's port, and one for each node behind it.
first=$(python3 - "$N" <<'PY'
import socket, sys
count = int(sys.argv[1])
while True:
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    first = probe.getsockname()[1]
    probe.close()
    if first + count > 65000:
        continue
    held = []
    try:
        for port in range(first, first + count + 1):
            one = socket.socket()
            held.append(one)
            one.bind(("127.0.0.1", port))
    except OSError:
        continue
    finally:
        for one in held:
            one.close()
    print(first)
    break
PY
)
mknod "$D/gpu0" c 1 3 2>/dev/null || touch "$D/gpu0" # a GPU that is none
cat >"$D/slurm.conf" <<C
ClusterName=laptop
SlurmctldHost=$H(127.0.0.1)
SlurmUser=$U
SlurmdUser=$U
AuthType=auth/munge
AuthInfo=socket=$D/munge.sock
SlurmctldPort=$first
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool-%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd-%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd-%n.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/$gather
${gather_params:+JobAcctGatherParams=$gather_params
JobAcctGatherFrequency=task=1}
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=$main_mode
MaxArraySize=$array
ReturnToService=2
MinJobAge=$remember
KillWait=2
MessageTimeout=5
SlurmctldTimeout=10
SlurmdTimeout=6
JobRequeue=1
GresTypes=gpu
NodeName=n[1-$N] NodeHostname=$H NodeAddr=127.0.0.1 Port=[$((first + 1))-$((first + N))] CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=7-0 PriorityTier=1 PreemptMode=$main_mode GraceTime=1 State=UP
PartitionName=urgent Nodes=ALL MaxTime=7-0 PriorityTier=10 PreemptMode=OFF State=UP
C
echo "NodeName=n[1-$N] Name=gpu File=$D/gpu0" >"$D/gres.conf"
munged --force --key-file="$D/munge.key" --socket="$D/munge.sock" --pid-file="$D/munged.pid" --log-file="$D/log/munged.log" --seed-file="$D/munged.seed"
slurmctld -f "$D/slurm.conf"
for i in $(seq "$N"); do
  mkdir -p "$D/spool-n$i"
  slurmd -N "n$i" -f "$D/slurm.conf"
done
ready "$N"

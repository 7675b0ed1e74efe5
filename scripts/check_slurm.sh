#!/bin/bash
# Runs the demo on a real Slurm on this machine, as it is and while things fail, and compares every result with a local run's.
#
#   scripts/check_slurm.sh [FOLDER]     needs the built program; installs Slurm with apt where it is missing
#   FAILURES=no scripts/check_slurm.sh         without preemption, a controller that is down and a dead node, which take minutes
#   KILLS=20 SEED=7 scripts/check_slurm.sh     kills the coordinator more often than twice
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
palinode=${PALINODE:-$here/target/release/palinode}
fixture=$here/tools/slurm/fixture.sh
work=${1:-$(mktemp -d)}
mkdir -p "$work"
work=$(realpath "$work")
export PATH=$PATH:/usr/sbin
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  echo "installing Slurm"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } >"$work/apt.log" 2>&1
fi
[ -x "$palinode" ] || { echo "there is no program at $palinode" >&2; exit 1; }

slurm=$work/slurm
down() { "$fixture" down "$slurm" || true; }
trap 'down' EXIT
"$fixture" up "$slurm" 4 watch
export SLURM_CONF=$slurm/slurm.conf
export PALINODE_SETTINGS=$work/settings.yaml
cat >"$PALINODE_SETTINGS" <<'Y'
slurm:
  default:
    all: { partition: main, time: 10m, memory: 1500M, cores: 1, parts: 3 }
    stages:
      # Too little on purpose: it is doubled until it is enough.
      moments: { memory: 40M }
    more_memory: 6
    waits: { files: 3s, unknown: 10s, poll: 0.5s, poll_most: 2s, save: 10s }
Y

# The demo, with more requests than a unit holds and more documents than a part does.
demo=$here/examples/demo-model
sed -e "s#\.\./examples/demo-model#$demo#" -e 's#limit: 32#limit: 80#' -e 's#samples: 3000#samples: 4400#' -e 's#steps: 40#steps: 4#' \
  -e 's#objective: \[rome, memit, emmet\]#objective: [memit, emmet]#' -e 's#count: 5, length: 10#count: 2, length: 6#' -e "s#\.\./out/demo#out#" \
  "$here/pipelines/demo.yaml" >"$work/demo.yaml"
cd "$work"

results() { # every result of a store, by instance
  python3 - "$1" <<'P'
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1], "actions").rglob("*.json"):
    made = json.loads(path.read_text())
    print(made["instance"], made["content"])
P
}
same() {
  results "$1" | sort >"$1.results"
  diff "${2:-local}.results" "$1.results" >&2 || { echo "$1: the results are not those of a local run" >&2; exit 1; }
  echo "$1: all $(wc -l <"$1.results") results are those of a local run"
}
on() { # a run in a store, in the background
  "$palinode" run demo.yaml --store "$1" --executor slurm --no-preflight --quiet "${@:2}" >"$1.log" 2>&1 &
  run=$!
}
ends() {
  wait "$run" || {
    echo "$1 failed:" >&2
    tail -20 "$1.log" >&2
    exit 1
  }
  same "$@"
  rm -rf out
}
says() { grep -q "$2" "$1.log" || { echo "$1: nothing was said of \"$2\"" >&2; cat "$1.log" >&2; exit 1; }; }
working() { # waits until a stage has a job at work in this store, so many tenths of a second at most; prints its node
  for _ in $(seq ${2:-300}); do
    local name
    name=$(ls "$1/runs" 2>/dev/null | sort | tail -1) || true
    local node
    node=$(squeue --noheader --array --name "palinode-$name" --states RUNNING --format %N 2>/dev/null | head -1) || true
    [ -n "$node" ] && { echo "$node"; return; }
    sleep 0.1
  done
  echo "no job began in $1" >&2
  exit 1
}

"$palinode" run demo.yaml --store local --no-preflight --quiet
rm -rf out
results local | sort >local.results

# 1. As it is; the memory of one stage is too little at first.
on plain
ends plain
says plain "twice as much"

sed -i '/# Too little/d; s/moments: { memory: 40M }/moments: {}/' "$PALINODE_SETTINGS"
if [ "${FAILURES:-yes}" = yes ]; then
# 2. Jobs that preempt, a controller that is down for a while, and a node that dies, in one long stage with two shares.
long=(--set stages.targets.with.steps=800 --set stages.targets.with.stop_loss=0 --until targets)
"$palinode" run demo.yaml --store short --no-preflight --quiet "${long[@]}"
results short | sort >short.results
on failures "${long[@]}"
until grep -q '"of":2' failures/runs/*/jobs.jsonl 2>/dev/null; do sleep 0.1; done
working failures >/dev/null
sbatch --parsable --partition=urgent --exclusive --nodes=4 --output=/dev/null --wrap 'sleep 1' >/dev/null
for _ in $(seq 100); do
  [ -n "$(squeue --noheader --states PREEMPTED --partition main)" ] && break
  sleep 0.1
done
working failures >/dev/null
"$fixture" controller "$slurm" stop
sleep 3
"$fixture" controller "$slurm" start
node=$(working failures)
"$fixture" kill "$slurm" "${node#n}"
sleep 7
"$fixture" node "$slurm" "${node#n}" start
ends failures short
says failures "goes on in another job"
fi

# 3. The coordinator is killed, twice or KILLS times, at random moments, and its jobs are found again. A run that ends sooner is begun anew in
# another store.
kills=${KILLS:-2} killed=0 round=0
RANDOM=${SEED:-1}
while [ $killed -lt "$kills" ]; do
  round=$((round + 1))
  store=killed$round
  "$palinode" run demo.yaml --store $store --executor slurm --no-preflight --detach >$store.log
  run=
  while [ $killed -lt "$kills" ]; do
    (working $store 80) >/dev/null 2>&1 || break
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
    pid=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' $store/LOCK 2>/dev/null) || break
    kill -KILL "$pid" 2>/dev/null || break
    killed=$((killed + 1))
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    [ -z "$run" ] || wait "$run" 2>/dev/null || true
    "$palinode" status --store $store | head -2
    "$palinode" attach --store $store >>$store.log 2>&1 &
    run=$!
  done
  # It may have ended before it was killed for the first time.
  [ -n "$run" ] || { "$palinode" attach --store $store >>$store.log 2>&1 & run=$!; }
  ends $store
  # Share by share: what was sent had either not been sent before, or what was sent before had ended.
  python3 - $store/runs/*/jobs.jsonl <<'P' || { echo "$store: jobs were sent twice" >&2; exit 1; }
import json, sys
lines = [json.loads(line) for path in sys.argv[1:] for line in open(path) if line.strip()]
at_work, jobs = set(), {}
for line in sorted(lines, key=lambda line: line["at_ms"]):
    name = line["submission"]
    if line["jobs"] == "sending":
        jobs[name] = [(work["key"], str(work.get("share"))) for work in line["work"]]
        again = at_work & set(jobs[name])
        if again:
            sys.exit(f"{name}: {again}")
        at_work |= set(jobs[name])
    elif line["jobs"] == "ended":
        at_work.discard(jobs[name][line["index"]])
P
done
echo "the coordinator was killed $killed times; no job was sent while it was at work"

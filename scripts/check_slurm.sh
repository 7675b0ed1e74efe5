#!/bin/bash
# Runs the demo and an ablation on a real Slurm on this machine, as they are and while things fail, and compares every result with a local
# run's.
#
#   scripts/check_slurm.sh [FOLDER]     needs the built program; installs Slurm with apt where it is missing
#   SECTIONS="plain failures" scripts/check_slurm.sh      of `plain failures more killed`, these alone
#   KILLS=20 SEED=7 scripts/check_slurm.sh     kills the coordinator more often than twice
#
# plain: memory that is too little at first; a mixture of experts. failures: preemption, a controller that is down, a node that dies. more: time that is up, a job
# that the queue forgets, a node that is lost with its job still alive. killed: the coordinator, at random moments.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
palinode=$(realpath "${PALINODE:-$here/target/release/palinode}")
fixture=$here/tools/slurm/fixture.sh
sections=" ${SECTIONS:-plain failures more killed} "
work=${1:-$(mktemp -d)}
mkdir -p "$work"
work=$(realpath "$work")
export PATH=$PATH:/usr/sbin
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  echo "installing Slurm"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends slurm-wlm munge; } >"$work/apt.log" 2>&1 ||
    { tail -20 "$work/apt.log" >&2; exit 1; }
fi
[ -x "$palinode" ] || { echo "there is no program at $palinode" >&2; exit 1; }

slurm=$work/slurm run= name=
down() {
  [ -z "$run" ] || kill "$run" 2>/dev/null || true
  "$fixture" down "$slurm" || true
  [ -n "${1:-}" ] || rm -rf "$work"
}
trap "down ${1:+keep}" EXIT
export SLURM_CONF=$slurm/slurm.conf
export PALINODE_SETTINGS=$work/settings.yaml
settings() { # of jobs, each a line of YAML; `all` may be given more
  cat >"$PALINODE_SETTINGS" <<Y
slurm:
  default:
    all: { partition: main, time: ${TIME:-10m}, memory: 1500M, cores: 1, parts: 3 }
    stages: { ${1:-} }
    more_memory: 6
    waits: { files: 5s, unknown: 10s, poll: 0.5s, poll_most: 2s, save: 10s }
Y
}

# The demo, with more requests than a unit holds and more documents than a part does.
demo=$here/examples/demo-model
sed -e "s#\.\./examples/demo-model#$demo#" -e 's#limit: 32#limit: 80#' -e 's#samples: 3000#samples: 4400#' -e 's#steps: 40#steps: 4#' \
  -e 's#objective: \[rome, memit, emmet\]#objective: [memit, emmet]#' -e 's#count: 5, length: 10#count: 2, length: 6#' -e "s#\.\./out/demo#out#" \
  "$here/pipelines/demo.yaml" >"$work/demo.yaml"
# An ablation of fewer cells, edits and documents than it has.
ablation=("$here/pipelines/ablations/distribution.yaml" --set vars.edits=8 --set vars.documents=400 --set vars.steps=3
  --set 'matrix.objective=[memit, emmet]' --set 'matrix.strategy=[memit, sqrt]')
# Second moments of a mixture of experts: over more documents than a part has, and over as many as are enough.
cat >"$work/experts.yaml" <<Y
name: experts
stages:
  model: { uses: load_model, with: { path: "$here/crates/model/tests/fixtures/qwen2_moe-tiny" } }
  moments: { uses: covariance, inputs: { model: model }, with: { corpus: "$demo/corpus.txt", layers: [0, 1], samples: 4400 } }
  sure: { uses: covariance, inputs: { model: model }, with: { corpus: "$demo/corpus.txt", layers: [0, 1], tokens: auto, tolerance: 0.3 } }
Y
# A stage that is at work for long enough to be met there, in two shares.
long=(demo.yaml --set stages.targets.with.steps=600 --set stages.targets.with.stop_loss=0 --until targets)
cd "$work"

fails() { # says why, and what can be seen of the cluster
  {
    echo "$1"
    [ -z "$name" ] || tail -n 20 "$name.log"
    squeue --states=all --array --format '%i %T %r %N' || true
    sinfo --Node --partition main --format '%N %T %E' || true
    tail -n 20 "$slurm/log/slurmctld.log" || true
  } >&2
  exit 1
}
within() { # waits until a command is so, so many seconds at most; what is waited for
  local seconds=$1 what=$2 end
  end=$((SECONDS + seconds))
  shift 2
  until "$@" 2>/dev/null; do
    [ $SECONDS -lt $end ] || fails "${name:+$name: }not within $seconds s: $what"
    sleep 0.1
  done
}
results() { # every result of a store, by instance
  python3 - "$1" <<'P'
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1], "actions").rglob("*.json"):
    made = json.loads(path.read_text())
    print(made["instance"], made["content"])
P
}
locally() { # a run on this machine, what is to be compared with
  [ ! -e "$1.results" ] || return 0
  name=$1
  "$palinode" run "${@:2}" --store "$1" --no-preflight --quiet >"$1.log" 2>&1 || fails "$1 failed"
  results "$1" | sort >"$1.results"
  rm -rf out
}
on() { # a run in a store, in the background
  name=$1
  "$palinode" run "${@:2}" --store "$1" --executor slurm --no-preflight --quiet >"$1.log" 2>&1 &
  run=$!
}
over() { ! kill -0 "$run"; }
ends() { # the run of this store ends well, with the results of another one
  name=$1
  within 900 "its end" over
  wait "$run" || fails "$1 failed"
  run=
  results "$1" | sort >"$1.results"
  diff "$2.results" "$1.results" >&2 || fails "$1: the results are not those of a local run"
  echo "$1: all $(wc -l <"$1.results") results are those of a local run ($SECONDS s)"
  rm -rf out
}
says() { grep -q "$2" "$1.log" || fails "$1: nothing was said of \"$2\""; }
latest() { ls "$1/runs" | sort | tail -1; }
jobs_of() { # those of a store's latest run in a state, with their nodes
  squeue --noheader --array --name "palinode-$(latest "$1")" --states "$2" --format '%i %N'
}
# A job of two is at work, and has told of it: it is in the middle of its work.
shares() { grep -q '"of":2' "$1"/runs/*/jobs.jsonl; }
at_work() {
  local job
  job=$(jobs_of "$1" RUNNING | head -1)
  [ -n "$job" ]
}
begun() { [ "$(cat "$1"/runs/*/jobs/*.jsonl | grep -c '"progress')" -gt "$2" ]; }
met() { # waits until a job is in the middle of its work; `node` is where
  within 300 "a job that is at work" at_work "$1"
  within 300 "a job that tells of its work" begun "$1" "$(cat "$1"/runs/*/jobs/*.jsonl | grep -c '"progress')"
  node=$(jobs_of "$1" RUNNING | head -1 | sed 's/.* n//')
  [ -n "$node" ] || fails "$1: no job is at work"
}
said() { grep -q "$2" "$1.log"; }
answers() { sinfo --noheader --format %R >/dev/null; }
none() { [ -z "$(squeue --noheader "$@")" ]; }
preempted() { [ -n "$(squeue --noheader --states PREEMPTED --partition main)" ]; }

"$fixture" up "$slurm" 4 watch

case $sections in *" plain "*)
  locally local demo.yaml
  locally ablation "${ablation[@]}"
  # Too little memory on purpose: it is doubled until it is enough.
  settings 'moments: { memory: 40M }'
  on plain demo.yaml
  ends plain local
  says plain "twice as much"
  settings
  on cells "${ablation[@]}"
  ends cells ablation
  locally mixture experts.yaml
  on experts experts.yaml
  ends experts mixture
  ;;
esac
settings

case $sections in *" failures "*)
  locally short "${long[@]}"
  on failures "${long[@]}"
  within 300 "shares" shares failures
  met failures
  urgent=$(sbatch --parsable --partition=urgent --exclusive --nodes=4 --output=/dev/null --wrap 'sleep 1')
  within 120 "a job that had to make way" preempted
  within 120 "the end of the urgent job" none --jobs "$urgent"
  met failures
  "$fixture" controller "$slurm" stop
  sleep 3
  "$fixture" controller "$slurm" start
  within 60 "an answer of the controller" answers
  met failures
  "$fixture" kill "$slurm" "$node"
  within 180 "the node counts as lost" said failures "machine is gone"
  "$fixture" node "$slurm" "$node" start
  ends failures short
  says failures "goes on in another job"
  # What is over was waited for.
  ! said failures "without an answer" || fails "failures: an answer was not seen"
  ;;
esac

case $sections in *" more "*)
  # A minute is the least that Slurm has. Half of it is for saving, and the rest goes on in other jobs.
  TIME=1m settings
  slow=(demo.yaml --set stages.targets.with.steps=1500 --set stages.targets.with.stop_loss=0 --until targets)
  locally minutes "${slow[@]}"
  on time "${slow[@]}"
  ends time minutes
  says time "has saved what it had"
  settings
  locally short "${long[@]}"

  # The old attempt goes on, on a node that is lost.
  on alive "${long[@]}"
  within 300 "shares" shares alive
  met alive
  "$fixture" node "$slurm" "$node" stop
  within 180 "the node counts as lost" said alive "machine is gone"
  "$fixture" node "$slurm" "$node" start
  ends alive short

  # A job dies while nobody looks, until the queue has forgotten it.
  "$fixture" down "$slurm"
  rm -rf "$slurm"
  "$fixture" up "$slurm" 4 watch forget
  on forgotten "${long[@]}"
  within 300 "shares" shares forgotten
  met forgotten
  job=$(jobs_of forgotten RUNNING | head -1 | cut -d' ' -f1)
  kill -STOP "$run"
  # The job's processes, but for this script's own.
  task=$(grep -lszx "SLURM_ARRAY_TASK_ID=${job#*_}" $(grep -lszx "SLURM_ARRAY_JOB_ID=${job%_*}" /proc/[0-9]*/environ) | cut -d/ -f3 || true)
  [ -n "$task" ] || fails "forgotten: job $job has no process"
  kill -KILL $task
  known() { none --states all --jobs "$job"; }
  within 300 "the queue forgets the job" known
  kill -CONT "$run"
  ends forgotten short
  says forgotten "not known to the cluster"
  ;;
esac

# The coordinator is killed, twice or KILLS times, at random moments, and its jobs are found again. A run that ends sooner is begun anew in
# another store.
case $sections in *" killed "*) kills=${KILLS:-2} ;; *) kills=0 ;; esac
[ "$kills" = 0 ] || locally local demo.yaml
killed=0 round=0
RANDOM=${SEED:-1}
while [ $killed -lt "$kills" ]; do
  round=$((round + 1))
  store=killed$round name=killed$round run=
  "$palinode" run demo.yaml --store $store --executor slurm --no-preflight --detach >$store.log
  begins=$SECONDS
  while [ $killed -lt "$kills" ]; do
    # Its first jobs, or those of its successor, are there; or it has ended.
    waiting() { [ -n "$(jobs_of $store RUNNING,PENDING)" ] || { [ -n "$run" ] && over; } || [ $((SECONDS - begins)) -gt 60 ]; }
    within 300 "jobs" waiting
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
    pid=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' $store/LOCK 2>/dev/null) || break
    kill -KILL "$pid" 2>/dev/null || break
    killed=$((killed + 1))
    gone() { ! kill -0 "$pid"; }
    within 60 "the killed process is gone" gone
    [ -z "$run" ] || wait "$run" 2>/dev/null || true
    "$palinode" status --store $store | grep "last run" || true
    "$palinode" attach --store $store >>$store.log 2>&1 &
    run=$! begins=$SECONDS
  done
  # It may have ended before it was killed for the first time.
  [ -n "$run" ] || { "$palinode" attach --store $store >>$store.log 2>&1 & run=$!; }
  ends $store local
  # Share by share: what was sent had either not been sent before, or what was sent before had ended and was not done, or it was given up since its
  # node was lost: on a machine that is busy Slurm loses nodes by itself. What is done stays so.
  python3 - $store/runs/*/jobs.jsonl <<'P' || fails "$store: jobs were sent twice"
import json, pathlib, sys
lines = [(path, json.loads(line)) for path in sys.argv[1:] for line in open(path) if line.strip()]
jobs, sent, at_work = {}, {}, {}
def done(run, name, index):
    answer = pathlib.Path(run, "answers", f"{name.rsplit('.', 1)[1]}-{index}.json")
    return answer.exists() and "done" in json.loads(answer.read_text())["end"]
for path, line in sorted(lines, key=lambda line: line[1]["at_ms"]):
    name, said = line["submission"], line["jobs"]
    if said == "sending":
        jobs[name] = [(work["key"], str(work.get("share"))) for work in line["work"]]
        for index, work in enumerate(jobs[name]):
            if work in at_work:
                sys.exit(f"{name}: {work} was sent as {at_work[work]}")
            at_work[work] = (str(pathlib.Path(path).parent), name, index)
            sent.setdefault(work, []).append(at_work[work])
    elif said in ("given_up", "ended"):
        index = line["index"]
        work = jobs[name][index]
        if said == "given_up":
            if line["why"] != "its job's machine is gone":
                sys.exit(f"{name}: {work} was given up: {line['why']}")
            print(f"share {work[1]} is sent again: {line['why']}")
            if at_work.get(work, ())[1:] == (name, index):
                del at_work[work]
        elif not any(done(*attempt) for attempt in sent[work]):
            at_work.pop(work, None)
P
done
[ "$kills" = 0 ] || echo "the coordinator was killed $killed times; no job was sent that was at work or done"

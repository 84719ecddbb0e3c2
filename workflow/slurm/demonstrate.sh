#!/bin/bash
# A sweep on a SLURM of two nodes, one of which is lost in the middle, compared with a local run.
#
#   demonstrate.sh FOLDER [SWEEP]
#
# As root, with slurm-wlm, munge, the package and its extra [cluster] installed, and the folder of
# the natural sounds in BRAINBOOK_DATA (or a network). PYTHON names the interpreter.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "${1:?a folder for everything that is written}")
sweep=$(realpath "${2:-$here/../sweeps/demonstration.yaml}")
brainbook="${PYTHON:-python} -m analysis_lib"
cluster=$folder/slurm
mkdir -p "$folder"
trap '"$here/two_nodes.sh" stop "$cluster"' EXIT

say() { echo "$(date +%T) $*"; }
store() { # where a run keeps everything: nothing is shared between the two
  export BRAINBOOK_CACHE=$folder/$1/cache BRAINBOOK_RESULTS=$folder/$1/results
}
n_results() { find "$folder/cluster/results" -name '[!.]*.nc' 2> /dev/null | wc -l; }

store local
say "local run"
$brainbook sweep "$sweep" --jobs 2 > "$folder/local.log" 2>&1
say "local run: $(tail -n 1 "$folder/local.log")"

"$here/two_nodes.sh" start "$cluster"
export SLURM_CONF=$cluster/slurm.conf
store cluster
say "cluster run"
$brainbook sweep "$sweep" --profile "$here/profile" > "$folder/cluster.log" 2>&1 &
run=$!
# A node is lost when there are results and it is at work on more.
until [ "$(n_results)" -ge 1 ] && [ -n "$(squeue -h -w n2 -t R -o %i)" ]; do
  kill -0 $run 2> /dev/null || { say "the sweep ended before a node could be lost"; break; }
  sleep 0.5
done
say "at $(n_results) results, n2 works on: $(squeue -h -w n2 -t R -o '%i %j')"
"$here/two_nodes.sh" kill "$cluster" n2
status=0
wait $run || status=$?
say "cluster run ended with status $status: $(tail -n 1 "$folder/cluster.log")"
sinfo -N -h -o '%N %T'
squeue -h -t all -o '%i %j %T %N %r' || true

say "cluster against local"
$brainbook compare "$folder/local/results" "$folder/cluster/results"
for run in local cluster; do
  computed=$(cat "$folder/$run/results/sweeps/"*/logs/*.log | grep -Ec '^computed (encoding|rsa|probes)')
  say "$run: $(find "$folder/$run/results" -name '[!.]*.nc' | wc -l) results, $computed computed"
done
exit $status

#!/bin/bash
# A sweep on a Slurm cluster: an array of independent tasks, one a GPU, on one run folder.
#
#     bash examples/slurm.sh runs/1b 1b --steps log --metrics perplexity,memorization
#
# The first argument is the run folder, which all nodes must see; the others are those of
# `pythia-fast sweep`. It submits the array, and a job after it that tells what came of it; until
# then `pythia-fast status runs/1b` does. Tasks that failed, were killed or ran out of time: the same
# line again goes on from what is there, with as many tasks as --array says then. --array stays a
# plain range, such as 1-16 or 1-16%4: the steps are cut into as many parts as it has tasks.

#SBATCH --job-name=pythia-fast
#SBATCH --array=1-16
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A_%a.log

set -euo pipefail

if (($# < 2)); then
    echo "usage: bash $0 RUN MODEL [options of pythia-fast sweep]" >&2
    exit 2
fi
run=$1
shift

if [[ -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
    array=$(sbatch --parsable "$0" "$run" "$@")
    array=${array%%;*} # behind the number may stand the cluster's name
    sbatch --parsable --dependency="afterany:$array" --job-name=pythia-fast-status \
        --ntasks=1 --time=00:10:00 --output="pythia-fast-status-$array.log" \
        --wrap="pythia-fast status $(printf '%q' "$run")"
    echo "submitted as $array; pythia-fast status $run tells how far it is" >&2
    exit
fi

# Downloads go to the node's own disk. The tasks on a node share them and their budget, and each
# clears away in the end what nobody uses any longer.
scratch=${TMPDIR:-/tmp}/pythia-fast-${USER:-$(id -un)}
mkdir -p "$scratch"
trap 'pythia-fast cache prune --cache-dir "$scratch" >&2 || true' EXIT # the sweep's code counts

# Where the nodes have different GPUs or only CPUs, name the --dtype, which is part of a run.
pythia-fast sweep "$@" --out "$run" --worker slurm --cache-dir "$scratch" --on-error skip

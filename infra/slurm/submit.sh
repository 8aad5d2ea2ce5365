#!/bin/bash
# A run of ladm on Slurm: an array of jobs that score into one store, and a last job that ranks and exports.
#
#   infra/slurm/submit.sh config.yaml 8 --partition=gpu --gpus-per-node=4 --cpus-per-task=32
#
# The 8 jobs need not run at the same time, and none of them is needed: each begins with another part of the work, finds
# in the store what the others have done, and goes on until all is scored. Whatever they leave undone the last job does.
# What comes after the number of jobs goes to sbatch as it is, for the array and for the last job.
# The configuration names the store, on storage that all nodes see, or on S3, and the Python environment is active.
set -euo pipefail

if [[ $# -lt 2 || ! -f $1 || ! $2 =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: $0 CONFIG JOBS [OPTION OF SBATCH ...]" >&2
    exit 2
fi
config=$(realpath "$1") jobs=$2
shift 2
here=$(dirname "$(realpath "$0")")

array=$(sbatch --parsable --array="0-$((jobs - 1))" "$@" "$here/ladm.sbatch" "$config" --until score)
last=$(sbatch --parsable --dependency="afterany:${array%%;*}" "$@" "$here/ladm.sbatch" "$config")
echo "scoring: array ${array%%;*}, $jobs jobs; ranking: job ${last%%;*}, when they have ended"

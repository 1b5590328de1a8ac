#!/bin/bash
# A run of several hosts under SLURM, which goes on by itself after time limits and lost hosts:
#
#   sbatch examples/slurm.sh configs/megalodon-7b.yaml -o train.steps=20000
#   sbatch --nodes=8 --time=12:00:00 examples/slurm.sh configs/megalodon-7b.yaml
#
# Submit it from a folder that all hosts share: the run folder is made in it. Wherever your cluster
# wants an account, a partition, or another word for GPUs, add or change the line.

#SBATCH --job-name=chomp
#SBATCH --nodes=2
# One process for each host has all GPUs of its host. For one process for each GPU give as many tasks
# as GPUs here, but not --gpus-per-task, which hides a process's own GPU from JAX's numbering.
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
# Five minutes before the time limit every process is told to save and stop. On a cluster that
# preempts, `PreemptParameters=send_user_signal` lets it happen before a preemption as well.
#SBATCH --signal=TERM@300
# The job may start again under its own number, by SLURM (a host went down) or by the end of this
# script; it then goes on writing to the same file.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=chomp-%j.out

# A job that starts again has its number still, and so finds its run.
run=${RUN_DIR:-runs/slurm-$SLURM_JOB_ID}
resume=()
if [ -e "$run/config_original.yaml" ]; then
    resume=(--resume latest)
fi

# The processes find each other through what SLURM sets for each of them. When one fails chomp ends
# the others, with its error: srun must not kill them while they save.
srun --kill-on-bad-exit=0 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    "${CHOMP:-.venv/bin/chomp}" train "$@" --run-dir "$run" "${resume[@]}"
code=$?

# 143: stopped by SIGTERM and saved. 75: a process was lost. Nothing else gets better by itself; to
# stop the run for good, saved, use `scancel --signal=INT`.
case $code in
75 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-50}" ]; then
        scontrol requeue "$SLURM_JOB_ID"
    fi
    ;;
esac
exit $code

#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Training on several nodes under Slurm, job after job until it is done:  sbatch train.sh config.yaml
#
# One rank a GPU. For CPUs delete --gpus-per-node and start one rank for about 8 cores: --ntasks-per-node=8 --cpus-per-task=8 on 64 cores.
#SBATCH --job-name=macekit-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail
config=${1:?usage: sbatch train.sh config.yaml [options of macekit train]}
shift

# Slurm sends SIGUSR1 to the ranks 300 s before the time is up: they write a checkpoint and end with code 138. Since Slurm 22.05
# srun does not take --cpus-per-task from sbatch.
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" macekit train "$config" --restart auto "$@" || status=$?
if [ "$status" -eq 138 ]; then
  echo "train.sh: the time is up; job $SLURM_JOB_ID is queued again and goes on from the checkpoint"
  scontrol requeue "$SLURM_JOB_ID"
  exit
fi
exit "$status"

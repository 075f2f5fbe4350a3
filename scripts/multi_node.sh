#!/bin/sh
# Start a training run on several machines, or on several GPUs (or CPU processes) of one. Run it once on each machine:
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=first.machine NPROC_PER_NODE=8 scripts/multi_node.sh CONFIG -o OUT
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=first.machine NPROC_PER_NODE=8 scripts/multi_node.sh CONFIG -o OUT
#
# Under SLURM, let it run it on every node (two nodes of eight GPUs; add what your cluster asks for):
#
#   #!/bin/sh
#   #SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64
#   srun scripts/multi_node.sh CONFIG -o OUT        # after a time limit: the same line with --resume
#
# It takes the first node of the job as the meeting place. OUT and the data must lie on a disk that all machines share
# under the same path. One machine alone needs none of the variables but NPROC_PER_NODE.
#
# For FSDP or DeepSpeed set ACCELERATE_CONFIG to one of the files in configs/accelerate.
set -eu
if [ -n "${SLURM_JOB_NODELIST:-}" ]; then
  : "${NNODES:=$SLURM_NNODES}" "${NODE_RANK:=$SLURM_NODEID}"
  : "${MASTER_ADDR:=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}"
  # another port for each job, so that two jobs on one node do not meet
  : "${MASTER_PORT:=$((20000 + SLURM_JOB_ID % 10000))}" "${NPROC_PER_NODE:=${SLURM_GPUS_ON_NODE:-1}}"
fi
: "${NNODES:=1}" "${NODE_RANK:=0}" "${MASTER_ADDR:=127.0.0.1}" "${MASTER_PORT:=29500}" "${NPROC_PER_NODE:=1}"
: "${PYTHON:=python}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

if [ -n "${ACCELERATE_CONFIG:-}" ]; then
  exec "$PYTHON" -m accelerate.commands.launch --config_file "$ACCELERATE_CONFIG" \
    --num_machines "$NNODES" --machine_rank "$NODE_RANK" --num_processes "$((NNODES * NPROC_PER_NODE))" \
    --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" -m gastrovl train "$@"
fi
exec "$PYTHON" -m torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" --nproc_per_node "$NPROC_PER_NODE" \
  --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT" -m gastrovl train "$@"

#!/bin/bash
#SBATCH --job-name=embank
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --no-kill
# A scheduler on the first node, a worker for each task of the allocation, and `embank embed` over them. With
# embank's environment active, and the images, the bank and the certificates on a file system of all nodes:
#
#     docker/certificates.sh ~/.embank-certificates
#     sbatch docker/slurm.sh images.parquet --model torchvision/resnet50 --bank images.bank
#
# A lost worker or node costs the chunk it was at; a job that is requeued, or submitted again, resumes.
set -euo pipefail

certificates=${EMBANK_CERTIFICATES:-$HOME/.embank-certificates}
port=${EMBANK_PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 10000))}
address=tls://$(hostname):$port

export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$certificates/ca.pem
for role in SCHEDULER WORKER CLIENT; do
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__CERT=$certificates/cert.pem"
    export "DASK_DISTRIBUTED__COMM__TLS__${role}__KEY=$certificates/key.pem"
done
export DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL=60s

trap 'kill $(jobs -p) 2> /dev/null || true' EXIT
dask scheduler --protocol=tls --host=0.0.0.0 --port="$port" --no-dashboard --dashboard-address=127.0.0.1:0 &
srun --kill-on-bad-exit=0 \
    dask worker "$address" --nthreads=1 --memory-limit=0 --death-timeout=60 \
    --local-directory="${TMPDIR:-/tmp}" --no-dashboard --dashboard-address=127.0.0.1:0 &

for ((i = 0; i < 60; i++)); do
    (: < "/dev/tcp/$(hostname)/$port") 2> /dev/null && break
    sleep 1
done
embank embed "$@" --scheduler "$address"

#!/bin/bash
# SLURM on this one machine, to try the recipes: Debian's packages, one node, one partition. Needs root.
#   infra/slurm/one-machine.sh up | down | status
set -euo pipefail
STATE=/var/lib/sluice-slurm
NODE=$(hostname -s)

configuration() {
  cat <<CONF
ClusterName=sluice
SlurmctldHost=$NODE
SlurmctldAddr=127.0.0.1
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
SlurmUser=root
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/d
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
JobCompType=jobcomp/filetxt
JobCompLoc=$STATE/jobs.txt
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 1024)) State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=INFINITE State=UP
CONF
}

up() {
  mkdir -p $STATE/ctld $STATE/d /etc/slurm /run/munge
  configuration > /etc/slurm/slurm.conf
  chown munge: /run/munge
  pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged
  pgrep -x slurmctld > /dev/null || slurmctld
  pgrep -x slurmd > /dev/null || slurmd -N "$NODE"
  for _ in $(seq 100); do sinfo -h -o %t 2> /dev/null | grep -qE 'idle|mix|alloc' && break; sleep 0.2; done
  sinfo
}

down() {
  for pid in /run/slurmd.pid /run/slurmctld.pid /run/munge/munged.pid; do
    if [ -f "$pid" ]; then kill "$(cat "$pid")" || true; fi
  done
}

case "${1:-}" in
  up) up ;;
  down) down ;;
  status) sinfo && squeue ;;
  *) echo "usage: $0 up | down | status" >&2; exit 2 ;;
esac

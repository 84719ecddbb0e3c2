#!/bin/bash
# A SLURM cluster of two nodes on one machine, to try the workflow on the real thing.
#
#   two_nodes.sh start FOLDER      controller, two nodes of one processor, partition "main"
#   two_nodes.sh kill  FOLDER n2   end a node as a power cut would: its daemon and all it runs
#   two_nodes.sh stop  FOLDER      end everything that start began
#
# Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge) and root. Afterwards:
#   export SLURM_CONF=FOLDER/slurm.conf
set -euo pipefail
command=${1:?start, kill or stop} folder=$(realpath -m "${2:?a folder for state and logs}")
export SLURM_CONF=$folder/slurm.conf

node_memory() { awk '/MemAvailable/ {print int($2 / 1024 / 2)}' /proc/meminfo; }

write_conf() {
  local host; host=$(hostname -s)
  cat > "$SLURM_CONF" <<CONF
ClusterName=two
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmdPidFile=$folder/%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=3600
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=$(node_memory)
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=$(node_memory)
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF
}

start_daemon() { # name command...
  local name=$1; shift
  setsid "$@" > "$folder/$name.out" 2>&1 &
  echo $! > "$folder/$name.started"
}

descendants() { # all processes below a process, itself last
  local child
  for child in $(pgrep -P "$1" || true); do descendants "$child"; done
  echo "$1"
}

# What runs for a node: its daemon, and the steps that the daemon left to themselves.
processes_of_node() {
  local daemon step
  daemon=$(cat "$folder/$1.started")
  for step in $(pgrep -x slurmstepd || true); do
    # A step writes to the log of the node that started it.
    if ls -l "/proc/$step/fd" 2> /dev/null | grep -qF "$folder/$1.log"; then descendants "$step"; fi
  done
  descendants "$daemon"
}

case $command in
start)
  mkdir -p "$folder/state" "$folder/n1" "$folder/n2"
  if ! munge -n > /dev/null 2>&1; then
    mkdir -p /run/munge && chown munge: /run/munge
    runuser -u munge -- /usr/sbin/munged && touch "$folder/own_munge"
  fi
  write_conf
  # Steps of a job are started without SLURM_CONF and look where a cluster's configuration is.
  [ -e /etc/slurm/slurm.conf ] || ln -s "$SLURM_CONF" /etc/slurm/slurm.conf
  start_daemon slurmctld slurmctld -D -f "$SLURM_CONF"
  for node in n1 n2; do start_daemon $node slurmd -D -N $node -f "$SLURM_CONF"; done
  for _ in $(seq 30); do
    sinfo -h -o '%T %D' 2> /dev/null | grep -q '^idle 2' && break
    sleep 1
  done
  sinfo
  ;;
kill)
  node=${3:?which node}
  processes=$(processes_of_node "$node")
  echo "killing $node: $(echo "$processes" | wc -l) processes"
  kill -KILL $processes 2> /dev/null || true
  ;;
stop)
  for name in n1 n2; do kill -KILL $(processes_of_node $name) 2> /dev/null || true; done
  kill "$(cat "$folder/slurmctld.started")" 2> /dev/null || true
  [ "$(readlink /etc/slurm/slurm.conf)" != "$SLURM_CONF" ] || rm /etc/slurm/slurm.conf
  if [ -e "$folder/own_munge" ]; then kill "$(cat /run/munge/munged.pid)" && rm "$folder/own_munge"; fi
  ;;
*)
  echo "unknown command $command: start, kill or stop" >&2
  exit 2
  ;;
esac

"""Writes cluster.yaml, with which SkyPilot rents machines, builds there, and begins again where one is taken away.

python -m pipeline.jobs.rent 3 L4:1        # what `make cluster.yaml NODES=3 GPU=L4:1` does
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from string import Template

from pipeline.check import GENERATED
from pipeline.config import load_params
from pipeline.errors import PodiumError
from pipeline.files import write_text
from pipeline.jobs.cluster import check_here
from pipeline.ledger.history import dvc_repository
from pipeline.stage import stage

TARGET = Path("cluster.yaml")
PLUGINS = {"s3": "dvc-s3", "gs": "dvc-gs", "azure": "dvc-azure", "ssh": "dvc-ssh"}
"""What DVC wants beside itself for a remote of that kind; on a folder of this machine no other one can read."""
TASK = Template("""# Written by `make cluster.yaml`. To rent, build, and give back:
#   export RAY_AUTH_TOKEN=$$(openssl rand -hex 32)
#   sky jobs launch --secret RAY_AUTH_TOKEN cluster.yaml
# then, here: dvc repro --pull
name: podium
num_nodes: $nodes
workdir:
  url: $url
  ref: $commit
${mounts}resources:
  accelerators: $gpu
  use_spot: true
secrets:
  RAY_AUTH_TOKEN: null
setup: |
  make setup
  .venv/bin/python -m pip install -q $plugin
run: |
  export PODIUM_CLONE=$$PWD RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
  head=$$(echo "$$SKYPILOT_NODE_IPS" | head -n 1):6379
  if [ "$$SKYPILOT_NODE_RANK" -gt 0 ]; then
    until .venv/bin/ray start --address="$$head" --block; do sleep 5; done
  else
    .venv/bin/ray start --head --port=6379 --include-dashboard=false --block &
    all="import ray; ray.init('$$head'); exit(sum(n['Alive'] for n in ray.nodes()) < $$SKYPILOT_NUM_NODES)"
    until .venv/bin/python -c "$$all" 2> /dev/null; do sleep 5; done
    code=0; RAY_ADDRESS="$$head" make repro || code=$$?
    .venv/bin/dvc push --run-cache
    kill %1
    exit $$code
  fi
""")


def cluster_task(nodes: int, gpu: str, url: str, commit: str, data: str, remote: str) -> str:
    """Returns the contents of cluster.yaml.

    Raises: PodiumError where `remote`, the address of DVC's remote, is none that a rented machine can read.
    """
    scheme = remote.partition("://")[0]
    if scheme not in PLUGINS:
        raise PodiumError(f"dvc: remote {remote}: expected {', '.join(PLUGINS)}://..., which rented machines reach")
    mounts = "" if Path(data) == GENERATED else f"file_mounts:\n  ~/sky_workdir/{data}: {data}\n"
    return TASK.substitute(nodes=nodes, gpu=gpu, url=url, commit=commit, mounts=mounts, plugin=PLUGINS[scheme])


def main(nodes: str, gpu: str) -> None:
    if not nodes.isdecimal() or not int(nodes):
        raise PodiumError(f'NODES: expected a whole number from 1 on, found "{nodes}"')
    with dvc_repository() as repository:
        commit = check_here(repository)
        remote = repository.config["remote"][repository.config["core"]["remote"]]["url"]
    origin = subprocess.run(["git", "remote", "get-url", "origin"], capture_output=True, text=True, check=False)
    held = subprocess.run(["git", "branch", "-r", "--contains", commit], capture_output=True, text=True, check=False)
    if origin.returncode or not held.stdout.strip():
        raise PodiumError(
            f"git: commit {commit[:12]} is on no remote that rented machines could clone: `git push` first"
        )
    write_text(TARGET, cluster_task(int(nodes), gpu, origin.stdout.strip(), commit, load_params().data.path, remote))
    print(f"{TARGET}: {nodes} machines with {gpu} each; docs/scale.md says how to go on")


if __name__ == "__main__":
    with stage("rent", keep_seconds=False):
        main(*sys.argv[1:])

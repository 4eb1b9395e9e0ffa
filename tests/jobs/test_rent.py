"""The task that SkyPilot reads."""

from __future__ import annotations

import pytest
import yaml

from pipeline.errors import PodiumError
from pipeline.jobs.rent import cluster_task, main


def test_the_task_names_commit_machines_data_and_the_plugin_of_the_remote() -> None:
    text = cluster_task(3, "L4:1", "git@host:me/podium.git", "abc", "data/arena", "s3://bucket/podium")
    task = yaml.safe_load(text)
    assert task["num_nodes"] == 3 and task["resources"] == {"accelerators": "L4:1", "use_spot": True}
    assert task["workdir"] == {"url": "git@host:me/podium.git", "ref": "abc"}
    assert task["file_mounts"] == {"~/sky_workdir/data/arena": "data/arena"}
    assert "dvc-s3" in task["setup"] and "$$" not in text
    assert 'RAY_ADDRESS="$head" make repro' in task["run"]


def test_generated_data_is_not_mounted() -> None:
    assert "file_mounts" not in yaml.safe_load(cluster_task(1, "L4:1", "u", "c", "data/demo", "gs://b"))


def test_a_folder_of_this_machine_is_no_remote_for_others() -> None:
    with pytest.raises(PodiumError, match=r"^dvc: remote /mnt/cache: expected s3, gs, azure, ssh://"):
        cluster_task(3, "L4:1", "u", "c", "data/demo", "/mnt/cache")


@pytest.mark.parametrize("nodes", ["0", "three", "-1"])
def test_the_number_of_machines_is_a_whole_number(nodes: str) -> None:
    with pytest.raises(PodiumError, match=f'^NODES: expected a whole number from 1 on, found "{nodes}"$'):
        main(nodes, "L4:1")

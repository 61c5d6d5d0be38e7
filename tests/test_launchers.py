from __future__ import annotations

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins

from actmax.app import config
from test_config import composed


def test_memory_and_notice_as_slurm_reads_them() -> None:
    assert (config.mebibytes(8.0), config.mebibytes(0.9)) == ("8192M", "922M")
    # always before the end, and never as early as the start
    assert [config.notice_seconds(minutes) for minutes in (1, 2, 8, 600)] == [15, 30, 120, 120]


def test_the_launcher_is_no_part_of_the_work() -> None:
    assert config.job_folder(composed("launch=slurm", "launch.cpus=3")) == config.job_folder(composed())


def test_hydra_finds_the_launcher() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    composed("launch=slurm", "launch.memory_gb=0.5", "launch.minutes=2", "launch.gpus=null", "launch.requeue=7")
    launcher = HydraConfig.get().launcher
    assert Plugins.instance().class_name_to_class[launcher._target_].__name__ == "SlurmLauncher"
    told = (
        launcher.additional_parameters.mem,
        launcher.signal_delay_s,
        launcher.gpus_per_node,
        launcher.max_num_timeout,
    )
    assert told == ("512M", 30, None, 7)


@pytest.mark.parametrize(
    ("said", "gpus"),
    [("gpu:2", 2), ("gpu:a100:4(S:0-1),shard:8", 4), ("gpu:a100:4,gpu:h100:2", 6), ("(null)", 0), ("license:3", 0)],
)
def test_gpus_of_a_node(said: str, gpus: int) -> None:
    slurm = pytest.importorskip("actmax.app.slurm")
    assert slurm._gpus(said) == gpus

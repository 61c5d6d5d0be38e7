from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from actmax import config, launchers
from actmax.errors import InputError
from test_config import composed


def test_slurm_is_told_what_the_user_said() -> None:
    cfg = composed("launch=slurm", "launch.memory_gb=0.5", "launch.minutes=2", "launch.gpus=null", "launch.requeue=7")
    assert (cfg.launch.name, cfg.launch.partition, cfg.launch.memory_gb) == ("slurm", None, 0.5)
    assert (config.mebibytes(8.0), config.mebibytes(0.9)) == ("8192M", "922M")
    # always before the end, and never as early as the start
    assert [config.notice_seconds(minutes) for minutes in (1, 2, 8, 600)] == [15, 30, 120, 120]


def test_the_launcher_is_no_part_of_the_work() -> None:
    assert config.job_folder(composed("launch=slurm", "launch.cpus=3")) == config.job_folder(composed())


def test_a_launcher_whose_package_is_not_installed_says_what_to_install() -> None:
    stand_in = launchers.MissingLauncher(partition="main")
    with pytest.raises(InputError, match=r"^launch=slurm: needs a package.*pip install 'actmax\[slurm\]'$"):
        stand_in.setup(hydra_context=None, task_function=print, config=OmegaConf.create({"launch": {"name": "slurm"}}))


def test_the_launcher_has_a_name_that_hydra_takes() -> None:
    launchers.register()
    found = Plugins.instance().class_name_to_class
    name = "hydra_plugins.actmax.SlurmLauncher"
    assert Plugins.is_in_toplevel_plugins_module(name)
    assert not Plugins.is_in_toplevel_plugins_module("actmax.slurm.SlurmLauncher")
    installed = launchers.SUBMITIT in found
    assert found[name].__name__ == ("SlurmLauncher" if installed else "MissingLauncher")


@pytest.mark.parametrize(
    ("said", "gpus"),
    [("gpu:2", 2), ("gpu:a100:4(S:0-1),shard:8", 4), ("gpu:a100:4,gpu:h100:2", 6), ("(null)", 0), ("license:3", 0)],
)
def test_gpus_of_a_node(said: str, gpus: int) -> None:
    slurm = pytest.importorskip("actmax.slurm")
    assert slurm._gpus(said) == gpus

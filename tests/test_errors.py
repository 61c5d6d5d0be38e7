"""What an error's argument is called on its way up."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from actmax.errors import BusyError, InputError, renamed
from actmax.model.architecture import geometry
from actmax.tasks.task import keys_of, settings_of, subject_keys
from actmax.tasks.tuning.settings import TuningSettings

NAMES = {"site": "unit.site", "architecture": "subject.architecture", "data": "tuning.data", "folder": "hydra.run.dir"}


def key_of(argument: str) -> str:
    with pytest.raises(InputError) as caught, renamed(NAMES):
        raise InputError(argument, 1, "must be 2", "Say 2.")
    error = caught.value
    assert (error.value, error.allowed, error.way_out) == (1, "must be 2", "Say 2.")
    assert str(error) == f"{error.key}=1: must be 2. Say 2."
    return error.key


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("site", "unit.site"),
        ("folder", "hydra.run.dir"),
        ("architecture.model_type", "subject.architecture.model_type"),
    ],
)
def test_an_argument_gets_the_callers_name(argument: str, key: str) -> None:
    assert key_of(argument) == key


@pytest.mark.parametrize(
    "key", ["tokens", "sites", "unit.site", "ACTMAX_CACHE", "words.csv:3", "/a/data.csv:3", "data:3", "data.csv:3"]
)
def test_places_in_files_and_other_names_stay(key: str) -> None:
    assert key_of(key) == key


def test_the_class_and_the_cause_are_kept() -> None:
    with pytest.raises(BusyError, match=r"^hydra\.run\.dir=") as caught, renamed(NAMES):
        raise BusyError("folder", "f", "is in use")
    cause = caught.value.__cause__
    assert isinstance(cause, BusyError)
    assert cause.key == "folder"
    with pytest.raises(InputError) as plain, renamed(NAMES):
        raise InputError("site", 1, "must be 2")
    assert type(plain.value) is InputError


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match=r"^site$"), renamed(NAMES):
        raise ValueError("site")


def test_an_inner_name_goes_before_an_outer_one() -> None:
    with pytest.raises(InputError) as caught, renamed({"folder": "hydra.run.dir"}), renamed({"folder": "init.path"}):
        raise InputError("folder", 1, "must be 2")
    assert caught.value.key == "init.path"


def test_a_group_names_its_own_keys_only() -> None:
    cfg = OmegaConf.create({"unit": {"site": None, "index": "???"}})
    for config in (cfg, {"unit": {"site": None, "index": 3}}):
        for argument, key in (("site", "unit.site"), ("index", "unit.index"), ("seeds", "seeds"), ("start", "init")):
            with pytest.raises(InputError) as caught, keys_of(config, "unit", start="init"):
                raise InputError(argument, 1, "must be 2")
            assert caught.value.key == key


@pytest.mark.parametrize("config", [{"model_type": "mamba"}, {"model_type": "gpt2", "n_embd": 0}])
def test_a_family_that_is_unknown_is_the_subjects(config: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"^config="):
        geometry(config)
    with pytest.raises(InputError, match=r"^subject="), subject_keys({"subject": {"id": None}}):
        geometry(config)


def test_settings_are_named_by_their_group() -> None:
    cfg = OmegaConf.create({"tuning": OmegaConf.structured(TuningSettings)})
    assert settings_of(cfg, "tuning") == TuningSettings()
    cfg.tuning.splits = 0
    with pytest.raises(InputError, match=r"^tuning\.splits=0: must be at least 1"):
        settings_of(cfg, "tuning")

from __future__ import annotations

import sys
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from actmax.app import config
from actmax.errors import InputError
from actmax.tasks import settings
from actmax.tasks.maximization import task as maximization
from cli import Actmax

CONF = config.conf_folder()
CASES = sorted(str(file.relative_to(CONF).with_suffix("")) for file in CONF.glob("*/*.yaml"))
NEEDS = {"init/file": ["init.path=somewhere"], "trainer/gpus": ["seeds=[0,1]"], "experiment/atlas": ["subject=tiny"]}
NEEDS |= {"context/prefix": ["context.text=Once"], "context/chat": ["context.chat='Name {tokens}'"]}
NEEDS |= {"method/text": ["search.text=somewhere"], "subject/hub": ["subject.id=EleutherAI/pythia-70m"]}


def label(cfg: DictConfig) -> str:
    return config.task_in(cfg).method(cfg)


def composed(*overrides: str) -> DictConfig:
    """A job's config with Hydra's own part, as the command line composes it."""
    cfg = _composed(overrides)
    HydraConfig.instance().set_config(cfg)
    return cfg


@lru_cache(maxsize=32)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
    OmegaConf.set_readonly(cfg, True)  # tests share it
    return cfg


def test_composing_copies_no_schema_and_changes_none() -> None:
    composed()  # loads the plugins, which add their own
    store = ConfigStore.instance()
    before = deepcopy(store.repo)
    assert deepcopy({"store": store})["store"] is store
    with initialize_config_dir(str(CONF), version_base="1.3"):
        changed = compose("config", ["subject=tiny", "steps=7", "subject.architecture.n_layer=3", "+trainer.extra=1"])
    assert (changed.steps, changed.trainer.extra) == (7, 1)
    assert store.repo == before
    changed_by_hand = deepcopy(before)
    changed_by_hand["schema.yaml"].node.steps = 7
    assert store.repo != changed_by_hand


def test_every_group_of_the_design_that_is_built_has_a_case() -> None:
    groups = "subject unit context init prior optimizer search trainer callbacks logger task experiment launch debug"
    assert {case.split("/")[0] for case in CASES} >= set(groups.split())


@pytest.mark.parametrize(("site", "width"), [("resid_pre", 96), ("mlp_post", 384), ("z", 96)])
def test_an_atlas_is_of_every_coordinate_of_its_site(site: str, width: int) -> None:
    cfg = composed("experiment=atlas", "subject=tiny", f"unit.site={site}", "unit.layer=2")
    assert [unit.index for unit in settings.units(cfg)] == list(range(width))
    named = composed("experiment=atlas", "subject=tiny", f"unit.site={site}", "unit.layer=2", f"unit.index='0:{width}'")
    assert config.job_folder(cfg) == config.job_folder(named)
    assert len(settings.units(composed("experiment=atlas", "subject=tiny", "unit.layer=2", "unit.index='0:5'"))) == 5


def test_an_atlas_of_a_site_that_is_not_there_is_refused() -> None:
    cfg = composed("experiment=atlas", "subject=tiny", "unit.site=mlp_pre_linear", "unit.layer=2")
    with pytest.raises(InputError, match=r"unit\.site"):
        config.every_index(cfg)


def test_a_model_of_the_hub_goes_by_the_last_part_of_its_id() -> None:
    ids = {"EleutherAI/pythia-70m": "pythia-70m", "gpt2": "gpt2"}
    for id_, name in ids.items():
        cfg = composed("subject=hub", f"subject.id={id_}")
        assert (cfg.subject.source, cfg.subject.name) == ("hub", name)
        assert config.job_folder(cfg).startswith(f"{name}_")
    given = composed("subject=hub", "subject.id=EleutherAI/pythia-70m", "subject.name=mine")
    assert config.job_folder(given).startswith("mine_")


@pytest.mark.parametrize("traced", [False, True])
def test_a_model_of_the_hub_without_an_id_is_refused_and_leaves_nothing(actmax: Actmax, traced: bool) -> None:
    """Also under a debugger or a coverage tool, where OmegaConf chains its errors in another way."""
    before = sys.gettrace()
    sys.settrace((lambda *_: None) if traced else None)
    try:
        ran = actmax("subject=hub")
    finally:
        sys.settrace(before)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("actmax: subject.id=None: must name a model of the hub")
    assert not any(ran.folder.iterdir())


@pytest.mark.parametrize("case", CASES)
def test_every_conf_file_composes_and_passes_the_check(case: str) -> None:
    group, name = case.split("/")
    cfg = composed(f"{group}={name}", *NEEDS.get(case, []))
    config.check(cfg)
    assert len(config.job_folder(cfg)) > 10


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "none"),
        (("task=search",), "bos"),
        (("task=examples",), "bos"),
        (("task=tuning",), "bos"),
        (("experiment=reproducibility",), "none"),
        (("experiment=priors", "method=gcg"), "none"),
        (("experiment=layers",), "none"),
        (("experiment=search", "method=simplex"), "bos"),
        (("experiment=nouns_verbs",), "bos"),
        (("experiment=reproducibility", "context=bos"), "bos"),
        (("task=search", "context=none"), "none"),
    ],
)
def test_contexts_of_tasks_and_experiments(overrides: tuple[str, ...], expected: str) -> None:
    cfg = composed("subject=tiny", *overrides)
    assert config.task_in(cfg).identity(cfg)["context"]["name"] == expected


def test_report_a_is_what_the_experiment_says() -> None:
    cfg = composed("experiment=reproducibility")
    assert settings.seeds(cfg) == list(range(10))
    assert [(unit.site, unit.layer, unit.index) for unit in settings.units(cfg)] == [("resid_pre", 8, 91)]
    assert (cfg.tokens, cfg.steps, cfg.optimizer.name, cfg.optimizer.lr) == (5, 500, "adam", 0.001)
    reduction = settings.objective_settings(cfg)["reduction"]
    assert (cfg.init.name, cfg.subject.name, reduction) == ("scaled", "gpt2", "mean")
    assert (maximization.prior_terms(cfg), maximization.parameterizations(cfg)) == ({}, [])
    assert cfg.sweep == "reproducibility"
    assert composed().sweep == "maximization"


@pytest.mark.parametrize(
    ("value", "numbers"),
    [(3, [3]), ("3", [3]), ([1, 5], [1, 5]), ("0:4", [0, 1, 2, 3]), ("1:8:3", [1, 4, 7]), (["0:2", 9], [0, 1, 9])],
)
def test_integers(value: object, numbers: list[int]) -> None:
    assert settings.integers(value, "seeds") == numbers


@pytest.mark.parametrize("value", [[], "4:4", [1, 1], ["0:3", 2], "a", "1:2:0", -1, "-3:2", 1.5, True, None, "1:2:3:4"])
def test_integers_refuses(value: object) -> None:
    with pytest.raises(InputError, match=r"^seeds="):
        settings.integers(value, "seeds")


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("steps=0", "steps"),
        ("tokens=0", "tokens"),
        ("max_rows=0", "max_rows"),
        ("seeds=[]", "seeds"),
        ("seeds=[1,1]", "seeds"),
        ("unit.site=foo", "unit.site"),
        ("unit.layer=a", "unit.layer"),
        ("unit.index=-1", "unit.index"),
        ("subject.dtype=int8", "subject.dtype"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.name=lbfgs", "optimizer.name"),
        ("prior.l2.weight=-1", "prior.l2.weight"),
        ("objective.reduction=sum", "objective.reduction"),
        ("objective.sign=up", "objective.sign"),
        ("decode.top_k=0", "decode.top_k"),
        ("nulls.displacements=3", "nulls.displacements"),
        ("trainer.devices=2", "trainer.devices"),  # of one restart
        ("trainer.strategy=ddp", "trainer.strategy"),
        ("trainer.matmul_precision=tf32", "trainer.matmul_precision"),
        ("init=file", "init.path"),
        ("launch.jobs_per_gpu=0", "launch.jobs_per_gpu"),
        ("launch.name=moon", "launch.name"),
        ("search.method=beam", "search.method"),
        ("search.passes=1", "search.passes"),
        ("search.top_k=0", "search.top_k"),
    ],
)
def test_check_names_the_key(override: str, key: str) -> None:
    cfg = composed("subject=tiny", override)
    with pytest.raises(InputError) as caught:
        config.check(cfg)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}=")


def test_the_schema_refuses_a_misspelt_key_in_an_experiment_file(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "right.yaml").write_text("# @package _global_\nsteps: 7\n")
    (folder / "wrong.yaml").write_text("# @package _global_\nstepz: 7\n")
    path = f"hydra.searchpath=[file://{tmp_path}]"
    assert composed("experiment=right", path).steps == 7
    with pytest.raises(Exception, match="stepz"):
        composed("experiment=wrong", path)


SAME_WORK = [
    "seeds='0:3'",
    "max_rows=2",
    "trainer=cpu",
    "trainer.devices=2",
    "trainer.compile=true",
    "trainer.matmul_precision=highest",
    "logger=wandb",
    "resume=false",
    "callbacks.checkpoint.every=7",
    "report=false",
    "page=false",
    "launch=gpus",
    "sweep=other",
    "force=true",
]
OTHER_WORK = [
    "seeds=[0,1]",
    "unit.layer=2",
    "optimizer.lr=0.01",
    "prior=l2",
    "subject.dtype=float64",
    "tokens=4",
    "trainer.matmul_precision=high",
]


@pytest.mark.parametrize("override", SAME_WORK)
def test_what_cannot_change_the_result_leaves_the_folder(override: str) -> None:
    base = ["subject=tiny", "seeds=[0,1,2]"]
    assert config.job_folder(composed(*base, override)) == config.job_folder(composed(*base))


@pytest.mark.parametrize("override", OTHER_WORK)
def test_what_can_change_the_result_names_another_folder(override: str) -> None:
    base = ["subject=tiny", "seeds=[0,1,2]"]
    assert config.job_folder(composed(*base, override)) != config.job_folder(composed(*base))


@pytest.mark.parametrize("override", ["steps=7", "optimizer.lr=1", "init=randn", "search=gcg"])
def test_what_is_idle_in_a_search_leaves_its_folder(override: str) -> None:
    base = ["task=search", "subject=tiny", "seeds=[0,1,2]"]
    assert config.job_folder(composed(*base, override)) == config.job_folder(composed(*base))


@pytest.mark.parametrize("override", ["search=epo", "search.passes=99", "search.only_text=false", "tokens=4"])
def test_what_a_search_does_names_its_folder(override: str) -> None:
    base = ["task=search", "subject=tiny", "seeds=[0,1,2]"]
    assert config.job_folder(composed(*base, override)) != config.job_folder(composed(*base))


def test_a_search_does_not_move_the_folder_of_a_gradient_run() -> None:
    base = ["subject=tiny", "seeds=[0,1,2]"]
    assert config.job_folder(composed(*base, "search=epo")) == config.job_folder(composed(*base))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "none"),
        (("prior=l2",), "l2"),
        (("prior=[l2,fluency]", "prior.l2.weight=0.5"), "l2 0.5+fluency"),
        (("prior=[pca,norm]",), "pca+norm"),
        (("prior=l2_absolute",), "l2 0.1 absolute"),
    ],
)
def test_priors_have_a_name_that_a_person_reads(overrides: tuple[str, ...], expected: str) -> None:
    assert label(composed("subject=tiny", *overrides)) == expected


@pytest.mark.parametrize("others", [(), ("experiment=reproducibility",)])
@pytest.mark.parametrize("method", ["gcg", "epo", "random"])
def test_a_method_that_names_a_search_is_that_search(method: str, others: tuple[str, ...]) -> None:
    one = composed("subject=tiny", *others, "seeds=3", f"method={method}")
    pinned = ("context=none",) if others else ()  # the experiment's own
    two = composed("subject=tiny", "task=search", "seeds=3", f"search={method}", *pinned)
    assert (one.task.name, label(one)) == ("search", method)
    assert config.task_in(one).identity(one) == config.task_in(two).identity(two)

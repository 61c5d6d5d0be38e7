"""The typed schema of the config, and what can be checked of it before anything heavy is imported."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import MISSING, DictConfig, OmegaConf

from actmax.architecture import SITES, Geometry, Unit, geometry, read_geometry
from actmax.errors import InputError
from actmax.record import job_hash
from actmax.tuning.words import BUILT_IN, Reading, check_reading, names_file
from actmax.weights import fingerprint, locate

if TYPE_CHECKING:
    from actmax.comparison import Design  # scipy and statsmodels: seconds


@dataclass
class SubjectConfig:
    """The language model under study."""

    name: str = MISSING
    source: str = MISSING
    id: str | None = None
    revision: str | None = None
    path: str | None = None
    wheel: str | None = None
    dtype: str = "float32"
    attention: str = "auto"
    architecture: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass
class UnitConfig:
    """What is maximized; `layer` and `index` take a number, a list or a range."""

    site: str = MISSING
    layer: Any = MISSING
    index: Any = MISSING


@dataclass
class InitConfig:
    """Where restarts start."""

    name: str = MISSING
    path: str | None = None
    tensor: str = "final"


@dataclass
class ObjectiveConfig:
    """What is asked of the unit."""

    reduction: str = "mean"
    sign: str = "maximize"


@dataclass
class TermConfig:
    """A loss term; a weight of 0 leaves it out."""

    weight: float = 0.0
    scale: str = "relative"


@dataclass
class ManifoldConfig(TermConfig):
    """How near is near: over how many tokens, and how soft a minimum."""

    k: int = 10
    temperature: float = 0.05


@dataclass
class FluencyConfig(TermConfig):
    """How soft the decoded tokens are."""

    temperature: float = 0.01


@dataclass
class PrincipalConfig:
    """Whether the optimizee lies in the span of principal components, and of how many."""

    use: bool = False
    components: int = 64


@dataclass
class MixtureConfig:
    """Whether the optimizee is a mixture of tokens, and how soft a one before the first step and after the last."""

    use: bool = False
    temperature: float = 0.02
    final_temperature: float = 0.005


@dataclass
class PriorConfig:
    """What keeps the embeddings near text: loss terms, and at most one parameterization."""

    l2: TermConfig = field(default_factory=TermConfig)
    norm: TermConfig = field(default_factory=TermConfig)
    manifold: ManifoldConfig = field(default_factory=ManifoldConfig)
    fluency: FluencyConfig = field(default_factory=FluencyConfig)
    smooth: TermConfig = field(default_factory=TermConfig)
    pca: PrincipalConfig = field(default_factory=PrincipalConfig)
    simplex: MixtureConfig = field(default_factory=MixtureConfig)


@dataclass
class OptimizerConfig:
    """How the embeddings move."""

    name: str = MISSING
    lr: float = 0.001
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerConfig:
    """What the Lightning Trainer is told."""

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    deterministic: bool = False
    detect_anomaly: bool = False
    profiler: str | None = None


@dataclass
class DecodeConfig:
    """How embeddings become tokens."""

    top_k: int = 5


@dataclass
class NullConfig:
    """How large the nulls are."""

    pool: int = 50_000
    draws: int = 1_000
    displacements: int = 100
    seed: int = 0


@dataclass
class GapConfig:
    """How large the null of random text is."""

    draws: int = 500
    seed: int = 0


@dataclass
class RoundingConfig:
    """How many restarts of each unit are run again to see what arithmetic does, and how."""

    restarts: int = 0
    kernel: str = "other"


@dataclass
class LoggerConfig:
    """Where running measures go."""

    name: str = MISSING
    project: str = "actmax"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class LaunchConfig:
    """Where the jobs of a multirun run; conf/launch says which key serves which launcher."""

    name: str = "serial"
    jobs_per_gpu: int = 1
    gpus: int | None = None
    partition: str | None = None
    minutes: int = 60
    memory_gb: float = 8.0
    cpus: int = 2
    parallel: int = 256
    requeue: int = 3


@dataclass
class SimulationConfig:
    """What `task=simulation` simulates; `effects` is a list."""

    effects: list[float] = field(default_factory=lambda: [step / 4 for step in range(25)])
    repetitions: int = 200
    n_0: int = 50
    n_1: int = 50
    distribution: str = "normal"
    alpha: float = 0.05
    seed: int = 0


@dataclass
class SearchConfig:
    """How `task=search` searches; docs/search.md says what the keys mean, and how forward passes are counted."""

    method: str = "gcg"
    passes: int = 2000
    candidates: int = 160
    top_k: int = 256
    patience: int = 5
    generations: int = 30
    weights: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    only_text: bool = True


@dataclass
class TuningConfig:
    """What `task=tuning` reads and compares; docs/tuning.md says more of each."""

    data: str = "nouns_verbs"
    group_0: str | None = None
    group_1: str | None = None
    pair: str | None = None
    template: str = " {word}"
    vector: str = "last"
    bos: str | None = None
    words: int = 1000
    contexts: int = 10
    sites: list[str] = field(default_factory=lambda: ["mlp_pre", "resid_post"])
    layers: Any = "all"
    memory: float = 2.0
    save: bool = False
    batch_tokens: int = 1024
    padding: int = 0
    alpha: float = 0.05
    splits: int = 20
    folds: int = 5
    C: float = 1.0
    permutations: int = 200
    top: int = 20
    text: str | None = None
    unit: str | None = None
    seed: int = 0


@dataclass
class ExamplesConfig:
    """What `task=examples` reads; the units are `unit.*`."""

    text: str | None = None
    record: str | None = None
    bos: str | None = None
    window: int = 64
    top: int = 20
    context: int = 10
    sample: int = 100_000
    rows: int = 16
    seed: int = 0


@dataclass
class TaskConfig:
    """Which kind of job this is."""

    name: str = MISSING


@dataclass
class Config:
    """A job."""

    task: TaskConfig = field(default_factory=TaskConfig)
    subject: SubjectConfig = field(default_factory=SubjectConfig)
    unit: UnitConfig = field(default_factory=UnitConfig)
    init: InitConfig = field(default_factory=InitConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    nulls: NullConfig = field(default_factory=NullConfig)
    gap: GapConfig = field(default_factory=GapConfig)
    rounding: RoundingConfig = field(default_factory=RoundingConfig)
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    examples: ExamplesConfig = field(default_factory=ExamplesConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    seeds: Any = MISSING
    tokens: int = MISSING
    steps: int = MISSING
    max_rows: int | None = None
    sweep: str = MISSING
    resume: bool = True
    force: bool = False
    report: bool = True
    page: bool = True


PRIOR_TERMS = ("l2", "norm", "manifold", "fluency", "smooth")
PARAMETERIZATIONS = ("pca", "simplex")

CHOICES: dict[str, tuple[str, ...]] = {
    "task.name": ("maximization", "search", "simulation", "tuning", "examples"),
    "subject.source": ("hub", "wheel", "random"),
    "subject.dtype": ("float32", "float64", "bfloat16"),
    "unit.site": SITES,
    "init.name": ("scaled", "randn", "tokens", "file"),
    "init.tensor": ("initial", "final"),
    "objective.reduction": ("mean", "last", "max"),
    "objective.sign": ("maximize", "minimize"),
    "optimizer.name": ("adam", "adamw", "sgd"),
    "rounding.kernel": ("other", "same"),
    "search.method": ("gcg", "epo", "random"),
    "logger.name": ("csv", "wandb", "none"),
    "launch.name": ("serial", "gpus", "cluster", "slurm"),
    "tuning.vector": ("last", "mean"),
    **{f"prior.{term}.scale": ("relative", "absolute") for term in PRIOR_TERMS},
}
AT_LEAST: dict[str, int] = {
    "tokens": 1,
    "steps": 1,
    "max_rows": 1,
    "trainer.devices": 1,
    "decode.top_k": 1,
    "prior.manifold.k": 1,
    "prior.pca.components": 1,
    "nulls.pool": 1000,
    "nulls.draws": 20,
    "nulls.displacements": 20,
    "gap.draws": 20,
    "rounding.restarts": 0,
    "search.passes": 2,
    "search.candidates": 1,
    "search.top_k": 1,
    "search.patience": 0,
    "search.generations": 1,
    "launch.jobs_per_gpu": 1,
    "launch.gpus": 0,
    "launch.minutes": 1,
    "launch.cpus": 1,
    "launch.parallel": 1,
    "launch.requeue": 0,
    "examples.window": 2,
    "examples.top": 1,
    "examples.context": 0,
    "examples.sample": 1000,
    "examples.rows": 1,
    "examples.seed": 0,
    "tuning.words": 4,
    "tuning.contexts": 1,
    "tuning.memory": 0,
    "tuning.batch_tokens": 1,
    "tuning.padding": 0,
    "tuning.splits": 1,
    "tuning.folds": 2,
    "tuning.permutations": 20,
    "tuning.top": 1,
    "tuning.seed": 0,
}
NOT_IDENTITY = (
    "subject.path",
    "subject.wheel",
    "trainer",
    "logger",
    "callbacks.progress",
    "callbacks.checkpoint",
    "max_rows",
    "sweep",
    "resume",
    "force",
    "report",
    "page",
    "launch",
)
"""What may differ between two runs of the same job; the hash of the weights stands for where they lie."""
NOT_OF_SEARCH = ("init", "prior", "optimizer", "steps", "callbacks", "rounding")
"""What `task=search` has no use for."""


def conf_folder() -> Path:
    """The config files: inside the package of a wheel, at the root of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def integers(value: Any, key: str) -> list[int]:
    """A number, a list, or a range `start:stop` (`start:stop:step`), stop left out; as in Python's slices.

    Raises:
        InputError: it is none of these, names a number twice, or is empty.

    Example:
        >>> integers("0:3", "seeds"), integers(7, "seeds"), integers([1, "4:6"], "seeds")
        ([0, 1, 2], [7], [1, 4, 5])
    """
    parts = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    numbers = [number for part in parts for number in _numbers(part, value, key)]
    if not numbers:
        raise InputError(key, value, "must name at least one number")
    if len(set(numbers)) < len(numbers):
        raise InputError(key, value, "must name each number once", "A repeated one would count as a replicate.")
    return numbers


def _numbers(part: Any, value: Any, key: str) -> Sequence[int]:
    wrong = InputError(key, value, "must be a whole number from 0, a list of them, or a range such as '0:12'")
    if isinstance(part, bool) or part is None:
        raise wrong
    try:
        ends = [int(end) for end in str(part).split(":")]
    except ValueError:
        raise wrong from None
    if len(ends) > 3 or (len(ends) == 3 and ends[2] < 1) or min(ends) < 0:
        raise wrong
    return [ends[0]] if len(ends) == 1 else range(*ends)


def seeds(cfg: DictConfig) -> list[int]:
    """The seeds of a job."""
    return integers(cfg.seeds, "seeds")


def units(cfg: DictConfig) -> list[Unit]:
    """The units of a job: layers x indices."""
    layer = cfg.unit.layer
    layers = [None] if layer is None else integers(layer, "unit.layer")
    return [Unit(cfg.unit.site, layer, index) for layer in layers for index in integers(cfg.unit.index, "unit.index")]


def check(cfg: DictConfig) -> None:
    """Refuses what is wrong whatever the subject is.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value not in allowed:
            raise InputError(key, value, f"must be one of {', '.join(allowed)}")
    for key, least in AT_LEAST.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value < least:
            raise InputError(key, value, f"must be at least {least}")
    if not (cfg.optimizer.lr > 0 and math.isfinite(cfg.optimizer.lr)):
        raise InputError("optimizer.lr", cfg.optimizer.lr, "must be a positive number")
    _check_prior(cfg)
    _check_tuning(cfg)
    if cfg.init.name == "file" and cfg.init.path is None:
        raise InputError("init.path", None, "must name a record's folder with init=file")
    _check_devices(cfg)
    if cfg.task.name == "search":
        _check_search(cfg)


def _check_search(cfg: DictConfig) -> None:
    if idle := [*parameterizations(cfg), *prior_terms(cfg)]:
        allowed = "a search moves over tokens: there is no embedding that a prior could keep near text"
        raise InputError("prior", "+".join(idle), allowed, "Leave it out, or run two jobs: -m prior=simplex,gcg.")
    weights = list(cfg.search.weights)
    if not weights or not all(weight >= 0 and math.isfinite(weight) for weight in weights):
        raise InputError("search.weights", weights, "must be numbers from 0, at least one")
    if cfg.search.method == "epo" and cfg.tokens < 2:
        raise InputError("tokens", cfg.tokens, "must be at least 2 with search=epo: one has no fluency")
    if cfg.trainer.devices > 1:
        way_out = "A job per seed, spread over the devices: -m 'seeds=range(0,8)' launch=gpus."
        raise InputError("trainer.devices", cfg.trainer.devices, "must be 1 with task=search", way_out)


def _check_tuning(cfg: DictConfig) -> None:
    tuning = cfg.tuning
    if not 0 < tuning.alpha < 1:
        raise InputError("tuning.alpha", tuning.alpha, "must be above 0 and below 1")
    if not (tuning.C > 0 and math.isfinite(tuning.C)):
        raise InputError("tuning.C", tuning.C, "must be a positive number")
    if not tuning.sites or len(set(tuning.sites)) < len(tuning.sites):
        raise InputError("tuning.sites", list(tuning.sites), "must name at least one site, and each once")
    for site in tuning.sites:
        if site not in SITES:
            raise InputError("tuning.sites", site, f"must be of {', '.join(SITES)}")
    if tuning.layers != "all":
        integers(tuning.layers, "tuning.layers")
    if tuning.unit is not None:
        tuned_unit(tuning.unit)
    if cfg.task.name in ("tuning", "examples") and cfg.trainer.devices > 1:
        raise InputError("trainer.devices", cfg.trainer.devices, f"must be 1: {cfg.task.name} runs on one device")


def tuned_unit(text: str) -> Unit:
    """A unit by its name, as records and tables print it.

    Raises:
        InputError: it is no such name.

    Example:
        >>> tuned_unit("mlp_pre.3[70]")
        Unit(site='mlp_pre', layer=3, index=70)
    """
    match = re.fullmatch(r"(\w+?)(?:\.(\d+))?\[(\d+)\]", text)
    if match is None:
        raise InputError(
            "tuning.unit", text, "must read SITE.LAYER[INDEX]", "Quote it: 'tuning.unit=\"mlp_pre.3[70]\"'."
        )
    site, layer, index = match.groups()
    return Unit(site, None if layer is None else int(layer), int(index))


def tuned_places(cfg: DictConfig, sizes: Geometry) -> list[tuple[str, int | None]]:
    """The sites and layers whose units are compared; `final_norm` has no layer.

    Raises:
        InputError: the subject lacks one.
    """
    layers = range(sizes.layers) if cfg.tuning.layers == "all" else integers(cfg.tuning.layers, "tuning.layers")
    places: list[tuple[str, int | None]] = []
    for site in cfg.tuning.sites:
        own = [None] if site == "final_norm" else list(layers)
        places += [(site, layer) for layer in own]
    for site, layer in places:
        try:
            sizes.check_place(site, layer)
        except InputError as error:
            key = "tuning.sites" if error.key == "unit.site" else "tuning.layers"
            raise InputError(key, error.value, error.allowed, error.way_out) from error
    return places


def reading(cfg: DictConfig) -> Reading:
    """Which words a config asks for."""
    tuning = cfg.tuning
    groups = (tuning.group_0, tuning.group_1)
    return Reading(tuning.data, groups, tuning.pair, tuning.template, tuning.words, tuning.contexts, tuning.seed)


def data_hash(cfg: DictConfig) -> str | None:
    """sha256 of the files that a job reads besides the weights: words, text, a record."""
    whole, named = hashlib.sha256(), _data_places(cfg)
    for place, pattern in named:
        for file in sorted(place.rglob(pattern)) if place.is_dir() else [place]:
            if file.is_file():
                with file.open("rb") as stream:
                    whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest() if named else None


def _data_places(cfg: DictConfig) -> list[tuple[Path, str]]:
    """Files, or folders with the pattern of the files in them."""
    if cfg.task.name == "examples":
        named = {"*.txt": cfg.examples.text, "*.parquet": cfg.examples.record}
        return [(Path(place), pattern) for pattern, place in named.items() if place is not None]
    found = [] if cfg.tuning.data == BUILT_IN else [(Path(cfg.tuning.data), "*.conllu")]
    if cfg.tuning.text is not None and names_file(cfg.tuning.text):
        found.append((Path(cfg.tuning.text), ""))
    return found


def _check_devices(cfg: DictConfig) -> None:
    strategy, devices, restarts = cfg.trainer.strategy, cfg.trainer.devices, len(seeds(cfg)) * len(units(cfg))
    if strategy != "auto":
        reason = (
            "must be auto: every other strategy has the devices share one set of parameters, and would merge the "
            "restarts (ddp averages their gradients, fsdp and deepspeed shard and average them)"
        )
        way_out = "With auto, trainer.devices=N splits the restarts over N devices, which exchange nothing."
        raise InputError("trainer.strategy", strategy, reason, way_out)
    if cfg.task.name == "maximization" and devices > restarts:
        way_out = "Lower it, or give more seeds or units."
        raise InputError("trainer.devices", devices, f"must be at most {restarts}, the job's restarts", way_out)


def prior_terms(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """The loss terms with a weight, by name, with their settings."""
    settings: Any = OmegaConf.to_container(cfg.prior, resolve=True)
    return {term: settings[term] for term in PRIOR_TERMS if settings[term]["weight"] > 0}


def parameterizations(cfg: DictConfig) -> list[str]:
    """The parameterizations in use; `check` allows one at most."""
    return [name for name in PARAMETERIZATIONS if cfg.prior[name].use]


def prior_label(cfg: DictConfig) -> str:
    """What a person calls the priors of a job: `none`, `l2`, `simplex+fluency`, `l2 0.5`; a search by its method."""
    if cfg.task.name == "search":
        return str(cfg.search.method)
    weights = {name: (one["weight"], one["scale"]) for name, one in prior_terms(cfg).items()}
    terms = [
        name if weight == (1, "relative") else f"{name} {weight[0]:g}" + " absolute" * (weight[1] == "absolute")
        for name, weight in weights.items()
    ]
    return "+".join([*parameterizations(cfg), *terms]) or "none"


def _check_prior(cfg: DictConfig) -> None:
    for term in PRIOR_TERMS:
        weight = cfg.prior[term].weight
        if not (weight >= 0 and math.isfinite(weight)):
            raise InputError(f"prior.{term}.weight", weight, "must be 0 or a positive number")
    for key in ("manifold.temperature", "fluency.temperature", "simplex.temperature", "simplex.final_temperature"):
        value = OmegaConf.select(cfg.prior, key)
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"prior.{key}", value, "must be a positive number")
    used, terms = parameterizations(cfg), prior_terms(cfg)
    if len(used) > 1:
        allowed = "the optimizee has one parameterization at most, so pca and simplex exclude each other"
        raise InputError("prior", f"[{','.join(used)}]", allowed, "Run them as two jobs: -m prior=pca,simplex.")
    if cfg.tokens < 2 and (alone := terms.keys() & {"fluency", "smooth"}):
        allowed = f"must be at least 2 with prior={min(alone)}, which is about neighbouring positions"
        raise InputError("tokens", cfg.tokens, allowed)
    if cfg.init.name == "tokens" and "manifold" in terms and terms["manifold"]["scale"] == "relative":
        allowed = "cannot be relative with init=tokens, which starts where this prior has no pull to measure by"
        way_out = "Say prior.manifold.scale=absolute and a weight in that scale, or another init."
        raise InputError("prior.manifold.scale", "relative", allowed, way_out)


def check_subject(cfg: DictConfig) -> None:
    """Refuses what the subject lacks, by its config.json alone, and fetches its weights if they are not here yet.

    Raises:
        InputError: names the key, the value and what is allowed.
    """
    if cfg.task.name == "simulation":
        design(cfg)
        return
    subject = cfg.subject
    sizes = _sizes(cfg)
    if cfg.task.name == "tuning":
        _check_tuned(cfg, sizes)
        return
    for unit in units(cfg):
        sizes.check(unit)
    if cfg.task.name == "examples":
        _check_examples(cfg, sizes)
        return
    if cfg.prior.pca.use and cfg.prior.pca.components > sizes.d_model:
        allowed = f"must be at most {sizes.d_model}, the width of {subject.name}"
        raise InputError("prior.pca.components", cfg.prior.pca.components, allowed)
    if cfg.tokens > sizes.context:
        raise InputError("tokens", cfg.tokens, f"must be at most {sizes.context}, the context of {subject.name}")


def _check_tuned(cfg: DictConfig, sizes: Geometry) -> None:
    tuned_places(cfg, sizes)
    check_reading(reading(cfg))
    if cfg.tuning.unit is not None:
        unit = tuned_unit(cfg.tuning.unit)
        try:
            sizes.check(unit)
        except InputError as error:
            raise InputError("tuning.unit", cfg.tuning.unit, f"{error.key} {error.allowed}", error.way_out) from error


def _check_examples(cfg: DictConfig, sizes: Geometry) -> None:
    examples = cfg.examples
    if examples.text is None or not Path(examples.text).exists():
        raise InputError("examples.text", examples.text, "must be a text file or a folder of .txt files")
    if examples.window > sizes.context:
        allowed = f"must be at most {sizes.context}, the context of {cfg.subject.name}"
        raise InputError("examples.window", examples.window, allowed)
    needed = ("gaps.parquet", "summary.json")
    if examples.record is not None and not all((Path(examples.record) / name).is_file() for name in needed):
        allowed = "must be the folder of a maximization's complete record"
        raise InputError("examples.record", examples.record, allowed)


def design(cfg: DictConfig) -> Design:
    """The simulation that a config asks for.

    Raises:
        InputError: names the key under `simulation`.
    """
    from actmax.comparison import Design

    content: Any = OmegaConf.to_container(cfg.simulation, resolve=True)
    try:
        return Design(**{**content, "effects": tuple(content["effects"])})
    except InputError as error:
        raise InputError(f"simulation.{error.key}", error.value, error.allowed, error.way_out) from error


def identity(cfg: DictConfig) -> dict[str, Any]:
    """What identifies a job's work in its config: everything that can change its result."""
    if cfg.task.name == "simulation":
        return {key: _plain(cfg[key]) for key in ("task", "simulation")}
    if cfg.task.name == "tuning":
        return _tuning_identity(cfg)
    others = NOT_OF_SEARCH if cfg.task.name == "search" else ("search",)
    left_out = ("hydra", "simulation", "tuning", "examples", *others)
    content = {str(key): _plain(cfg[key]) for key in cfg if key not in left_out}
    content = {**content, "seeds": seeds(cfg)}
    content["unit"] = [[unit.site, unit.layer, unit.index] for unit in units(cfg)]
    if cfg.task.name == "examples":
        content = {key: content[key] for key in ("task", "subject", "unit")} | {"examples": _plain(cfg.examples)}
        _remove(content, ["examples", "rows"])
    for key in NOT_IDENTITY:
        _remove(content, key.split("."))
    return content


def _tuning_identity(cfg: DictConfig) -> dict[str, Any]:
    content = {key: _plain(cfg[key]) for key in ("task", "subject", "tuning")}
    for key in ("subject.path", "subject.wheel", "tuning.memory", "tuning.batch_tokens"):
        _remove(content, key.split("."))
    return content


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def request(cfg: DictConfig) -> str:
    """Names what is asked for, without loading the weights: the config's identity, and the files it reads.

    Equal requests are the same job; that one job may have several (the same weights in two folders).
    """
    files: dict[str, Any] = {}
    if cfg.task.name != "simulation":
        files = {"weights": fingerprint(**_place(cfg)), "init": init_hash(cfg)}
    if cfg.task.name in ("tuning", "examples"):
        files = {"weights": files["weights"], "data": data_hash(cfg)}
    return job_hash({"config": identity(cfg), **files})


def condition(cfg: DictConfig) -> str:
    """Names everything but the unit and the seed: jobs of one condition may be put together."""
    content = identity(cfg)
    for key in ("unit", "seeds"):
        content.pop(key, None)
    return job_hash({"config": content, "init": init_hash(cfg)})[:12]


def init_hash(cfg: DictConfig) -> str | None:
    """sha256 of the record's file that restarts start from, where they do."""
    if cfg.init.path is None:
        return None
    place = Path(cfg.init.path)
    file = place / "embeddings.safetensors" if place.is_dir() else place
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _place(cfg: DictConfig) -> dict[str, Any]:
    return {key: cfg.subject[key] for key in ("source", "id", "revision", "path", "wheel")}


def _remove(content: dict[str, Any], path: Sequence[str]) -> None:
    *parents, last = path
    for parent in parents:
        content = content.get(parent, {})
    content.pop(last, None)


def job_folder(cfg: DictConfig) -> str:
    """A folder's name for a job, the same for the same work: what a person looks for, then a hash.

    It is asked for before the folder is made, so a config that is wrong in itself leaves nothing behind.
    """
    check(cfg)
    place = {"path": cfg.subject.path, "wheel": cfg.subject.wheel}
    digest = job_hash({"config": identity(cfg), **place})[:10]
    if cfg.task.name == "simulation":
        return f"simulation_{cfg.simulation.distribution}_{digest}"
    if cfg.task.name == "tuning":
        return f"{cfg.subject.name}_{Path(cfg.tuning.data).stem}_{digest}"
    method = cfg.search.method if cfg.task.name == "search" else ""
    parts = [method, cfg.subject.name, cfg.unit.site, _short(cfg.unit.layer), _short(cfg.unit.index), digest]
    return "_".join(part for part in parts if part)


def _short(value: Any) -> str:
    if value is None:
        return ""
    numbers = integers(value, "")
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}to{numbers[-1]}"


def sweep_name(root: DictConfig) -> str:
    """The experiment's name, or the task's where no experiment is chosen."""
    choices: Mapping[str, Any] | None = OmegaConf.select(root, "hydra.runtime.choices")
    if choices is None and HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
    experiment = (choices or {}).get("experiment")
    return str(experiment) if experiment not in (None, "null") else str(root.task.name)


def every_layer(root: DictConfig) -> str:
    """All layers of the subject, as a sweep."""
    return f"range(0,{_sizes(root).layers})"


def every_index(root: DictConfig) -> str:
    """All coordinates of the unit's site, as a range.

    Raises:
        InputError: the subject has no such site.
    """
    sizes = _sizes(root)
    sizes.check_site(root.unit.site)
    return f"0:{sizes.width(root.unit.site)}"


def _sizes(cfg: DictConfig) -> Geometry:
    subject = cfg.subject
    if subject.source == "random" and subject.path is None:
        return geometry(subject.architecture)
    return read_geometry(locate(**_place(cfg)).folder)


def mebibytes(gigabytes: float) -> str:
    """An amount of memory as Slurm reads it, which knows no fractions.

    Example:
        >>> mebibytes(0.5)
        '512M'
    """
    return f"{round(gigabytes * 1024)}M"


def notice_seconds(minutes: int) -> int:
    """How long before its time limit a job is told to queue again: two minutes, or a quarter of a short limit.

    Short limits matter: a job that is told while it still starts dies of it.

    Example:
        >>> notice_seconds(60), notice_seconds(2)
        (120, 30)
    """
    return min(120, minutes * 15)


def register() -> None:
    """Puts the schema and the resolvers where Hydra finds them."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("job_folder", lambda *, _root_: job_folder(_root_), replace=True)
    OmegaConf.register_new_resolver("every_layer", lambda *, _root_: every_layer(_root_), replace=True)
    OmegaConf.register_new_resolver("every_index", lambda *, _root_: every_index(_root_), replace=True)
    OmegaConf.register_new_resolver("per_job", lambda jobs: 1 / jobs, replace=True)
    OmegaConf.register_new_resolver("mebibytes", mebibytes, replace=True)
    OmegaConf.register_new_resolver("notice_seconds", notice_seconds, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda *, _root_: sweep_name(_root_), replace=True)

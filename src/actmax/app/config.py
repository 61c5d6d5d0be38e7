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

from actmax.errors import InputError
from actmax.model.architecture import SITES, Geometry, Unit, geometry, read_geometry
from actmax.records.store import job_hash
from actmax.weights import fingerprint, locate
from actmax.words.lists import BUILT_IN, Reading, check_reading, names_file

if TYPE_CHECKING:
    from actmax.stats.simulation import Design  # scipy and statsmodels: seconds


@dataclass
class SubjectConfig:
    """The language model under study."""

    name: str = MISSING
    """What to call it, in the names of folders and of W&B's runs."""
    source: str = MISSING
    """Where its weights come from: the hub or its cache, a wheel of the package index, or `random` (fresh weights)."""
    id: str | None = None
    """The hub's `owner/name`, or the name of a known wheel (`smollm2`)."""
    revision: str | None = None
    """The hub's branch, tag or commit; null: its main branch."""
    path: str | None = None
    """A folder that `save_pretrained` wrote, in the place of hub, wheel or random weights."""
    wheel: str | None = None
    """The wheel's file, downloaded before, for a machine without a package index."""
    dtype: str = "float32"
    """Of the weights and of every pass; the optimizee stays float32."""
    attention: str = "auto"
    """A kernel that transformers knows, such as `eager` or `sdpa`; `auto` is the model's own choice."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """For `random`: `model_type` and whatever else its Hugging Face config takes."""
    seed: int = 0
    """For `random`: of the weights."""


@dataclass
class UnitConfig:
    """What is maximized; `layer` and `index` take a number, a list or a range."""

    site: str = MISSING
    """Where in a block, in TransformerLens's names; or `final_norm`."""
    layer: Any = MISSING
    """Which block, from 0: a number, a list, or a range such as `"0:12"`; null at `final_norm`."""
    index: Any = MISSING
    """Which coordinate: a number, a list or a range; at q, k, v and z it is head x head_dim + dim."""


@dataclass
class InitConfig:
    """Where restarts start."""

    name: str = MISSING
    """From what noise, or from which embeddings."""
    path: str | None = None
    """For `file`: the folder of an earlier record, or its `embeddings.safetensors`."""
    tensor: str = "final"
    """For `file`: whether from where its restarts began or from where they ended."""


@dataclass
class ObjectiveConfig:
    """What is asked of the unit."""

    reduction: str = "mean"
    """Over positions."""
    sign: str = "maximize"
    """Which way."""


@dataclass
class TermConfig:
    """A loss term; a weight of 0 leaves it out."""

    weight: float = 0.0
    """How hard it pulls; 0 leaves the term out."""
    scale: str = "relative"
    """In what the weight counts: in lengths of the objective's gradient at the start, or as it stands."""


@dataclass
class ManifoldConfig(TermConfig):
    """How near is near: over how many tokens, and how soft a minimum."""

    k: int = 10
    """How many of the nearest tokens count."""
    temperature: float = 0.05
    """How soft the minimum over them is, in the unit of the squared distance (1: the tokens' mean length, squared)."""


@dataclass
class FluencyConfig(TermConfig):
    """How soft the decoded tokens are."""

    temperature: float = 0.01
    """How soft, in cosines: of the softmax over tokens."""


@dataclass
class PrincipalConfig:
    """Whether the optimizee lies in the span of principal components, and of how many."""

    use: bool = False
    """Whether it is in use."""
    components: int = 64
    """How many principal components of the token embeddings."""


@dataclass
class MixtureConfig:
    """Whether the optimizee is a mixture of tokens, and how soft a one before the first step and after the last."""

    use: bool = False
    """Whether it is in use."""
    temperature: float = 0.02
    """Of the softmax over tokens before the first step, in cosines."""
    final_temperature: float = 0.005
    """After the last step; geometric between."""


@dataclass
class PriorConfig:
    """What keeps the embeddings near text: loss terms, and at most one parameterization."""

    l2: TermConfig = field(default_factory=TermConfig)
    """Sum of squares of the embedding."""
    norm: TermConfig = field(default_factory=TermConfig)
    """Each position as long as a token embedding is on average."""
    manifold: ManifoldConfig = field(default_factory=ManifoldConfig)
    """Squared distance to the nearest tokens, a soft minimum."""
    fluency: FluencyConfig = field(default_factory=FluencyConfig)
    """The subject's cross-entropy of the softly decoded tokens."""
    smooth: TermConfig = field(default_factory=TermConfig)
    """Squared differences of neighbouring positions."""
    pca: PrincipalConfig = field(default_factory=PrincipalConfig)
    """The optimizee stays in the span of the token embeddings' first principal components."""
    simplex: MixtureConfig = field(default_factory=MixtureConfig)
    """Each position is a softmax mixture of tokens."""


@dataclass
class OptimizerConfig:
    """How the embeddings move."""

    name: str = MISSING
    """Which; all work element by element, for any other would let restarts feel each other."""
    lr: float = 0.001
    """Learning rate."""
    options: dict[str, Any] = field(default_factory=dict)
    """Its other arguments, as PyTorch names them."""


@dataclass
class TrainerConfig:
    """What the Lightning Trainer is told."""

    accelerator: str = "auto"
    """On what; `auto` takes a GPU where there is one."""
    devices: int = 1
    """Over how many devices of this machine a job's restarts are split."""
    strategy: str = "auto"
    """Must stay `auto`: every other of Lightning's would merge the restarts."""
    deterministic: bool = False
    """Lightning's: only algorithms that give the same bits every time, and an error where there is none."""
    detect_anomaly: bool = False
    """Lightning's: PyTorch's search for the operation that made a NaN in a backward pass; slow."""
    profiler: str | None = None
    """Lightning's, such as `simple`; null: none."""
    compile: bool = False
    """The blocks of the fit's steps through `torch.compile`: some 25 s to begin with, and nothing gained on a CPU."""
    matmul_precision: str = "highest"
    """PyTorch's, of float32 products: `highest`, `high` (TF32 on a GPU that has it) or `medium`; it names the job."""


@dataclass
class DecodeConfig:
    """How embeddings become tokens."""

    top_k: int = 5
    """Nearest tokens to keep for each position."""


@dataclass
class NullConfig:
    """How large the nulls are."""

    pool: int = 50_000
    """Decoded random vectors, made once per subject and cached."""
    draws: int = 1_000
    """Samples from that pool."""
    displacements: int = 100
    """Random displacements of the initial noise (random tokens for a search)."""
    seed: int = 0
    """Of all of them."""


@dataclass
class GapConfig:
    """How large the null of random text is."""

    draws: int = 500
    """Random token sequences that the optimum's tokens are set beside."""
    seed: int = 0
    """Of them."""


@dataclass
class RoundingConfig:
    """How many restarts of each unit are run again to see what arithmetic does, and how."""

    restarts: int = 0
    """How many seeds of each unit to run a second time; 0: none."""
    kernel: str = "other"
    """With another attention kernel than the subject's (eager or sdpa), or the same, one restart at a time."""


@dataclass
class LoggerConfig:
    """Where running measures go."""

    name: str = MISSING
    """CSV in the job's folder, Weights & Biases, or nowhere."""
    project: str = "actmax"
    """Of W&B."""
    entity: str | None = None
    """User or team of W&B; null: your default one."""
    tags: list[str] = field(default_factory=list)
    """Of the W&B run, beside the task, the subject and the site."""


@dataclass
class LaunchConfig:
    """Where the jobs of a multirun run; conf/launch says which key serves which launcher."""

    name: str = "serial"
    """One after the other, Ray on this machine, a Ray cluster, or Slurm."""
    jobs_per_gpu: int = 1
    """Ray (`gpus`, `cluster`): jobs that share a GPU."""
    gpus: int | None = None
    """Ray (`gpus`): GPUs to use, null: all that it finds; Slurm: GPUs of a job, null: none."""
    partition: str | None = None
    """Slurm: null is the cluster's default."""
    minutes: int = 60
    """Slurm: a job's time limit."""
    memory_gb: float = 8.0
    """Slurm: main memory of a job; 0.5 is half."""
    cpus: int = 2
    """Slurm: of a job."""
    parallel: int = 256
    """Slurm: jobs at a time."""
    requeue: int = 3
    """Slurm: how often a job that runs out of time is queued again; it goes on from its checkpoint."""


@dataclass
class SimulationConfig:
    """What `task=simulation` simulates; `effects` is a list."""

    effects: list[float] = field(default_factory=lambda: [step / 4 for step in range(25)])
    """Differences of means, in root mean standard deviations of the two groups; each once."""
    repetitions: int = 200
    """Units drawn per effect."""
    n_0: int = 50
    """Samples in group 0."""
    n_1: int = 50
    """Samples in group 1."""
    distribution: str = "normal"
    """`skewed`: exponential; `heavy`: t with 3 degrees of freedom; `unequal`: normal, standard deviations 1 to 3."""
    alpha: float = 0.05
    """Level of every test."""
    seed: int = 0
    """Of the draws."""


@dataclass
class SearchConfig:
    """How `task=search` searches; docs/search.md says what the keys mean, and how forward passes are counted."""

    method: str = "gcg"
    """Greedy coordinate gradient, evolutionary prompt optimization, or no search: random tokens, or a text's."""
    passes: int = 2000
    """Forward passes per restart; a backward pass counts as one."""
    candidates: int = 160
    """Sequences to evaluate per step of a restart."""
    top_k: int = 256
    """Tokens per position that a swap may take, by their slope."""
    patience: int = 5
    """`gcg`: steps in vain before a restart goes on from a disturbed sequence."""
    generations: int = 30
    """`epo`: before the population begins anew from one member."""
    weights: list[float] = field(default_factory=lambda: [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    """`epo`: on cross-entropy, one per member: standard deviations of the unit over random tokens, per nat."""
    only_text: bool = True
    """Leave out tokens and sequences that nobody can type."""
    text: str | None = None
    """`text`: a text file, or a folder of .txt files, whose sequences are evaluated."""


@dataclass
class TuningConfig:
    """What `task=tuning` reads and compares; docs/tuning.md says more of each."""

    data: str = "nouns_verbs"
    """`nouns_verbs` (built in), or a path: a CSV (word,category[,pair][,context]), a CoNLL-U file, a folder of them."""
    group_0: str | None = None
    """Of a CSV a category (null: the first of two by name); of CoNLL-U a condition: `upos=NOUN`, `meta.KEY=VALUE`."""
    group_1: str | None = None
    """The same of group 1 (null: the other category); differences are group 1 minus group 0."""
    pair: str | None = None
    """CoNLL-U: what partners share, `lemma` or `meta.KEY`, where words are really paired."""
    template: str = " {word}"
    """Around a bare word, behind begin-of-text."""
    vector: str = "last"
    """The word's last sub-token, or the mean over its sub-tokens."""
    bos: str | None = None
    """Begin-of-text; null: <|endoftext|> where it is known, else the tokenizer's own."""
    words: int = 1000
    """CoNLL-U: at most so many words of a group, a random choice."""
    contexts: int = 10
    """CoNLL-U: at most so many sentences of a word, averaged."""
    sites: list[str] = field(default_factory=lambda: ["mlp_pre", "resid_post"])
    """Whose coordinates are compared."""
    layers: Any = "all"
    """Of which blocks: `all`, a number, a list or a range."""
    memory: float = 2.0
    """GB of activations, above which they go to disk."""
    save: bool = False
    """Keep the activations in the record."""
    batch_tokens: int = 1024
    """Tokens of a forward pass."""
    padding: int = 0
    """Tokens by which the texts of a batch may differ in length."""
    alpha: float = 0.05
    """Level of every test, raw and corrected."""
    splits: int = 20
    """Random halvings of the words, for replication."""
    folds: int = 5
    """Of the decoders."""
    C: float = 1.0
    """Inverse strength of the decoders' regularisation."""
    permutations: int = 200
    """Shuffles of the labels, for every null."""
    top: int = 20
    """Units whose words are kept."""
    text: str | None = None
    """A text, or a file, that one unit is drawn over; null: none."""
    unit: str | None = None
    """Of that heat map, SITE.LAYER[INDEX]; null: the most strongly tuned."""
    seed: int = 0
    """Of the choice of words, halves, folds and shuffles."""


@dataclass
class ExamplesConfig:
    """What `task=examples` reads; the units are `unit.*`."""

    text: str | None = None
    """A text file, or a folder of .txt files; streamed."""
    record: str | None = None
    """A maximization's folder, to set what it reached in the same units beside; null: none."""
    bos: str | None = None
    """Begin-of-text; null: <|endoftext|> where it is known, else the tokenizer's own."""
    window: int = 64
    """Tokens that are read together, begin-of-text among them."""
    top: int = 20
    """Contexts of a unit, each from another window."""
    context: int = 10
    """Tokens shown on either side."""
    sample: int = 100_000
    """Positions that quantiles are taken over, a random choice; with fewer they are exact."""
    rows: int = 16
    """Windows of a forward pass."""
    seed: int = 0
    """Of that choice."""


@dataclass
class TaskConfig:
    """Which kind of job this is."""

    name: str = MISSING
    """Maximize over embeddings or over tokens, simulate, compare words, or read text."""


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
    """Lightning callbacks by name, each with its `_target_`; null leaves one out."""
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
    """Of the restarts: a number, a list, or a range such as `"0:10"`."""
    tokens: int = MISSING
    """Positions of an embedding, or tokens of a sequence."""
    steps: int = MISSING
    """Of the optimizer."""
    max_rows: int | None = None
    """Rows of a forward pass; null: all at once, or as many as there is free memory for."""
    sweep: str = MISSING
    """Names the folder below `outputs/`; by default the experiment, or the task where there is none."""
    resume: bool = True
    """Go on from the checkpoint of an interrupted run of the same job."""
    force: bool = False
    """Run again what is complete; the old record moves aside."""
    report: bool = True
    """Show the result; false leaves the record alone."""
    page: bool = True
    """With `report`: write report.html and its figures too."""


PRIOR_TERMS = ("l2", "norm", "manifold", "fluency", "smooth")
PARAMETERIZATIONS = ("pca", "simplex")
PRECISIONS = ("highest", "high", "medium")
"""PyTorch's names for how exact float32 products are, the exact one first."""

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
    "search.method": ("gcg", "epo", "random", "text"),
    "logger.name": ("csv", "wandb", "none"),
    "trainer.matmul_precision": PRECISIONS,
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
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "conf"


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
    if reads_text(cfg):
        return [(Path(cfg.search.text), "*.txt")]
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
    if reads_text(cfg) and (cfg.search.text is None or not Path(cfg.search.text).exists()):
        allowed = "must be a text file or a folder of .txt files with search=text"
        raise InputError("search.text", cfg.search.text, allowed)
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
    from actmax.stats.simulation import Design

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
    if not reads_text(cfg):
        _remove(content, ["search", "text"])
    for key in NOT_IDENTITY:
        _remove(content, key.split("."))
    return content | _precision(cfg)


def reads_text(cfg: DictConfig) -> bool:
    """Whether a search chooses among sequences of a text."""
    return cfg.task.name == "search" and cfg.search.method == "text"


def _tuning_identity(cfg: DictConfig) -> dict[str, Any]:
    content = {key: _plain(cfg[key]) for key in ("task", "subject", "tuning")}
    for key in ("subject.path", "subject.wheel", "tuning.memory", "tuning.batch_tokens"):
        _remove(content, key.split("."))
    return content | _precision(cfg)


def _precision(cfg: DictConfig) -> dict[str, str]:
    """What coarser products add to a job's name."""
    precision = cfg.trainer.matmul_precision
    return {} if precision == PRECISIONS[0] else {"matmul_precision": precision}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def request(cfg: DictConfig) -> str:
    """Names what is asked for, without loading the weights: the config's identity, and the files it reads.

    Equal requests are the same job; that one job may have several (the same weights in two folders).
    """
    files: dict[str, Any] = {}
    if cfg.task.name != "simulation":
        files = {"weights": fingerprint(**_place(cfg)), "init": init_hash(cfg)}
    if cfg.task.name in ("tuning", "examples") or reads_text(cfg):
        files = {"weights": files["weights"], "data": data_hash(cfg)}
    return job_hash({"config": identity(cfg), **files})


def condition(cfg: DictConfig) -> str:
    """Names everything but the unit and the seed: jobs of one condition may be put together."""
    content = identity(cfg)
    for key in ("unit", "seeds"):
        content.pop(key, None)
    files = {"data": data_hash(cfg)} if reads_text(cfg) else {"init": init_hash(cfg)}
    return job_hash({"config": content, **files})[:12]


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


def every_method(root: DictConfig) -> str:
    """All ways to find tokens that a unit responds to, as a sweep; a text's own where `search.text` names one."""
    return f"random,{'' if root.search.text is None else 'text,'}none,simplex,gcg,epo"


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
    # Hydra copies the store of all schemas, which only `store` changes, for each group that --help lists and each job
    setattr(ConfigStore, "__deepcopy__", lambda store, _: store)  # noqa: B010
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("job_folder", lambda *, _root_: job_folder(_root_), replace=True)
    OmegaConf.register_new_resolver("every_layer", lambda *, _root_: every_layer(_root_), replace=True)
    OmegaConf.register_new_resolver("every_method", lambda *, _root_: every_method(_root_), replace=True)
    OmegaConf.register_new_resolver("every_index", lambda *, _root_: every_index(_root_), replace=True)
    OmegaConf.register_new_resolver("per_job", lambda jobs: 1 / jobs, replace=True)
    OmegaConf.register_new_resolver("mebibytes", mebibytes, replace=True)
    OmegaConf.register_new_resolver("notice_seconds", notice_seconds, replace=True)
    OmegaConf.register_new_resolver("sweep_name", lambda *, _root_: sweep_name(_root_), replace=True)

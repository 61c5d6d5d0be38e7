"""Level and power of the verdict card's claims on a real vocabulary, and how far seeds of the nulls move them.

    python scripts/card_calibration.py level                    # nothing to find: how often is something claimed?
    python scripts/card_calibration.py power                    # something planted: how often is it found?
    python scripts/card_calibration.py seeds outputs/mine       # a record's claims under other seeds of the nulls

Every table is printed as Markdown, shares with their Monte Carlo standard error. `level` optimizes 240 restarts first,
and keeps them in outputs/calibration.pt. All of it takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from torch.nn.functional import normalize

import actmax
from actmax.evidence import own_agreement
from actmax.evidence.agreement import agree
from actmax.evidence.findings import unit_findings
from actmax.evidence.gap import predictive
from actmax.evidence.measures import beside_own_moves
from actmax.evidence.nulls import Displaced, Restarts, against, combined
from actmax.evidence.pairs import (
    assigned_cosines,
    jaccards,
    pair_mean,
)
from actmax.evidence.readings import Verdict
from actmax.evidence.settings import RANDOM_MOVES, NullSettings, claim_alpha
from actmax.evidence.verdicts import Agreed, decide
from actmax.maximize import optimizee
from actmax.maximize.module import Maximization
from actmax.model.evaluation import activations, random_activations
from actmax.model.nearest import NearestTokens
from actmax.model.objective import Objective, Row
from actmax.model.settings import GapSettings
from actmax.model.subject import Subject
from actmax.model.target import Unit
from actmax.progress import track
from actmax.stats.corrections import holm
from actmax.tasks.units.measure import measure_units
from actmax.weights import cache_folder

RESTARTS, TOKENS, STEPS = 10, 5, 500
PLACE = ("resid_pre", 8)
STARTS, MOVES, RESULTS = 600, 200, 24
"""Noise vectors of the bank, random moves decoded from each for the nulls, and moves decoded as results."""
SEEDS, CONTROLS = 60, 3
"""Seeds from each of which a different unit is optimized, and control units that are optimized from all of them."""
DRAWS = 999
LEVEL = claim_alpha(RANDOM_MOVES)
KEPT = Path("outputs/calibration.pt")
OBJECTIVE = Objective()


@dataclass
class Bank:
    """Starts with decoded random moves of their own lengths, from which nulls are combined."""

    starts: Tensor
    lengths: Tensor
    kept: Tensor
    ids: Tensor
    cosines: Tensor

    @classmethod
    def make(cls, nearest: NearestTokens, starts: Tensor, lengths: Tensor, generator: torch.Generator) -> Bank:
        """Decodes random moves of every start."""
        decoded = [
            nearest(starts + lengths[:, None] * directions(starts.shape, generator))
            for _ in track(range(MOVES), "bank", unit="move")
        ]
        ids, found = torch.stack([one.best for one in decoded]), torch.stack([one.best_cosine for one in decoded])
        return cls(starts, lengths, nearest(starts).best, ids, found)

    def null(self, places: Tensor, generator: torch.Generator) -> Displaced:
        """What restarts from some starts, (restarts, tokens), would end with by chance."""
        flat = places.flatten()
        picks = torch.randint(MOVES, (DRAWS, len(flat)), generator=generator)
        ids = self.ids[:, flat].gather(0, picks).view(DRAWS, *places.shape)
        return combined(self.kept[places], ids, self.cosines[:, places], RANDOM_MOVES)


@dataclass
class Trial:
    """The results of three units from the same starts, the first of which is judged."""

    initial: Tensor
    moves: Tensor
    ids: Tensor
    cosine: Tensor
    kept: Tensor
    null: Displaced
    p: dict[str, float] = field(default_factory=dict)
    verdict: Verdict = Verdict.NOT_JUDGED
    older: float = 1.0
    """The smaller p, by Holm, of the rule before this one: matched cosine and Jaccard against isotropic moves."""
    candidates: tuple[float, ...] = ()
    """The p of each of `CANDIDATES`."""


def directions(shape: Sequence[int], generator: torch.Generator, dimension: int | None = None) -> Tensor:
    """Directions uniform on the sphere, or on that of a fixed subspace that is turned at random against the axes."""
    noise = torch.randn(*shape, generator=generator)
    if dimension is not None:
        width = shape[-1]
        turn = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(11)))[0]
        noise = noise[..., :dimension] @ turn[:dimension]
    return normalize(noise, dim=-1)


def judge(trial: Trial, seed: int) -> None:
    """Fills in the p of every claim, the verdict, and the older rule's p."""
    zeros = torch.zeros(RESTARTS)
    one = Restarts(trial.initial, trial.initial + trial.moves[0], zeros, zeros, zeros.bool())
    agreement = agree(one, trial.ids[0], trial.null, draws=DRAWS, seed=seed)
    own = own_agreement(trial.ids, trial.moves, seed=seed)
    (decision,) = decide([Agreed.of(agreement)], own.only(0))
    assert decision.direction is not None
    retained = (trial.ids[0] == trial.kept).double().mean().item()
    trial.p = {
        "shared tokens": agreement.nulls["shared_tokens"].p,
        "direction": decision.direction.p,
        "unique": against(len(trial.ids[0].unique()), trial.null.unique).p,
        "cosine": beside_own_moves(trial.cosine, trial.null, NullSettings(draws=DRAWS, seed=seed)).p,
        "retention": against(retained, trial.null.retention).p,
    }
    trial.verdict = decision.verdict
    matched = against(pair_mean(assigned_cosines(trial.moves[0])).item(), isotropic(), alternative="greater").p
    jaccard = pair_mean(jaccards(trial.ids[0])).item()
    p_tokens = against(jaccard, trial.null.agreement["jaccard"][:100], alternative="greater").p
    trial.older = float(holm(np.array([p_tokens, matched])).min())
    signs = ("displacement_cosine_assigned", "displacement_cosine", "direction")
    trial.candidates = (matched, *(agreement.nulls[name].p for name in signs), decision.direction.p)


@cache
def isotropic() -> np.ndarray:
    """The matched cosine of isotropic moves, which depends on nothing but the number of restarts, tokens and dims."""
    generator = torch.Generator().manual_seed(10**6)
    shape = (RESTARTS, TOKENS, 576)
    return np.array([pair_mean(assigned_cosines(directions(shape, generator))).item() for _ in range(DRAWS)])


# what is drawn


def synthetic(
    bank: Bank, nearest: NearestTokens, count: int, seed: int, dimension: int | None = None
) -> Iterator[Trial]:
    """Moves of the bank's lengths with nothing in common, in all directions or in a fixed subspace."""
    generator = torch.Generator().manual_seed(seed)
    shape = (RESULTS, *bank.starts.shape)
    moves = bank.lengths[:, None] * directions(shape, generator, dimension)
    decoded = nearest(bank.starts + moves)
    for _ in range(count):
        places = torch.randperm(STARTS, generator=generator)[: RESTARTS * TOKENS].view(RESTARTS, TOKENS)
        which = torch.rand(*places.shape, RESULTS, generator=generator).argsort(-1)[..., :3].movedim(-1, 0)
        ids, cosine = decoded.best[which, places], decoded.best_cosine[which[0], places]
        null = bank.null(places, generator)
        yield Trial(bank.starts[places], moves[which, places], ids, cosine, bank.kept[places], null)


def skewed(trials: Iterator[Trial], weights: Tensor, seed: int) -> Iterator[Trial]:
    """The same moves with tokens that are drawn from one skewed vocabulary, whatever the unit."""
    generator = torch.Generator().manual_seed(seed)
    for trial in trials:
        drawn = torch.multinomial(weights, trial.ids.numel(), replacement=True, generator=generator)
        yield replace(trial, ids=drawn.view(trial.ids.shape))


def optimized(subject: Subject) -> dict[str, Tensor]:
    """Restarts that each maximize a different unit, and control units from all of their seeds; optimized once."""
    if not KEPT.exists():
        order = np.random.default_rng(0).permutation(subject.geometry.width(PLACE[0])).tolist()
        rows = [Row(Unit(*PLACE, order[CONTROLS + seed]), 1000 + seed) for seed in range(SEEDS)]
        rows += [Row(Unit(*PLACE, order[control]), 1000 + seed) for control in range(CONTROLS) for seed in range(SEEDS)]
        start = optimizee.scaled(subject.embedding_matrix, TOKENS)
        initial = optimizee.initial(start, [row.seed for row in rows])
        module = Maximization(subject, rows, initial, objective=OBJECTIVE, steps=STEPS)
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        Trainer(max_steps=STEPS, max_epochs=-1, accelerator="cpu", **quiet).fit(module)
        before, after = (value.cpu() for value in module.outcome()[:2])
        KEPT.parent.mkdir(exist_ok=True)
        torch.save({"initial": before[:SEEDS], "final": after.view(1 + CONTROLS, SEEDS, *after.shape[1:])}, KEPT)
    return torch.load(KEPT, weights_only=True)


def noise_bank(subject: Subject, nearest: NearestTokens, found: dict[str, Tensor], generator: torch.Generator) -> Bank:
    """Initial noise as a job has it, with moves as long as those of the optimized restarts."""
    lengths = (found["final"][0] - found["initial"]).norm(dim=-1).flatten()
    starts = torch.randn(STARTS, subject.geometry.d_model, generator=generator) * subject.embedding_matrix.std()
    some = lengths[torch.randint(len(lengths), (STARTS,), generator=generator)]
    return Bank.make(nearest, starts, some, generator)


def different_units(nearest: NearestTokens, found: dict[str, Tensor], count: int, seed: int) -> Iterator[Trial]:
    """Ten restarts that each maximize a different unit, beside two of the control units from the same seeds."""
    generator = torch.Generator().manual_seed(seed)
    initial, moves = found["initial"], found["final"] - found["initial"]
    bank = Bank.make(nearest, initial.flatten(0, 1), moves[0].norm(dim=-1).flatten(), generator)
    decoded = nearest(found["final"])
    for _ in range(count):
        seeds = torch.randperm(SEEDS, generator=generator)[:RESTARTS]
        units = torch.cat([torch.zeros(1).long(), 1 + torch.randperm(CONTROLS, generator=generator)[:2]])
        places = seeds[:, None] * TOKENS + torch.arange(TOKENS)
        cosine = decoded.best_cosine[0, seeds]
        null = bank.null(places, generator)
        yield Trial(
            initial[seeds], moves[units][:, seeds], decoded.best[units][:, seeds], cosine, bank.kept[places], null
        )


def with_direction(trial: Trial, cosine: float, generator: torch.Generator) -> Trial:
    """The trial whose first unit's moves have a direction in common, with a pair cosine."""
    moves = trial.moves.clone()
    length = moves[0].norm(dim=-1, keepdim=True)
    common = normalize(torch.randn(moves.shape[-1], generator=generator), dim=-1)
    mixed = (1 - cosine) ** 0.5 * normalize(moves[0], dim=-1) + cosine**0.5 * common
    moves[0] = length * normalize(mixed, dim=-1)
    return replace(trial, moves=moves)


def with_tokens(trial: Trial, share: float, generator: torch.Generator) -> Trial:
    """The trial whose first unit's restarts hold tokens of its own with a probability, so that two share them."""
    ids = trial.ids.clone()
    hit = torch.rand(ids[0].shape, generator=generator) < share**0.5
    ids[0] = torch.where(hit, torch.arange(TOKENS).expand_as(ids[0]), ids[0])
    return replace(trial, ids=ids)


# what is printed


def share(values: Sequence[bool] | np.ndarray) -> str:
    """A share in percent with its Monte Carlo standard error."""
    mean = float(np.mean(values))
    return f"{100 * mean:.1f} ± {100 * (max(mean * (1 - mean), 1e-9) / len(values)) ** 0.5:.1f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table as Markdown."""
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |", flush=True)


def level(subject: Subject, count: int) -> None:
    """Prints how often each claim is made where there is nothing to find."""
    nearest, generator = NearestTokens(subject.embedding_matrix), torch.Generator().manual_seed(5)
    found = optimized(subject)
    bank = noise_bank(subject, nearest, found, generator)
    noise = torch.bincount(bank.ids.flatten(), minlength=nearest.vocabulary).double()
    zipf = torch.zeros(nearest.vocabulary, dtype=torch.float64)
    plain = subject.plain_tokens
    zipf[plain[torch.randperm(len(plain), generator=generator)]] = 1 / (10 + torch.arange(len(plain))).double()
    scenarios: dict[str, Callable[[], Iterator[Trial]]] = {
        "isotropic moves": lambda: synthetic(bank, nearest, count, 1),
        **{f"moves in {k} dimensions": lambda k=k: synthetic(bank, nearest, count, k, k) for k in (520, 480, 440)},
        "a different unit each": lambda: different_units(nearest, found, count, 2),
        "tokens as noise decodes": lambda: skewed(synthetic(bank, nearest, count, 3), noise, 3),
        "tokens by Zipf's law, all units": lambda: skewed(synthetic(bank, nearest, count, 4), zipf, 4),
    }
    random = random_activations(
        subject, OBJECTIVE, (Unit(*PLACE, 91),), TOKENS, GapSettings(), cache_folder() / "nulls"
    )
    means = random[:, 0][predictive(len(random), RESTARTS)].mean(axis=1)
    rows, older, candidates = [], [], []
    claims: dict[str, Any] = {}
    for name, make in scenarios.items():
        trials = list(make())
        for number, trial in enumerate(track(trials, name, unit="trial")):
            judge(trial, number)
        sequences = torch.cat([trial.ids[0] for trial in trials]).tolist()
        texts = activations(subject, OBJECTIVE, sequences, [Unit(*PLACE, 91)] * len(sequences)).reshape(count, -1)
        for trial, values in zip(trials, texts.mean(axis=1), strict=True):
            trial.p["text"] = against(float(values), means, alternative="greater").p
        claims = {claim: np.array([trial.p[claim] <= LEVEL for trial in trials]) for claim in trials[0].p}
        verdicts = [trial.verdict for trial in trials]
        wrong = [verdict not in (Verdict.CHANCE, Verdict.SHARED) for verdict in verdicts]
        shared = [verdict == Verdict.SHARED for verdict in verdicts]
        rows.append([name, *map(share, claims.values()), share(np.any(list(claims.values()), axis=0))])
        older.append([name, share(wrong), share(shared), share([trial.older <= 0.05 for trial in trials])])
        candidates.append([name, *candidate_levels(trials)])
    print(f"\nClaims at {LEVEL:.4f} each, percent of {count} repetitions:\n")
    table(["", *claims, "any claim"], rows)
    print("\nVerdicts:\n")
    table(["", "its own in any degree", "shared with other units", "above chance by the older rule"], older)
    print("\nCandidates for the statistic of moves and its null, each at 5 %:\n")
    table(["", *CANDIDATES], candidates)


CANDIDATES = (
    "matched, isotropic (older)",
    "matched, signs",
    "by position, signs",
    "all positions, signs",
    "all positions, other units",
)


def candidate_levels(trials: Sequence[Trial]) -> list[str]:
    """How often each candidate rejects at 5 %."""
    return [share(column) for column in np.array([trial.candidates for trial in trials]).T <= 0.05]


def power(subject: Subject, count: int) -> None:
    """Prints how often what is planted in the first unit is found."""
    nearest, generator = NearestTokens(subject.embedding_matrix), torch.Generator().manual_seed(6)
    bank = noise_bank(subject, nearest, optimized(subject), generator)
    plain = list(synthetic(bank, nearest, count, 7))
    rows, tokens = [], []
    for cosine in (0.002, 0.005, 0.01, 0.02, 0.05):
        trials = [with_direction(trial, cosine, generator) for trial in plain]
        for number, trial in enumerate(track(trials, f"cosine {cosine}", unit="trial")):
            judge(trial, number)
        found_now = [trial.p["direction"] <= LEVEL for trial in trials]
        rows.append(
            [f"{cosine:g}", share(found_now), share([one.older <= 0.05 for one in trials]), *candidate_levels(trials)]
        )
    for part in (0.02, 0.05, 0.1, 0.2, 0.3):
        trials = [with_tokens(trial, part, generator) for trial in plain]
        for number, trial in enumerate(track(trials, f"share {part}", unit="trial")):
            judge(trial, number)
        verdicts = [trial.verdict for trial in trials]
        tokens.append(
            [
                f"{part:.0%}",
                share([trial.p["shared tokens"] <= LEVEL for trial in trials]),
                share([trial.older <= 0.05 for trial in trials]),
                share([verdict == Verdict.DETECTABLE for verdict in verdicts]),
                share([verdict in (Verdict.PARTLY, Verdict.REPRODUCIBLE) for verdict in verdicts]),
            ]
        )
    print(f"\nA direction in common, percent of {count} repetitions:\n")
    table(["pair cosine", f"claimed (at {LEVEL:.4f})", "older rule (5 %, Holm)", *CANDIDATES], rows)
    print("\nTokens in common:\n")
    table(["share", f"claimed (at {LEVEL:.4f})", "older rule (5 %, Holm)", "detectable", "partly or more"], tokens)


def seeds(subject: Subject, folder: Path, count: int) -> None:
    """Prints a record's claims under other seeds of the nulls, and of the random sequences."""
    from actmax.records.contents import Contents

    result = actmax.open(folder)
    config, restarts = result.config, result.table("restarts")
    tensors = result.contents.tensors("embeddings")
    found: dict[Unit, tuple[list[int], Restarts]] = {}
    for number, row in enumerate(restarts.to_dict("records")):
        found.setdefault(Unit.of_row(row), ([], []))[0].append(number)  # pyright: ignore[reportArgumentType]
    ended = {}
    for unit, (rows, _) in found.items():
        before, after = (torch.tensor(restarts[f"activation_{name}"].to_numpy()[rows]) for name in ("initial", "final"))
        frozen = torch.tensor(restarts["frozen"].to_numpy()[rows])
        one = Restarts(tensors["initial"][rows], tensors["final"][rows], before, after, frozen)
        ended[unit] = (restarts["seed"].to_numpy()[rows].tolist(), one)
    own = {Unit.of_row(row) for row in restarts.to_dict("records") if not row["control"]}
    controls = [unit for unit in ended if unit not in own]
    objective = Objective(**config["objective"])
    for title, options in (
        ("null seed", [(NullSettings(seed=seed), GapSettings()) for seed in range(count)]),
        ("gap seed", [(NullSettings(), GapSettings(seed=seed)) for seed in range(count // 2)]),
    ):
        lines, names = [], []
        for nulls, gaps in options:
            contents = Contents()
            keywords: dict[str, Any] = {"settings": nulls, "gap_settings": gaps, "passes": 2 * config["steps"]}
            keywords |= {"cache": cache_folder() / "nulls", "controls": controls, "objective": objective}
            measure_units(contents, subject, ended, **keywords)
            units = contents.table("units")
            row = units.loc[~units["control"]].iloc[0].to_dict()
            claims = unit_findings(row)
            names = [one.measure.value for one in claims]
            seed = nulls.seed if title == "null seed" else gaps.seed
            cells = [f"{one.p:.4f}{' claimed' if one.claimed else ''}" for one in claims]
            lines.append([str(seed), *cells, str(row["verdict"]), str(row["gap"])])
        print()
        table([title, *names, "verdict", "text"], lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("level", "power", "seeds"))
    parser.add_argument("record", nargs="?", help="a record's folder, for seeds")
    parser.add_argument("--subject", default="smollm2")
    parser.add_argument("--repetitions", type=int, default=None, help="600, and 20 for seeds")
    options = parser.parse_args()
    subject = actmax.load(options.subject).subject
    if options.what == "seeds":
        seeds(subject, Path(options.record), options.repetitions or 20)
    else:
        {"level": level, "power": power}[options.what](subject, options.repetitions or 600)


if __name__ == "__main__":
    main()

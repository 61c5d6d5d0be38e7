"""Decoders of many layers against one set of shuffled labels, each layer's linear algebra done once per fold.

`decode_labels` fits a scikit-learn pipeline per fold and shuffle: right for one set of units, minutes for sixty layers.
Here folds stay and labels are shuffled inside them, so a fold's samples are reduced to their products with each other
once, whatever the number of units; every shuffle is then a column of one small regression. Products of several layers
add up, so the decoder over all layers costs no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num
from numpy import ndarray
from scipy import stats
from scipy.special import expit
from threadpoolctl import threadpool_limits

from actmax.errors import InputError
from actmax.progress import DELAY, Bar
from actmax.stats.decoder import MEASURES, Decoding, _against

TOLERANCE = 1e-9
"""Largest entry of the gradient, in the preconditioned coordinates, at which a fit has converged."""
ITERATIONS = 20_000
"""Largest number of gradient steps of a fit."""
TOGETHER = 1024
"""Labellings that are fitted together, until the last of them has converged."""


@dataclass(frozen=True)
class Folds:
    """Which samples are held out together, and the labels under which decoders are fitted."""

    held_out: Int[ndarray, " samples"]
    """The fold of each sample; samples of one group (one word, one pair) share it."""
    labels: Bool[ndarray, "samples draws"]
    """The labels: as they are in column 0, shuffled within folds in the others."""

    @property
    def count(self) -> int:
        """Number of folds of the cross-validation."""
        return int(self.held_out.max()) + 1


@dataclass(frozen=True)
class Products:
    """Inner products of standardised samples, per fold; those of several sets of units may be added."""

    values: Float[ndarray, "folds samples samples"]
    """The inner products, of units scaled and centred by each fold's training samples."""
    units: int
    """Number of units that the products are sums over."""

    def __add__(self, other: Products) -> Products:
        return Products(self.values + other.values, self.units + other.units)


def make_folds(
    labels: Bool[ndarray, " samples"],
    groups: Sequence[str],
    *,
    folds: int,
    permutations: int,
    seed: int,
    paired: bool = False,
) -> Folds:
    """Splits groups over folds, evenly in each label, and shuffles the labels within the folds.

    Within a fold the shuffle keeps the fold's balance, so that the folds, which know the labels, stay valid for it.
    Pairs are swapped or not, each by itself.

    Args:
        labels: whether each sample is in group 1.
        groups: what must not be split, a name per sample.
        folds: number of folds, at least 2.
        permutations: number of shuffled columns.
        seed: seed of the split and of the shuffles.
        paired: whether a group is a pair, one sample in each class.

    Raises:
        InputError: a fold would lack one of the classes.
    """
    rng = np.random.default_rng(seed)
    held_out = _held_out(labels, groups, folds, rng)
    sides = [len(set(held_out[labels == side])) for side in (False, True)]
    if folds < 2 or min(sides) < folds:
        raise InputError("folds", folds, f"2 to {min(sides)}", "Every fold needs a word of each group.")
    draws = [labels, *(_shuffled(labels, groups, held_out, rng, paired=paired) for _ in range(permutations))]
    return Folds(held_out, np.stack(draws, axis=1))


def _held_out(
    labels: Bool[ndarray, " samples"], groups: Sequence[str], folds: int, rng: np.random.Generator
) -> Int[ndarray, " samples"]:
    """The fold of each sample: groups with the same labels are dealt out in random order, one fold after the other."""
    # A group's kind is the set of its labels: one class, the other, or (a pair) both.
    kinds: dict[str, tuple[bool, ...]] = {}
    for group, label in zip(groups, labels.tolist(), strict=True):
        kinds[group] = (*kinds.get(group, ()), label)
    kinds = {group: tuple(sorted(set(kind))) for group, kind in kinds.items()}
    names = sorted(kinds, key=lambda group: (kinds[group], group))
    order = [
        names_of[place]
        for kind in sorted(set(kinds.values()))
        for names_of in [[name for name in names if kinds[name] == kind]]
        for place in rng.permutation(len(names_of))
    ]
    fold = {group: number % folds for number, group in enumerate(order)}
    return np.array([fold[group] for group in groups])


def _shuffled(
    labels: Bool[ndarray, " samples"],
    groups: Sequence[str],
    held_out: Int[ndarray, " samples"],
    rng: np.random.Generator,
    *,
    paired: bool,
) -> Bool[ndarray, " samples"]:
    """The labels with pairs swapped at random, or else permuted within each fold."""
    if paired:
        swapped = {group: bool(rng.integers(2)) for group in sorted(set(groups))}
        return labels ^ np.array([swapped[group] for group in groups])
    shuffled = labels.copy()
    for fold in range(held_out.max() + 1):
        inside = held_out == fold
        shuffled[inside] = rng.permutation(labels[inside])
    return shuffled


def products(activations: Num[ndarray, "samples units"], folds: Folds) -> Products:
    """The inner products of samples whose units are scaled and centred by each fold's training samples."""
    x = activations.astype(np.float64)
    found = []
    # A linear model fitted with an L2 penalty has its weights in the span of the training samples (the representer
    # theorem), so it sees units only through the samples' inner products.
    for fold in range(folds.count):
        train = folds.held_out != fold
        centred = x - x[train].mean(0)
        spread = centred[train].std(0)
        # A unit that does not vary in training says nothing, also where it does in the fold that is held out.
        scaled = np.divide(centred, spread, out=np.zeros_like(x), where=spread > 1e-12 * np.abs(x).max(0))
        found.append(scaled @ scaled.T)
    return Products(np.stack(found), x.shape[1])


def decode_products(found: Products, folds: Folds, *, C: float | int = 1.0) -> Decoding:
    """Decodes the group from many units together, on words that the decoder has not seen, against shuffled labels.

    Null hypothesis: within folds the labels are exchangeable, that is, the units say nothing about the group.
    Assumptions: groups of samples are independent. Formula: minimize |w|²/2 + C Σ log(1 + exp(-m_i)) on standardised
    units divided by the root of their number, so that a sample's mean square length is 1 and one C serves layers of
    any width: `decode_labels` with C / units. p as there. The fit is Nesterov's accelerated gradient in the training
    samples' principal coordinates, where the bound on the Hessian is diagonal. References: Böhning & Lindsay 1988,
    Ann. Inst. Statist. Math. 40:641; Nesterov 2004, Introductory Lectures on Convex Optimization, 2.2.

    Args:
        found: inner products of the samples.
        folds: which samples are held out, and the labels.
        C: inverse strength of the regularisation.
    """
    if not 0 < C < np.inf:
        raise InputError("C", C, "a finite number above 0", "1 is the usual choice; smaller regularises more.")
    probabilities, draws = np.empty(folds.labels.shape), folds.labels.shape[1]
    # The matrices are small: threads of the linear algebra cost more than they give.
    with threadpool_limits(1), Bar("decoder", folds.count * draws, unit="fit", delay=DELAY) as bar:
        # Divided by the number of units, inner products are means over them, and a sample's square length is about 1.
        for fold, whole in enumerate(found.values / found.units):
            train = folds.held_out != fold
            z, into = _coordinates(whole[np.ix_(train, train)])
            for some in (slice(start, start + TOGETHER) for start in range(0, draws, TOGETHER)):
                weights, intercept = _fit(z, folds.labels[train, some], float(C))
                probabilities[~train, some] = expit(whole[np.ix_(~train, train)] @ (into @ weights) + intercept)
                bar.advance(len(intercept))
    scores = _measures(folds.labels, probabilities)
    null = pd.DataFrame(scores[1:], columns=pd.Index(MEASURES))
    accuracy, auc, loss = scores[0].tolist()
    return Decoding(probabilities[:, 0], folds.held_out, _against((accuracy, auc, loss), null), null, found.units)


def ridge_logistic(
    x: Float[ndarray, "samples units"], labels: Bool[ndarray, "samples draws"], *, C: float | int = 1.0
) -> list[tuple[Float[ndarray, " units"], float]]:
    """The weights of the decoder of `decode_products` fitted to all samples, over raw activations.

    Formula: as there, minimize |v|²/2 + C Σ log(1 + exp(-m_i)), m_i = ±(v · z_i + a), z the standardised units divided
    by the root of their number n. Then v · z + a = w · x + b with w = v / (√n s) and b = a - w · m, m and s the units'
    means and standard deviations.

    Args:
        x: activations.
        labels: the group of each sample, a column for each fit.
        C: inverse strength of the regularisation.

    Returns:
        w and b of each fit: the log odds of group 1 are w · x + b.
    """
    mean, spread, units = x.mean(0), x.std(0), x.shape[1]
    known = spread > 1e-12 * np.abs(x - mean).max(0, initial=0.0)
    per_unit = np.divide(1.0, spread, out=np.zeros(units), where=known & (spread > 0))
    scaled = (x - mean) * per_unit
    with threadpool_limits(1):
        z, into = _coordinates(scaled @ scaled.T / units)
        weights, intercept = _fit(z, labels, float(C))
    found = []
    # v = Z' a / √n for the samples' coefficients a (the representer theorem), so that w = X' a / (n s)
    for column, a in zip((into @ weights).T, intercept.tolist(), strict=True):
        w = scaled.T @ column / units * per_unit
        found.append((w, a - float(w @ mean)))
    return found


def _measures(
    y: Bool[ndarray, "samples draws"], p: Float[ndarray, "samples draws"]
) -> Float[ndarray, "draws measures"]:
    """Accuracy, AUC and log loss of every draw, as `decode_labels` takes them of one."""
    n_1 = y.sum(0)
    n_0 = len(y) - n_1
    # AUC = U_1/(n_0 n_1), with U_1 = R_1 - n_1(n_1 + 1)/2 and R_1 group 1's sum of mid-ranks.
    auc = ((stats.rankdata(p, axis=0) * y).sum(0) - n_1 * (n_1 + 1) / 2) / (n_0 * n_1)
    tiny = np.finfo(np.float64).eps
    loss = -np.log(np.clip(np.where(y, p, 1 - p), tiny, 1 - tiny)).mean(0)
    return np.stack([((p > 0.5) == y).mean(0), auc, loss], axis=1)


def _coordinates(
    train: Float[ndarray, "train train"],
) -> tuple[Float[ndarray, "train rank"], Float[ndarray, "train rank"]]:
    """Principal coordinates of the training samples, and the matrix that turns inner products with them into these."""
    # With K = XX' = VΛV', the coordinates are Z = VΛ^(1/2), since ZZ' = K; and a sample whose products with the
    # training samples are k has the coordinates k'VΛ^(-1/2).
    values, vectors = np.linalg.eigh(train)
    kept = values > max(values[-1], 0.0) * 1e-12
    root = np.sqrt(values[kept])
    # One direction at least has no length: centring took the mean of the training samples out.
    return vectors[:, kept] * root, vectors[:, kept] / root


def _fit(
    z: Float[ndarray, "train rank"], labels: Bool[ndarray, "train draws"], C: float
) -> tuple[Float[ndarray, "rank draws"], Float[ndarray, " draws"]]:
    """L2-regularised logistic regressions, all draws at once; the intercept, the last row, is not penalised."""
    # The Hessian, ridge + C Z' diag(π(1 - π)) Z, is at most ridge + C Z'Z/4 (Böhning & Lindsay), and Z'Z is diagonal
    # in principal coordinates: a scale per coordinate bounds it by the identity, so that 1 is a safe length of step.
    n, sign = len(z), np.where(labels, 1.0, -1.0)
    design = np.concatenate([z, np.ones((n, 1))], axis=1)
    ridge = np.append(np.ones(z.shape[1]), 0.0)
    scale = 1 / np.sqrt(ridge + C * (design**2).sum(0) / 4)
    design = design * scale
    penalty = (ridge * scale**2)[:, None]
    # In these coordinates the objective is at least `penalty` strongly convex; with condition number 1/μ, Nesterov's
    # momentum is (1 - √μ)/(1 + √μ).
    slowest = np.sqrt(penalty[:-1].min() if len(penalty) > 1 else 1.0)
    momentum = (1 - slowest) / (1 + slowest)
    point = ahead = np.zeros((design.shape[1], labels.shape[1]))
    for _ in range(ITERATIONS):
        # -∂ log σ(m)/∂m = σ(-m), so the gradient is ridge · w - C Z'(± σ(-m)), taken where the momentum leads.
        pull = expit(-sign * (design @ ahead))
        gradient = penalty * ahead - C * (design.T @ (sign * pull))
        if np.abs(gradient).max() < TOLERANCE:
            return ahead[:-1] * scale[:-1, None], ahead[-1] * scale[-1]
        step = ahead - gradient
        point, ahead = step, step + momentum * (step - point)
    raise FloatingPointError(f"the decoder has not converged in {ITERATIONS} iterations; a smaller C converges sooner")

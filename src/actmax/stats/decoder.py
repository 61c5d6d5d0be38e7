"""How well several units together tell the groups apart, on samples that the decoder has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import linalg
from scipy.special import expit
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from actmax.errors import InputError
from actmax.stats._inputs import Readable, aligned, check_samples, group_codes, index_of, normalize

MEASURES = ("accuracy", "auc", "log_loss")
"""What is measured of a classifier on held-out samples."""
FEWEST_PERMUTATIONS = 100
"""Smallest number of shuffles that a null may rest on."""
ITERATIONS = 500
"""Largest number of Newton steps of a fit."""
CONVERGED = 1e-18
"""Squared Newton decrement, relative to the objective, from which a fit is at its minimum but for rounding."""
DECIMALS = 12
"""Decimals to which probabilities are compared: what differs further down is rounding."""


@dataclass(frozen=True)
class Decoding:
    """What a cross-validated classifier reaches, beside its null."""

    probabilities: Float[ndarray, " samples"]
    """Each sample's probability of group 1, from the fold in which it was held out."""
    folds: Int[ndarray, " samples"]
    """The fold in which each sample was held out."""
    table: pd.DataFrame
    """A row per measure (`accuracy`, `auc`, `log_loss`): `observed null_mean null_low null_high p`; low and high hold
    95 % of the null, p is one-sided (better than chance) and never below 1/(permutations + 1)."""
    null: pd.DataFrame
    """The same measures with the labels shuffled, a row per permutation."""
    units: int
    """Number of units that the classifier sees together."""


def decode_labels(
    activations: Readable,
    labels: Readable,
    *,
    seed: int | np.random.Generator,
    folds: int = 5,
    C: float | int = 1.0,
    components: int | None = None,
    permutations: int = FEWEST_PERMUTATIONS,
    groups: Readable | None = None,
) -> Decoding:
    """Decodes the group from all units together: cross-validated L2-regularised logistic regression.

    Null hypothesis: the labels are exchangeable, that is, the units say nothing about the group. Assumptions: samples
    are independent, or those of different `groups` are: a word that occurs twice must not fall into two folds, where it
    would be recognised rather than decoded. Formula: minimize |w|²/2 + C Σ s_i log(1 + exp(-m_i)) on standardised
    units, with weights s_i that give the training samples' classes the shares of the whole, so that units that say
    nothing decode to these shares, whatever the folds; p = (1 + number of shuffles at least as good) / (1 + shuffles).
    Scaling and projection are fitted on the training folds only. Reference: Ojala & Garriga 2010, JMLR 11:1833; Phipson
    & Smyth 2010, SAGMB 9:39; for groups, Good 2005, Permutation Tests, chapter 7.

    Args:
        activations: (samples, units) or (samples,), finite.
        labels: 0 or 1 per sample.
        seed: an integer or a numpy Generator, for folds and shuffles.
        folds: folds of the cross-validation, at least 2 and at most the smaller group's size.
        C: inverse strength of the regularisation.
        components: principal components to project onto first; None keeps every unit.
        permutations: shuffles of the labels, at least 100.
        groups: a name per sample, the same for samples that belong together (the occurrences of one word, the tokens of
            one text). They are held out together. Groups of one label exchange labels as wholes, samples of groups with
            both labels inside their group.

    Raises:
        InputError: names the argument, its value, what is allowed and the way out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(40, 5)), np.repeat([0, 1], 20)
        >>> float(decode_labels(x + 2 * y[:, None], y, seed=0, folds=2).table.loc["accuracy", "observed"]) > 0.9
        True
    """
    x, y, names = _read(activations, labels, groups)
    _check_settings(x, y, folds, C, components, permutations, names)
    rng, model = np.random.default_rng(seed), _model(C, components, x.shape)
    # threads cost small fits more than they give
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        probabilities, held_out = _out_of_fold(model, x, y, folds, rng, names)
        null = [_shuffled(model, x, y, folds, rng, names) for _ in range(permutations)]
    frame = pd.DataFrame(null, columns=pd.Index(MEASURES))
    return Decoding(probabilities, held_out, _against(_measure(y, probabilities), frame), frame, x.shape[1])


def _read(activations: Readable, labels: Readable, groups: Readable | None) -> tuple[ndarray, ndarray, ndarray | None]:
    """The samples, the labels, and a number for each sample's group.

    Samples are scaled by powers of two, which the scaling inside the folds takes out again: its variances would
    overflow at 1e200.
    """
    samples = check_samples(activations, labels)
    names = None
    if groups is not None:
        names = group_codes("groups", aligned("groups", groups, index_of(activations)), len(samples.is_1))[0]
    return np.ascontiguousarray(normalize(samples.values.astype(np.float64).T)[0].T), samples.is_1, names


def _check_settings(
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    C: float | int,
    components: int | None,
    permutations: int,
    names: Int[ndarray, " samples"] | None,
) -> None:
    """Refuses units that are not finite, and numbers that the samples do not allow.

    Raises:
        InputError: names the argument.
    """
    names = np.arange(len(y)) if names is None else names
    smaller = min(len(np.unique(names[y])), len(np.unique(names[~y])))
    broken = np.flatnonzero(~np.isfinite(x).all(axis=0))
    if len(broken):
        way_out = "Leave these units out."
        raise InputError("activations", f"NaN or inf in units {broken[:5].tolist()}", "finite numbers", way_out)
    if not 2 <= folds <= smaller:
        allowed = f"2 to {smaller}, the number of samples (or groups=) that hold the rarer label"
        raise InputError("folds", folds, allowed, "Every fold needs a sample of each label.")
    if not 0 < C < np.inf:
        raise InputError("C", C, "a finite number above 0", "1 is the usual choice; smaller regularises more.")
    if permutations < FEWEST_PERMUTATIONS:
        allowed = f"at least {FEWEST_PERMUTATIONS}"
        raise InputError("permutations", permutations, allowed, "p cannot be below 1/(permutations + 1).")
    # The smallest training part: all samples but the largest fold's groups; centred, its rank is one less.
    sizes = np.sort(np.bincount(names))
    trained = len(y) - int(sizes[-(-len(sizes) // folds) * -1 :].sum())
    if components is not None and not 1 <= components <= min(trained - 1, x.shape[1]):
        allowed = f"1 to {min(trained - 1, x.shape[1])} (units, and samples of a training fold less one)"
        raise InputError("components", components, allowed, "None keeps every unit.")


def _model(C: float | int, components: int | None, shape: tuple[int, ...]) -> Pipeline:
    """Scaling, projection and regression, fitted together.

    With more units than samples all principal components are taken: L2-regularised weights lie in the samples' span, so
    that changes no prediction, and Newton's matrix is as small as the samples are few.
    """
    # With weights w = Σ a_i x_i + w⊥, w⊥ orthogonal to every training sample, w⊥ changes no margin and only adds to
    # |w|²: at the minimum it is 0, so that nothing is lost in the coordinates of all principal components.
    projection = [PCA(components, svd_solver="full")] if components is not None or shape[1] > shape[0] else []
    return make_pipeline(StandardScaler(), *projection, RidgeLogistic(C))


class RidgeLogistic(ClassifierMixin, BaseEstimator):
    """L2-regularised logistic regression with weighted samples, by Newton's method with step-halving.

    Formula: minimize |w|²/2 + C Σ s_i log(1 + exp(-m_i)), m_i = ±(w·x_i + b); the intercept b is not penalised. The
    objective is strictly convex in w, so that a unit without variance is no obstacle: its weight is 0.

    Args:
        C: inverse strength of the regularisation.
    """

    def __init__(self, C: float | int) -> None:
        self.C = C

    def fit(
        self,
        x: Float[ndarray, "samples units"],
        y: Bool[ndarray, " samples"],
        sample_weight: Float[ndarray, " samples"],
    ) -> RidgeLogistic:
        """Fits weights and intercept.

        Raises:
            FloatingPointError: not converged.
        """
        design, sign = np.column_stack([x, np.ones(len(x))]), np.where(y, 1.0, -1.0)
        ridge, weight = np.append(np.ones(x.shape[1]), 0.0), float(self.C) * sample_weight

        def objective(at: Float[ndarray, " columns"]) -> float:
            return float(ridge @ at**2 / 2 + weight @ np.logaddexp(0, -sign * (design @ at)))

        here, value = np.zeros(len(ridge)), np.inf
        for _ in range(ITERATIONS):
            # -∂ log σ(m)/∂m = σ(-m), and the curvature is σ(m) σ(-m).
            margin = sign * (design @ here)
            wrong = expit(-margin)
            gradient = ridge * here - design.T @ (weight * sign * wrong)
            curvature = (design.T * (weight * wrong * expit(margin))) @ design + np.diag(ridge)
            step = linalg.solve(curvature, -gradient, assume_a="pos", check_finite=False)
            decrement = -gradient @ step
            value = objective(here) if np.isinf(value) else value
            if decrement <= CONVERGED * (1 + value):
                self.coef_, self.intercept_ = here[:-1] + step[:-1], here[-1] + step[-1]
                return self
            while (there := objective(here + step)) > value + 1e-12 * (1 + value):
                step = step / 2
            here, value = here + step, there
        raise FloatingPointError(f"the decoder has not converged in {ITERATIONS} steps; a smaller C converges sooner")

    def predict_proba(self, x: Float[ndarray, "samples units"]) -> Float[ndarray, " samples"]:
        """The probability of group 1."""
        return expit(x @ self.coef_ + self.intercept_)


def _out_of_fold(
    model: Pipeline,
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    rng: np.random.Generator,
    names: Int[ndarray, " samples"] | None = None,
) -> tuple[Float[ndarray, " samples"], Int[ndarray, " samples"]]:
    """Every sample's probability from a model that never saw it, and the fold that held it out."""
    probabilities, held_out = np.empty(len(y)), _folds(y, folds, rng, names)
    for fold in range(folds):
        test = held_out == fold
        train, seen = ~test, y[~test]
        # The training samples' classes weigh as in the whole: else a fold's intercept would tell something of the
        # held-out labels.
        weight = np.where(seen, y.mean() / seen.mean(), (~y).mean() / (~seen).mean())
        # Units that are constant in a fold have no variance to share out; PCA divides by it all the same.
        with np.errstate(invalid="ignore"):
            fitted = model.fit(x[train], seen, ridgelogistic__sample_weight=weight)
            probabilities[test] = fitted.predict_proba(x[test])
    return probabilities, held_out


def _folds(
    y: Bool[ndarray, " samples"], folds: int, rng: np.random.Generator, names: Int[ndarray, " samples"] | None
) -> Int[ndarray, " samples"]:
    """The fold of each sample: with the classes' shares of the whole, and no group in two."""
    if names is None:
        held_out = np.empty(len(y), dtype=np.int64)
        splitter = StratifiedKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
        for fold, (_, test) in enumerate(splitter.split(y, y)):
            held_out[test] = fold
        return held_out
    # Groups are dealt out one fold after the other, those of label 0 first, of both next, of 1 last, so that each label
    # meets every fold; among groups of one kind in random order, the largest first.
    size, ones = np.bincount(names), np.bincount(names, weights=y)
    kind = np.where(ones == 0, 0, np.where(ones == size, 2, 1))
    fold = np.empty(len(size), dtype=np.int64)
    fold[np.lexsort((rng.permutation(len(size)), -size, kind))] = np.arange(len(size)) % folds
    return fold[names]


def _shuffled(
    model: Pipeline,
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    rng: np.random.Generator,
    names: Int[ndarray, " samples"] | None,
) -> tuple[float, float, float]:
    """The measures with the labels shuffled, everything else the same."""
    y = rng.permutation(y) if names is None else _exchanged(y, names, rng)
    return _measure(y, _out_of_fold(model, x, y, folds, rng, names)[0])


def _exchanged(
    y: Bool[ndarray, " samples"], names: Int[ndarray, " samples"], rng: np.random.Generator
) -> Bool[ndarray, " samples"]:
    """The labels exchanged between groups of one label as wholes, and within each group of both labels."""
    size, ones = np.bincount(names), np.bincount(names, weights=y)
    pure = (ones == 0) | (ones == size)
    of_group = ones > 0
    of_group[pure] = rng.permutation(of_group[pure])
    shuffled = of_group[names]
    for group in np.flatnonzero(~pure):
        inside = names == group
        shuffled[inside] = rng.permutation(y[inside])
    return shuffled


def _measure(y: Bool[ndarray, " samples"], p: Float[ndarray, " samples"]) -> tuple[float, float, float]:
    """Accuracy, AUC and log loss (nats) of the out-of-fold probabilities, all folds together."""
    # All folds together, each sample once: an AUC within small folds would be coarse. Rounded, for probabilities of
    # units that say nothing are equal but for the last digits, which must not decide.
    p = np.round(p, DECIMALS)
    return float(accuracy_score(y, p > 0.5)), float(roc_auc_score(y, p)), float(log_loss(y, p))


def _against(observed: tuple[float, float, float], null: pd.DataFrame) -> pd.DataFrame:
    """The observed measures beside their null."""
    # Under the null the observed labels are one draw like the others, so p = (1 + number as good)/(1 + draws) is never
    # 0, and at most α with probability at most α (Phipson & Smyth).
    rows = []
    for name, value in zip(MEASURES, observed, strict=True):
        draws = null[name].to_numpy()
        gain = value - draws if name == "log_loss" else draws - value
        better = np.round(gain, DECIMALS - 3) >= 0
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append((value, draws.mean(), low, high, (1 + better.sum()) / (1 + len(draws))))
    names = pd.Index(["observed", "null_mean", "null_low", "null_high", "p"])
    return pd.DataFrame(rows, index=pd.Index(MEASURES, name="measure"), columns=names)

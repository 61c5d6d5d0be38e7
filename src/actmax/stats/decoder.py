"""How well several units together tell the groups apart, on samples that the decoder has not seen."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike
from sklearn import config_context
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from actmax.errors import InputError
from actmax.stats._inputs import check_samples, normalize

MEASURES = ("accuracy", "auc", "log_loss")
"""What is measured of a classifier on held-out samples."""
FEWEST_PERMUTATIONS = 100
"""Smallest number of shuffles that a null may rest on."""
ITERATIONS = 5000
"""Largest number of Newton steps of a fit."""


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
    activations: ArrayLike,
    labels: ArrayLike,
    *,
    seed: int | np.random.Generator,
    folds: int = 5,
    C: float | int = 1.0,
    components: int | None = None,
    permutations: int = FEWEST_PERMUTATIONS,
) -> Decoding:
    """Decodes the group from all units together: cross-validated L2-regularised logistic regression.

    Null hypothesis: the labels are exchangeable, that is, the units say nothing about the group. Assumptions: samples
    are independent; a word that occurs twice must not fall into two folds. Formula: minimize |w|²/2 + C Σ log(1 +
    exp(-m_i)) on standardised units; p = (1 + number of shuffles at least as good) / (1 + shuffles). Scaling and
    projection are fitted on the training folds only. Reference: Ojala & Garriga 2010, JMLR 11:1833; Phipson & Smyth
    2010, SAGMB 9:39.

    Args:
        activations: (samples, units) or (samples,), finite.
        labels: 0 or 1 per sample.
        seed: an integer or a numpy Generator, for folds and shuffles.
        folds: folds of the cross-validation, at least 2 and at most the smaller group's size.
        C: inverse strength of the regularisation.
        components: project onto so many principal components first; None keeps every unit.
        permutations: shuffles of the labels, at least 100.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(40, 5)), np.repeat([0, 1], 20)
        >>> float(decode_labels(x + 2 * y[:, None], y, seed=0, folds=2).table.loc["accuracy", "observed"]) > 0.9
        True
    """
    samples = check_samples(activations, labels)
    x, y = samples.values.astype(np.float64), samples.is_1
    _check_settings(x, y, folds, C, components, permutations)
    # Powers of two, which the scaling inside the folds takes out again: its variances would overflow at 1e200.
    x = np.ascontiguousarray(normalize(x.T)[0].T)
    rng = np.random.default_rng(seed)
    model = _model(C, components, x.shape)
    # Hundreds of small fits: threads of the linear algebra cost more than they give, a hundredfold on a busy machine.
    # What enters is checked here, once; scikit-learn would check it again at every step of every fit.
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
        probabilities, held_out = _out_of_fold(model, x, y, folds, rng)
        # A shuffle goes through the same folds and fits as the observed labels, with its own random folds.
        null = [_shuffled(model, x, y, folds, rng) for _ in range(permutations)]
    frame = pd.DataFrame(null, columns=pd.Index(MEASURES))
    return Decoding(probabilities, held_out, _against(_measure(y, probabilities), frame), frame, x.shape[1])


def _check_settings(
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    C: float | int,
    components: int | None,
    permutations: int,
) -> None:
    """Refuses units that are not finite, and numbers that the samples do not allow.

    Raises:
        InputError: names the argument.
    """
    smaller = int(min(y.sum(), (~y).sum()))
    broken = np.flatnonzero(~np.isfinite(x).all(axis=0))
    if len(broken):
        way_out = "Leave these units out."
        raise InputError("activations", f"NaN or inf in units {broken[:5].tolist()}", "finite numbers", way_out)
    if not 2 <= folds <= smaller:
        allowed = f"2 to {smaller}, the smaller group's size"
        raise InputError("folds", folds, allowed, "Every fold needs a sample of each group.")
    if not 0 < C < np.inf:
        raise InputError("C", C, "a finite number above 0", "1 is the usual choice; smaller regularises more.")
    if permutations < FEWEST_PERMUTATIONS:
        allowed = f"at least {FEWEST_PERMUTATIONS}"
        raise InputError("permutations", permutations, allowed, "p cannot be below 1/(permutations + 1).")
    # The smallest training part: all samples but the largest fold; centred, its rank is one less.
    trained = len(y) - -(-len(y) // folds)
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
    regression = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-8, max_iter=ITERATIONS)
    return make_pipeline(StandardScaler(), *projection, regression)


def _out_of_fold(
    model: Pipeline,
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    rng: np.random.Generator,
) -> tuple[Float[ndarray, " samples"], Int[ndarray, " samples"]]:
    """Every sample's probability from a model that never saw it, and the fold that held it out."""
    probabilities, held_out = np.empty(len(y)), np.empty(len(y), dtype=np.int64)
    # Folds with the classes' shares of the whole: else a fold's intercept would tell something of the held-out labels.
    splitter = StratifiedKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    for fold, (train, test) in enumerate(splitter.split(x, y)):
        # Units that are constant in a fold have no variance to share out; PCA divides by it all the same.
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            # A decoder that has not converged is a wrong number; it must not be a line on stderr.
            warnings.simplefilter("error", ConvergenceWarning)
            probabilities[test] = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
        held_out[test] = fold
    return probabilities, held_out


def _shuffled(
    model: Pipeline,
    x: Float[ndarray, "samples units"],
    y: Bool[ndarray, " samples"],
    folds: int,
    rng: np.random.Generator,
) -> tuple[float, float, float]:
    """The measures with the labels shuffled, everything else the same."""
    y = rng.permutation(y)
    return _measure(y, _out_of_fold(model, x, y, folds, rng)[0])


def _measure(y: Bool[ndarray, " samples"], p: Float[ndarray, " samples"]) -> tuple[float, float, float]:
    """Accuracy, AUC and log loss (nats) of the out-of-fold probabilities, all folds together."""
    # All folds together, each sample once: an AUC within small folds would be coarse.
    return float(accuracy_score(y, p > 0.5)), float(roc_auc_score(y, p)), float(log_loss(y, p))


def _against(observed: tuple[float, float, float], null: pd.DataFrame) -> pd.DataFrame:
    """The observed measures beside their null."""
    # Under the null the observed labels are one draw like the others, so p = (1 + number as good)/(1 + draws) is never
    # 0, and at most α with probability at most α (Phipson & Smyth).
    rows = []
    for name, value in zip(MEASURES, observed, strict=True):
        draws = null[name].to_numpy()
        better = draws <= value if name == "log_loss" else draws >= value
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append((value, draws.mean(), low, high, (1 + better.sum()) / (1 + len(draws))))
    names = pd.Index(["observed", "null_mean", "null_low", "null_high", "p"])
    return pd.DataFrame(rows, index=pd.Index(MEASURES, name="measure"), columns=names)

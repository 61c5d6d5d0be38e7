"""Logistic regression on one predictor, all units at once: maximum likelihood and Firth's penalised likelihood.

Each unit is a Newton iteration with step-halving, its 2×2 system solved in closed form. Everything is written in the
margin m = ±(α + βx), positive where a sample is classified as what it is, so that swapping the labels changes the signs
of α and β and not one other bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from actmax.stats._inputs import Block

ITERATIONS = 1500
"""Largest number of Newton steps: near-separated units, and units that one far sample holds at β = 0, add about 1 to
their margins per step, and so need many; a sample 1e300 times as far as the others needs 1,400."""
CONVERGED = 1e-16
"""Squared Newton decrement before the last step: it leaves both estimates within 1e-16 standard errors."""
SETTLED = 1e-6
"""Change of a sample's log odds in the last step: Newton squares it, and what is left is rounding."""
SATURATED = 40.0
"""Log odds from which a sample's weight, e⁻⁴⁰, is nothing beside another sample's of the same leverage."""
FAR = 2.0**6
"""Distance from the middle, in half interquartile ranges, from which a sample would cost the others digits."""
SLACK = 1e-13
"""Relative drop of the objective that is rounding and not a step too far."""
DEFINITE = 0.02
"""Firth's curvature, relative to the information, below which its Newton step gives way to Fisher scoring."""
OUTLIER_FROM = (6.0, 36.0, 216.0)
"""Reaches (half interquartile ranges; the first are about 4 standard deviations of a normal) beyond which samples are
drawn in for a start of Firth's fit: one start for each scale that samples may lie on."""
FEW = 5
"""Share of the samples, 1/FEW, up to which so few are on the wrong side of a cut that a maximum may stand there."""
CUTS, SLOPES, CLIMBED = 4, 20, 6
"""Cuts between neighbouring samples that are tried on either side, slopes tried at each, and how many are climbed."""
ELSEWHERE = 4.0
"""Standard errors from a maximum's slope, or the slope itself if that is more, from which on a higher one is bounded;
in units with far samples always the slope itself."""
DISTINCT = 1e-9
"""Relative difference of two maxima of Firth's objective from which it is more than rounding."""
PRODUCT = 512
"""Factors from 1 to 2 whose product surely stays below float64's largest number."""


class Side(NamedTuple):
    """The class of each sample, as a sign, and the size of both classes."""

    sign: Float[ndarray, " samples"]
    """+1 in group 1, -1 in group 0."""
    n_0: int
    """Number of samples in group 0."""
    n_1: int
    """Number of samples in group 1."""


class Predictor(NamedTuple):
    """The predictor of some units in a scale that keeps every sample's digits: raw = (values + offset) 2^exponent."""

    values: Float[ndarray, "units samples"]
    """The values in that scale, which are fitted."""
    exponent: Float[ndarray, " units"] | Int[ndarray, " units"]
    """Binary logarithm of the scale."""
    offset: Float[ndarray, " units"]
    """Number that was subtracted, in units of the scale."""
    side: Side
    """The two classes of the samples."""


class Fit(NamedTuple):
    """Estimates per unit, in the units of the x that was fitted; NaN where not converged."""

    intercept: Float[ndarray, " units"]
    """Estimate of α, the log odds at x = 0."""
    slope: Float[ndarray, " units"]
    """Estimate of β, the log odds per unit of x."""
    se: Float[ndarray, " units"]
    """Standard error of β: root of the inverse expected Fisher information at the estimate."""
    lr: Float[ndarray, " units"]
    """Likelihood-ratio statistic of β = 0; penalised in a Firth fit."""
    converged: Bool[ndarray, " units"]
    """Whether Newton's method met the criterion of convergence."""


class _Point(NamedTuple):
    """An objective at one pair (α, β) per unit, and the Newton step from there."""

    value: Float[ndarray, " units"]
    """Value of the objective, to be maximized."""
    step_intercept: Float[ndarray, " units"]
    """Newton step of the intercept α."""
    step_slope: Float[ndarray, " units"]
    """Newton step of the slope β."""
    decrement: Float[ndarray, " units"]
    """Gradient times Newton step: the squared length of the step, in standard errors."""

    def update(self, rows: ndarray, other: _Point) -> _Point:
        """These points, with the chosen units' taken from another set."""
        return _Point(*(np.where(rows, new, old) for old, new in zip(self, other, strict=True)))

    def take(self, rows: ndarray) -> _Point:
        """The points of the chosen units alone."""
        return _Point(*(field[rows] for field in self))


_Objective = Callable[[ndarray, ndarray, ndarray, ndarray], _Point]
"""An objective, evaluated at x, signs, intercepts and slopes."""


def side_of(is_1: Bool[ndarray, " samples"]) -> Side:
    """The classes as signs and counts."""
    n_1 = int(is_1.sum())
    return Side(np.where(is_1, 1.0, -1.0), len(is_1) - n_1, n_1)


def predictor_of(block: Block) -> Predictor:
    """A block's centred values; about the median, and in a scale between near and far, where samples are far off.

    A sample 1e38 times as far off as the others moves the mean so far that they are all one number beside it.
    """
    values, offset = block.centred, np.ldexp(block.centre, -block.spread_exponent)
    exponent = block.exponent + block.spread_exponent
    middle, reach = _middle(values)
    # The largest of the centred values lies in [1/2, 1).
    rows = np.flatnonzero((FAR * reach < 1) & values.any(axis=1))
    if len(rows):
        scaled = block.scaled[rows]
        # The middle is a sample, so that it and its ties are exactly 0 and the others lose no digit.
        middle = _middle(scaled)[0]
        away = scaled - middle[:, None]
        size = np.abs(away)
        near = np.where(size > 0, size, np.inf).min(axis=1)
        own = np.rint((np.log2(near) + np.log2(size.max(axis=1))) / 2).astype(np.int64)
        values, offset, exponent = values.copy(), offset.copy(), exponent.copy()
        values[rows], offset[rows] = np.ldexp(away, -own[:, None]), np.ldexp(middle, -own)
        exponent[rows] = block.exponent[rows] + own
    return Predictor(values, exponent, offset, side_of(block.is_1))


def _middle(x: ndarray) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"]]:
    """The lower median of each row, which is one of its values, and half its interquartile range."""
    last = x.shape[1] - 1
    places = last // 4, last // 2, last - last // 4
    # Sorted whole, since numpy sorts in vector instructions and partitions without them: ten times as fast.
    ordered = np.sort(x, axis=1)
    return ordered[:, places[1]], (ordered[:, places[2]] - ordered[:, places[0]]) / 2


def fit_ml(x: Float[ndarray, "units samples"], side: Side) -> Fit:
    """Maximum likelihood: logit P(y = 1) = α + βx.

    Null hypothesis of its tests: β = 0. Assumptions: independent samples, log odds linear in x, groups that overlap
    (else there is no maximum). Formulas: Wald z = β/se; LR = 2(ℓ(α̂, β̂) - ℓ(α̂_0, 0)). Reference: Albert & Anderson
    1984, Biometrika 71:1, for when the maximum exists; Hauck & Donner 1977, JASA 72:851, for why Wald's p returns to 1
    as the groups part. Example: `compare(x, y).table[["logit_coef", "logit_lr_p"]]`.
    """
    # Without a slope the likelihood has its maximum at the log odds of the classes: it is start and null model in one.
    start = np.log(side.n_1) - np.log(side.n_0)
    intercept, slope, converged, _ = _maximize(_likelihood, x, side.sign, *_flat(x, start))
    # The information is diagonal at the centre of x, so its inverse's entry for the slope is 1/spread.
    at = _local(x, side.sign, intercept, slope)
    lost = _lost_margin(x, side.sign, intercept, slope, start)
    lr = _likelihood_ratio(lost, 1 / (1 + np.exp(side.sign * start)))
    return _fit(intercept, slope, 1 / np.sqrt(at.spread), lr, converged)


def fit_firth(x: Float[ndarray, "units samples"], side: Side) -> Fit:
    """Firth's penalised likelihood, ℓ* = ℓ + ½ log |I(α, β)|: finite under separation, first-order unbiased.

    Null hypothesis of its test: β = 0. Assumptions: independent samples, log odds linear in x. Formula: LR = 2(ℓ*(α̂,
    β̂) - max_α ℓ*(α, 0)) with the full model's 2×2 information in both penalties; at β = 0 the maximum is in closed
    form, odds (n_1 + 1)/(n_0 + 1). The standard error is brglm2's: inverse expected information, without the penalty's
    own curvature. ℓ* may have several maxima where x has outliers or the groups (nearly) part: the highest found from
    several starts is taken (`_highest`). References: Firth 1993, Biometrika 80:27; Heinze & Schemper 2002,
    Statist. Med. 21:2409. Example: `compare(x, y).table[["firth_coef", "firth_lr_p"]]`.
    """
    # At β = 0 all weights are π(1 - π), so |I| is (π(1 - π))² times a constant, and ℓ* = (n_1 + 1) log π + (n_0 + 1)
    # log(1 - π) + constant: the penalty adds one sample to either class.
    start = np.log(side.n_1 + 1) - np.log(side.n_0 + 1)
    intercept, slope, converged, _ = _highest(x, side.sign, start)
    at = _local(x, side.sign, intercept, slope)
    lost, wrong = _lost_margin(x, side.sign, intercept, slope, start), 1 / (1 + np.exp(side.sign * start))
    # 2(ℓ* - ℓ*_0) = 2(ℓ - ℓ_0) + log |I| - log |I_0|.
    lr = _likelihood_ratio(lost, wrong) + _information_ratio(at, x, lost, wrong)
    return _fit(intercept, slope, 1 / np.sqrt(at.spread), lr, converged)


def probabilities(
    x: Float[ndarray, "units samples"], intercept: Float[ndarray, " units"], slope: Float[ndarray, " units"]
) -> Float[ndarray, "units samples"]:
    """P(y = 1 | x) at every sample."""
    # Where exp overflows to inf, the probability is 0, as it should be.
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-(intercept[:, None] + slope[:, None] * x)))


def _fit(intercept: ndarray, slope: ndarray, se: ndarray, lr: ndarray, converged: ndarray) -> Fit:
    # Rounding may leave a likelihood ratio of nothing at -1e-17.
    kept = [np.where(converged, column, np.nan) for column in (intercept, slope, se, np.maximum(lr, 0.0))]
    return Fit(kept[0], kept[1], kept[2], kept[3], converged)


def _flat(x: ndarray, intercept: float) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"]]:
    """Intercepts and slopes of β = 0, to start from."""
    return np.full(len(x), intercept), np.zeros(len(x))


class _Best(NamedTuple):
    """The highest maximum found so far, changed in place."""

    intercept: Float[ndarray, " units"]
    """Intercept α at the highest maximum found."""
    slope: Float[ndarray, " units"]
    """Slope β at the highest maximum found."""
    converged: Bool[ndarray, " units"]
    """Whether any maximum was found."""
    value: Float[ndarray, " units"]
    """Penalised log likelihood at that maximum."""

    def take(self, rows: ndarray) -> _Best:
        """Those of the chosen units."""
        return _Best(*(field[rows] for field in self))

    def climb(self, x: ndarray, sign: ndarray, rows: ndarray, intercept: ndarray, slope: ndarray) -> None:
        """Climbs from other starts of some units, and keeps what is higher."""
        a, b, found, end = _maximize(_penalised, x[rows], sign, intercept, slope)
        # Both ends are maxima of the same objective, of x as it is: the higher one is the estimate.
        value = self.value[rows]
        higher = end > value + DISTINCT * (1 + np.abs(value))
        taken = found & (higher | ~self.converged[rows])
        at = rows[taken]
        self.intercept[at], self.slope[at], self.converged[at] = a[taken], b[taken], True
        self.value[at] = end[taken]


def _highest(x: ndarray, sign: ndarray, start: float) -> _Best:
    """The highest of Firth's maxima: from β = 0, from fits of x with its outliers drawn in, and from sharp cuts.

    An outlier holds the information up while β is small beside 1/outlier, so that a maximum may lie there that knows
    nothing of the other samples; far above it may stand the one that they make, on each scale that samples lie on. And
    where the groups (nearly) part, a maximum may stand at the gap between them that is too sharp to be seen from β = 0.
    Sharp cuts are tried only where no bound rules them out. Several starts are no proof: docs/statistics.md says how
    many of 2,000 sets they missed.
    """
    best = _Best(*_maximize(_penalised, x, sign, *_flat(x, start)))
    middle, deviation = _middle(x)
    # Where more than half of a unit's values are equal, that range is 0, and the mean absolute deviation is taken.
    flat_rows = np.flatnonzero(deviation == 0)
    deviation[flat_rows] = np.abs(x[flat_rows] - middle[flat_rows, None]).mean(axis=1)
    farthest = np.maximum(x.max(axis=1) - middle, middle - x.min(axis=1))
    for reach in OUTLIER_FROM:
        rows = np.flatnonzero(farthest > reach * deviation)
        if not len(rows):
            break
        away = (reach * deviation[rows])[:, None]
        clipped = np.clip(x[rows], middle[rows, None] - away, middle[rows, None] + away)
        a, b, _, _ = _maximize(_penalised, clipped, sign, *_flat(rows, start))
        best.climb(x, sign, rows, a, b)
    wrong = np.count_nonzero(sign * (best.intercept[:, None] + best.slope[:, None] * x) < 0, axis=1)
    far = farthest > OUTLIER_FROM[0] * deviation
    rows = np.flatnonzero(far | (wrong <= max(5, x.shape[1] // FEW)))
    # With far samples the other maximum may also be the flatter one, so that less is left out of the bound.
    rows = rows[_maybe_elsewhere(x[rows], sign, best.take(rows), np.where(far[rows], 0.0, ELSEWHERE))]
    for start_a, start_b, value in _sharp_starts(x[rows], sign):
        known = np.isfinite(value)
        best.climb(x, sign, rows[known], start_a[known], start_b[known])
    return best


def _maybe_elsewhere(x: ndarray, sign: ndarray, best: _Best, errors: ndarray) -> Bool[ndarray, " units"]:
    """Whether a higher maximum may have a slope far from that of the known one.

    The likelihood ℓ is concave, and so is its profile p(β) = max over α of ℓ(α, β). The penalty is largest where every
    weight is 1/4. Where p plus that is below the known maximum at a slope to either side, it is so for all beyond.

    Args:
        x: the samples.
        sign: the samples' classes.
        best: the known maxima.
        errors: least distance of these slopes from the known one, in its standard errors; at least as much as itself.
    """
    intercept, slope = best.intercept, best.slope
    at, deviation = _local(x, sign, intercept, slope), x - x.mean(axis=1, keepdims=True)
    penalty = 0.5 * np.log(len(sign) / 16 * np.einsum("us,us->u", deviation, deviation))
    reach = np.maximum(np.abs(slope), errors / np.sqrt(at.spread))
    below = _profile_bound(x, sign, intercept + at.centre * reach, slope - reach) + penalty < best.value
    above = _profile_bound(x, sign, intercept - at.centre * reach, slope + reach) + penalty < best.value
    return ~(below & above)


def _profile_bound(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray) -> Float[ndarray, " units"]:
    """A bound from above of the likelihood at a slope, whatever the intercept; it is sharp near the best intercept."""
    # Along α the third derivative is at most the mass, the second one's size; so with a first one of γ·mass, ℓ(α + t)
    # <= ℓ + mass (γt - exp(-|t|) - |t| + 1) (Bach 2010, Electron. J. Statist. 4:384), largest at t = -log(1 - γ).
    bound = np.full(len(x), np.inf)
    for _ in range(3):
        at = _local(x, sign, intercept, slope)
        along = (at.wrong * sign).sum(axis=1) / at.mass
        ratio = np.abs(along)
        left = np.maximum(1 - ratio, 1e-300)
        bound = np.where(ratio < 1, at.log_likelihood + at.mass * (ratio + left * np.log(left)), bound)
        intercept = intercept + along / (1 + ratio)
    return bound


def _sharp_starts(x: ndarray, sign: ndarray) -> list[tuple[ndarray, ndarray, ndarray]]:
    """Intercept, slope and value of the highest few local maxima on a grid of cuts and slopes; -inf where fewer are.

    The cuts are those between neighbours that leave the fewest samples on the wrong side, the slopes run from 1/range
    to 16/gap.
    """
    order = np.argsort(x, axis=1)
    ordered, ones = np.take_along_axis(x, order, 1), (sign > 0)[order]
    gap, below = np.diff(ordered, axis=1), np.cumsum(ones, axis=1)[:, :-1]
    # For a rising slope, wrong are the ones below the cut and the zeros above it; for a falling slope all others.
    wrong = below + np.count_nonzero(sign < 0) - (np.arange(1, x.shape[1]) - below)
    a, b, value = (np.full((len(x), 2 * SLOPES), fill) for fill in (0.0, 0.0, -np.inf))
    most = max(2, x.shape[1] // FEW)
    for side, errors in enumerate((wrong, x.shape[1] - wrong)):
        errors = np.where(gap > 0, errors, x.shape[1])
        near = np.flatnonzero(errors.min(axis=1) <= most)
        cuts = np.argsort(errors[near], axis=1, kind="stable")[:, :CUTS]
        line, rank = np.nonzero(np.take_along_axis(errors[near], cuts, 1) <= most)
        if len(line):
            row, place = near[line], cuts[line, rank]
            width, middle = gap[row, place], (ordered[row, place] + ordered[row, place + 1]) / 2
            part = slice(side * SLOPES, (side + 1) * SLOPES)
            _grid(x[row], sign, (1.0 - 2 * side, middle, width), row, (a[:, part], b[:, part], value[:, part]))
    best = np.argsort(-value, axis=1)[:, :CLIMBED].T
    row = np.arange(len(x))
    return [(a[row, place], b[row, place], value[row, place]) for place in best]


def _grid(
    x: ndarray, sign: ndarray, cut: tuple[float, ndarray, ndarray], row: ndarray, into: tuple[ndarray, ndarray, ndarray]
) -> None:
    """Writes intercept, slope and value of each unit's best cut at each slope; value -inf off the local maxima.

    Args:
        x: the samples, a row per cut that is tried.
        sign: the samples' classes.
        cut: the slopes' sign, and middle and width of the gap at each cut.
        row: the unit of each cut, in ascending order.
        into: what is written, (units, slopes).
    """
    (way, middle, width), (a, b, value) = cut, into
    least = 1 / np.ptp(x, axis=1)
    for slope in range(SLOPES):
        steep = way * least * (16 / (width * least)) ** (slope / (SLOPES - 1))
        found = _penalised_value(_local(x, sign, -steep * middle, steep))
        # In ascending order of value the last that is written is the best; a value that is NaN comes first.
        order = np.argsort(np.nan_to_num(found, nan=-np.inf), kind="stable")
        at = row[order]
        a[at, slope], b[at, slope], value[at, slope] = (-steep * middle)[order], steep[order], found[order]
    around = np.pad(np.nan_to_num(value, nan=-np.inf), ((0, 0), (1, 1)), constant_values=-np.inf)
    value[~((value >= around[:, :-2]) & (value >= around[:, 2:]))] = -np.inf


def _maximize(
    objective: _Objective, x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray
) -> tuple[Float[ndarray, " units"], Float[ndarray, " units"], Bool[ndarray, " units"], Float[ndarray, " units"]]:
    """Newton's method with step-halving from a start; units that have converged leave the batch.

    Returns:
        intercepts, slopes, whether they are maxima, and the objective there; elsewhere the start, and NaN.
    """
    units, size = len(x), np.abs(x).max(axis=1, initial=0.0)
    converged, value = np.zeros(units, dtype=bool), np.full(units, np.nan)
    left, here_a, here_b, length = np.arange(units), intercept.copy(), slope.copy(), np.ones(units)
    here = objective(x, sign, here_a, here_b)
    for _ in range(ITERATIONS):
        a, b = here_a + length * here.step_intercept, here_b + length * here.step_slope
        there = objective(x, sign, a, b)
        # A step that lowers the objective was too long, and half of it is tried from the same place.
        accepted = there.value >= here.value - SLACK * (1 + np.abs(here.value))
        # The decrement is a squared distance to the maximum in standard errors, and Newton squares the distance: the
        # step that was just made from such a place ends within rounding of the maximum.
        done = accepted & (here.decrement < CONVERGED)
        rows = np.flatnonzero(done & ~(np.abs(here.step_intercept) + np.abs(here.step_slope) * size <= SETTLED))
        if len(rows):
            done[rows] = _settled(x[rows], sign, here_a[rows], here_b[rows], here.take(rows))
        length = np.where(accepted, 1.0, length / 2)
        here_a, here_b, here = (
            np.where(accepted, a, here_a),
            np.where(accepted, b, here_b),
            here.update(accepted, there),
        )
        if done.any():
            at = left[done]
            intercept[at], slope[at], converged[at], value[at] = here_a[done], here_b[done], True, here.value[done]
            kept = ~done
            x, size, left, length, here = x[kept], size[kept], left[kept], length[kept], here.take(kept)
            here_a, here_b = here_a[kept], here_b[kept]
        if not len(left):
            break
    return intercept, slope, converged, value


def _settled(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray, here: _Point) -> Bool[ndarray, " units"]:
    """Whether the information stays what it is along a step, so that the decrement is the distance to the maximum.

    A sample far from all others holds the information up alone while its log odds rise by 1 a step: the decrement is
    then its own vanishing weight, and says nothing of the maximum that the others make once it is gone. The condition
    is that of quasi self-concordance (Bach 2010, Electron. J. Statist. 4:384): a step changes no sample's log odds by
    more than `SETTLED`, unless the sample is so sure of its class before and after that it weighs nothing.
    """
    at = _local(x, sign, intercept, slope)
    change = np.abs(here.step_intercept[:, None] + here.step_slope[:, None] * x)
    # The root of a sample's leverage: the leverage itself overflows where a sample is 1e200 times as far as the others.
    root = np.hypot(1 / np.sqrt(at.mass)[:, None], at.deviation / np.sqrt(at.spread)[:, None])
    sure = np.abs(intercept[:, None] + slope[:, None] * x) >= SATURATED + 2 * np.log(np.hypot(1, root)) + change
    return np.asarray(((change <= SETTLED) | sure).all(axis=1))


class _Local(NamedTuple):
    """The model at one pair (α, β) per unit: each sample's probability and weight, and the information."""

    wrong: Float[ndarray, "units samples"]
    """σ(-m): the probability of the other class."""
    weight: Float[ndarray, "units samples"]
    """π(1 - π): the variance of the class, and the sample's weight in the information."""
    deviation: Float[ndarray, "units samples"]
    """x minus its weighted mean."""
    centre: Float[ndarray, " units"]
    """The weighted mean of x."""
    mass: Float[ndarray, " units"]
    """Information on the intercept at the centre: Σ weight."""
    spread: Float[ndarray, " units"]
    """Information on the slope: Σ weight · deviation²; mass × spread is the determinant of the whole information."""
    log_likelihood: Float[ndarray, " units"]
    """The log likelihood Σ log σ(m)."""


def _local(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray) -> _Local:
    margin = x * slope[:, None]
    margin += intercept[:, None]
    margin *= sign
    # With e = exp(-|m|), which never overflows: σ(|m|) = 1/(1 + e), σ(-|m|) = e/(1 + e), π(1 - π) = e/(1 + e)², and
    # log σ(m) = min(m, 0) - log(1 + e).
    # Arrays are overwritten where they can be: in batches of this size, fresh memory costs as much as the arithmetic.
    weight = np.copysign(margin, -1.0)
    np.exp(weight, out=weight)
    inverse = 1 + weight
    log_likelihood = np.minimum(margin, 0).sum(axis=1) - _log_product(inverse)
    np.divide(1, inverse, out=inverse)
    # exp(min(-m, 0)), once more: it is 1 or e by the sign of m, and a choice per sample takes longer.
    wrong = np.negative(margin, out=margin)
    np.minimum(wrong, 0, out=wrong)
    np.exp(wrong, out=wrong)
    wrong *= inverse
    weight *= inverse
    weight *= inverse
    # I = Σ w (1, x)(1, x)'. In the parameters (α + β·centre, β), with centre Σwx/Σw, it is diagonal: (mass, spread).
    mass = weight.sum(axis=1)
    centre = np.einsum("us,us->u", weight, x) / mass
    deviation = x - centre[:, None]
    spread = np.einsum("us,us,us->u", weight, deviation, deviation)
    return _Local(wrong, weight, deviation, centre, mass, spread, log_likelihood)


def _log_product(factors: ndarray) -> ndarray:
    """Row sums of the logarithms of factors from 1 to 2, at one logarithm per `PRODUCT` factors."""
    # A logarithm costs many multiplications, and a product of 512 such factors is at most 2^512.
    starts = np.arange(0, factors.shape[1], PRODUCT)
    return np.log(np.multiply.reduceat(factors, starts, axis=1)).sum(axis=1)


def _likelihood(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray) -> _Point:
    """The log likelihood and its Newton step."""
    at = _local(x, sign, intercept, slope)
    # The gradient is Σ (y - π)(1, deviation), with y - π = ±σ(-m). The information is diagonal at the centre, so each
    # of the two is divided by its own; back to x = 0, the intercept moves by -centre times the slope's step.
    residual = at.wrong * sign
    along, across = residual.sum(axis=1), np.einsum("us,us->u", residual, at.deviation)
    step = across / at.spread
    decrement = across * step + along**2 / at.mass
    return _Point(at.log_likelihood, along / at.mass - at.centre * step, step, decrement)


def _penalised(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray) -> _Point:
    """Firth's penalised log likelihood and its Newton step, in the basis in which the information is the identity."""
    at = _local(x, sign, intercept, slope)
    # Basis (1/√mass, deviation/√spread) =: (u_1, u_2), orthonormal under the weights. A sample's leverage, but for its
    # weight, is u_1² + u_2². Firth's score replaces y - π by y - π + h(1/2 - π), h = weight · leverage, since
    # ½ ∂ log |I| = ½ tr(I⁻¹ ∂I) = ½ Σ w' · leverage and w' = w(1 - 2π); below, `tilt` is -(1 - 2π).
    root_mass, root_spread = np.sqrt(at.mass), np.sqrt(at.spread)
    unit = at.deviation / root_spread[:, None]
    leverage = unit * unit
    leverage += (1 / at.mass)[:, None]
    tilt = 2 * at.wrong
    np.subtract(1, tilt, out=tilt)
    tilt *= sign
    pull = 0.5 * at.weight
    pull *= leverage
    pull *= tilt
    residual = at.wrong * sign
    residual -= pull
    along, across = residual.sum(axis=1) / root_mass, np.einsum("us,us->u", residual, unit)
    curvature = _penalised_curvature(at, unit, leverage, tilt, root_mass)
    step_along, step_across = _ascend(curvature, along, across)
    step = step_across / root_spread
    value = _penalised_value(at)
    decrement = along * step_along + across * step_across
    return _Point(value, step_along / root_mass - at.centre * step, step, decrement)


def _penalised_value(at: _Local) -> Float[ndarray, " units"]:
    """The log likelihood and half the logarithm of the information's determinant, mass × spread."""
    # It falls without end as the weights vanish, so that a maximum exists always.
    return at.log_likelihood + np.log(np.sqrt(at.mass)) + np.log(np.sqrt(at.spread))


def _penalised_curvature(
    at: _Local, unit: ndarray, leverage: ndarray, tilt: ndarray, root_mass: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """-∂²ℓ* as (11, 12, 22): the identity minus half the curvature of log |I|, tr(I⁻¹∂²I) - tr(I⁻¹∂I I⁻¹∂I)."""
    # In this basis I is the identity. With w' = w(1 - 2π) and w'' = w(1 - 6w), the derivatives of the weights along the
    # log odds: ∂_a I_bc = t_abc = Σ w' u_a u_b u_c, so the last trace is Σ_cd t_acd t_bcd, and the first one is
    # a_ab = Σ w'' · leverage · u_a u_b.
    third = -at.weight
    third *= tilt
    third_unit = third * unit
    t111, t112 = third.sum(axis=1) / root_mass**3, third_unit.sum(axis=1) / root_mass**2
    t122 = np.einsum("us,us->u", third_unit, unit) / root_mass
    t222 = np.einsum("us,us,us->u", third_unit, unit, unit)
    fourth = 6 * at.weight
    np.subtract(1, fourth, out=fourth)
    fourth *= at.weight
    fourth *= leverage
    fourth_unit = fourth * unit
    a11, a12 = fourth.sum(axis=1) / root_mass**2, fourth_unit.sum(axis=1) / root_mass
    a22 = np.einsum("us,us->u", fourth_unit, unit)
    c11 = 1 - 0.5 * (a11 - t111**2 - 2 * t112**2 - t122**2)
    c12 = -0.5 * (a12 - t111 * t112 - 2 * t112 * t122 - t122 * t222)
    c22 = 1 - 0.5 * (a22 - t112**2 - 2 * t122**2 - t222**2)
    return c11, c12, c22


def _ascend(curvature: tuple[ndarray, ndarray, ndarray], along: ndarray, across: ndarray) -> tuple[ndarray, ndarray]:
    """The Newton step where the curvature is clearly positive definite, else the gradient (Fisher scoring)."""
    # In the basis in which the information is the identity, Fisher scoring's step is the gradient itself: uphill.
    c11, c12, c22 = curvature
    determinant = c11 * c22 - c12**2
    newton = (c11 > DEFINITE) & (c22 > DEFINITE) & (determinant > DEFINITE)
    step_along = np.where(newton, (c22 * along - c12 * across) / determinant, along)
    return step_along, np.where(newton, (c11 * across - c12 * along) / determinant, across)


def _lost_margin(x: ndarray, sign: ndarray, intercept: ndarray, slope: ndarray, null: float) -> ndarray:
    """Margin under the model (null, 0) minus the margin under the fit, per sample."""
    return -sign * ((intercept - null)[:, None] + slope[:, None] * x)


def _likelihood_ratio(lost: ndarray, wrong: ndarray) -> ndarray:
    """2(ℓ - ℓ_0) as a sum of small differences, so that a ratio of nearly nothing keeps its digits.

    Args:
        lost: `_lost_margin`.
        wrong: probability of the other class under the null, per sample.
    """
    # With margins m = m_0 - d and q_0 = σ(-m_0): σ(m)/σ(m_0) = 1/(1 + q_0(exp(d) - 1)), so a sample that the slope has
    # not moved gives exactly 0. Beyond 500, log1p(q_0·expm1(d)) is log(q_0) + d, and expm1 would overflow.
    near = np.minimum(lost, 500.0)
    return -2 * (np.log1p(wrong * np.expm1(near)) + (lost - near)).sum(axis=1)


def _information_ratio(at: _Local, x: ndarray, lost: ndarray, wrong: ndarray) -> ndarray:
    """Log |I(α, β)| - log |I(α_0, 0)|, as the logarithm of one plus a sum of small differences where it is near 0."""
    weight_0 = float(wrong[0] * (1 - wrong[0]))
    # With q = σ(-m): w - w_0 = (q_0 - q)(q + q_0 - 1), and where little margin d is lost, without the difference of
    # two near numbers, q_0 - q = -(1 - q) q_0 expm1(d).
    right = 1 - at.wrong
    gain = np.where(np.abs(lost) < 1, -right * wrong * np.expm1(np.minimum(lost, 1.0)), right - (1 - wrong))
    change = gain * (at.wrong - (1 - wrong))
    # About the plain mean of x, Σ w_0 · deviation = 0; so the weighted mean moves by Σ (w - w_0) · deviation / mass,
    # and spread = Σ w · deviation² less mass times the square of that.
    deviation = x - x.mean(axis=1, keepdims=True)
    mass_0, spread_0 = len(wrong) * weight_0, weight_0 * np.einsum("us,us->u", deviation, deviation)
    moment = np.einsum("us,us->u", change, deviation)
    more_mass = change.sum(axis=1) / mass_0
    more_spread = (np.einsum("us,us,us->u", change, deviation, deviation) - moment**2 / at.mass) / spread_0
    return _log_ratio(more_mass, at.mass / mass_0) + _log_ratio(more_spread, at.spread / spread_0)


def _log_ratio(excess: ndarray, ratio: ndarray) -> ndarray:
    """Logarithm of a ratio known in two ways: by its excess over 1, exact near 1, and as it is, exact elsewhere."""
    near = np.abs(excess) < 0.5
    return np.where(near, np.log1p(np.where(near, excess, 0.0)), np.log(ratio))

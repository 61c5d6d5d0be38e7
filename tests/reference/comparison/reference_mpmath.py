"""Reference numbers in 50 digits: `python reference_mpmath.py > reference_mpmath.csv` (some minutes).

Needed where R loses digits (a huge offset or scale, tails below 1e-300) and for Firth's penalised likelihood-ratio
test, which brglm2 does not offer. Textbook formulas, no shortcut shared with actmax.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import mpmath as mp

mp.mp.dps = 50


def read(path="data.csv"):
    sets = defaultdict(lambda: ([], []))
    with Path(path).open() as file:
        for row in csv.DictReader(file):
            sets[row["dataset"]][0].append(mp.mpf(float(row["x"])))
            sets[row["dataset"]][1].append(int(row["label"]))
    return sets


def mean(x):
    return mp.fsum(x) / len(x)


def squares(x):
    middle = mean(x)
    return mp.fsum((v - middle) ** 2 for v in x)


def t_p(t, df):
    t = abs(t)
    if t == 0:
        return mp.mpf(1)
    x = df / (df + t * t)
    return mp.betainc(df / 2, mp.mpf(1) / 2, 0, x, regularized=True)


def chi2_p(x):
    return mp.erfc(mp.sqrt(x / 2))


def t_columns(x0, x1):
    n0, n1 = len(x0), len(x1)
    diff, s0, s1 = mean(x1) - mean(x0), squares(x0), squares(x1)
    t = diff / mp.sqrt((s0 + s1) / (n0 + n1 - 2) * (mp.mpf(1) / n0 + mp.mpf(1) / n1))
    v0, v1 = s0 / (n0 - 1) / n0, s1 / (n1 - 1) / n1
    df = (v0 + v1) ** 2 / (v0**2 / (n0 - 1) + v1**2 / (n1 - 1))
    w = diff / mp.sqrt(v0 + v1)
    root = mp.sqrt(mp.mpf(1) / n0 + mp.mpf(1) / n1)
    out = {"mean_0": mean(x0), "mean_1": mean(x1), "sd_0": mp.sqrt(s0 / (n0 - 1)), "sd_1": mp.sqrt(s1 / (n1 - 1))}
    out |= {
        "student_t": t,
        "student_p": t_p(t, mp.mpf(n0 + n1 - 2)),
        "welch_t": w,
        "welch_df": df,
        "welch_p": t_p(w, df),
    }
    out |= {"cohens_d": t * root}
    low, high = d_limits(t, mp.mpf(n0 + n1 - 2))
    return out | {"cohens_d_low": low * root, "cohens_d_high": high * root}


def nct(t, df, delta, upper):
    """P(T <= t) or P(T >= t) as an integral over S, S² ~ χ²/df (Johnson, Kotz & Balakrishnan 1995, chapter 31)."""
    log_c = mp.log(2) + df / 2 * mp.log(df / 2) - mp.loggamma(df / 2)
    sign = -1 if upper else 1

    def mass(s):
        if s <= 0:
            return mp.mpf(0)
        return mp.ncdf(sign * (t * s - delta)) * mp.e ** (log_c + (df - 1) * mp.log(s) - df * s * s / 2)

    width = 1 / mp.sqrt(2 * df)
    cuts = sorted({max(mp.mpf(0), 1 + k * width) for k in range(-14, 17, 2)} | {mp.mpf(0)})
    return mp.quad(mass, cuts)


def d_limits(t, df):
    with mp.workdps(25):
        width = mp.sqrt(1 + t * t / (2 * df))
        tail, near, far = mp.mpf("0.025"), 1.8 * width, 2.2 * width
        low = mp.findroot(lambda d: nct(t, df, d, True) - tail, (t - far, t - near), tol=1e-34)
        high = mp.findroot(lambda d: nct(t, df, d, False) - tail, (t + near, t + far), tol=1e-34)
    return low, high


def log_likelihood(x, y, a, b):
    return mp.fsum(-mp.log1p(mp.e ** (-(a + b * v) if k else a + b * v)) for v, k in zip(x, y, strict=True))


def information(x, a, b):
    w = [1 / ((1 + mp.e ** (a + b * v)) * (1 + mp.e ** (-a - b * v))) for v in x]
    first, second = (mp.fsum(p * v**k for p, v in zip(w, x, strict=True)) for k in (1, 2))
    return mp.fsum(w), first, second, w


def penalised(x, y, a, b):
    i0, i1, i2, _ = information(x, a, b)
    determinant = i0 * i2 - i1 * i1
    return log_likelihood(x, y, a, b) + mp.log(determinant) / 2 if determinant > 0 else -mp.inf


def start(x, y):
    """The best place of a grid of slopes and thresholds: Firth's likelihood may have a lower maximum as well."""
    ordered = sorted(x)
    thresholds = [ordered[len(x) * k // 12] for k in range(1, 12)]
    places = [(-s * 2**e * c, mp.mpf(s * 2**e)) for e in range(-3, 9) for s in (-1, 1) for c in thresholds]
    with mp.workdps(30):
        return max([(mp.mpf(0), mp.mpf(0)), *places], key=lambda place: penalised(x, y, *place))


def fit(x, y, firth):
    """Scoring with step-halving to 1e-40 on standardised x; returns the coefficients on that scale."""
    objective = penalised if firth else log_likelihood
    a, b = start(x, y) if firth else (mp.log(mp.mpf(sum(y)) / (len(y) - sum(y))), mp.mpf(0))
    value = objective(x, y, a, b)
    for _ in range(3000):
        i0, i1, i2, w = information(x, a, b)
        det = i0 * i2 - i1 * i1
        residual = []
        for v, k, p in zip(x, y, w, strict=True):
            pi = 1 / (1 + mp.e ** (-a - b * v))
            h = p * (i2 - 2 * v * i1 + v * v * i0) / det if firth else 0
            residual.append(k - pi + h * (mp.mpf(1) / 2 - pi))
        g0, g1 = mp.fsum(residual), mp.fsum(r * v for r, v in zip(residual, x, strict=True))
        da, db = (i2 * g0 - i1 * g1) / det, (i0 * g1 - i1 * g0) / det
        size = mp.mpf(1)
        while objective(x, y, a + size * da, b + size * db) < value - mp.mpf(10) ** -45:
            size /= 2
        a, b = a + size * da, b + size * db
        value = objective(x, y, a, b)
        if max(abs(da), abs(db)) < mp.mpf(10) ** -38:
            return a, b
    raise RuntimeError("no convergence")


def logistic_columns(name, x, y, firth):
    middle, scale = mean(x), mp.sqrt(squares(x) / len(x))
    z = [(v - middle) / scale for v in x]
    a, b = fit(z, y, firth)
    i0, i1, i2, _ = information(z, a, b)
    se = mp.sqrt(i0 / (i0 * i2 - i1 * i1))
    n1, n0 = sum(y), len(y) - sum(y)
    if firth:
        start = mp.log(mp.mpf(n1 + 1) / (n0 + 1))
        a0 = mp.findroot(lambda c: mp.diff(lambda u: penalised(z, y, u, mp.mpf(0)), c), start)
        lr = 2 * (penalised(z, y, a, b) - penalised(z, y, a0, mp.mpf(0)))
    else:
        lr = 2 * (log_likelihood(z, y, a, b) - log_likelihood(z, y, mp.log(mp.mpf(n1) / n0), mp.mpf(0)))
    out = {"coef": b / scale, "intercept": a - b * middle / scale, "se": se / scale, "lr": lr, "lr_p": chi2_p(lr)}
    out["coef_std"] = b
    if not firth:
        out |= {"wald_z": b / se, "wald_p": mp.erfc(abs(b / se) / mp.sqrt(2))}
    return {f"{name}_{column}": value for column, value in out.items()}


def columns(x, y):
    x0, x1 = [v for v, k in zip(x, y, strict=True) if not k], [v for v, k in zip(x, y, strict=True) if k]
    out = t_columns(x0, x1)
    my, share = mean(x), mp.mpf(len(x1)) / len(x)
    u = mp.fsum((v - my) * k for v, k in zip(x, y, strict=True))
    out["score"] = u**2 / (share * (1 - share) * squares(x))
    out["score_p"] = chi2_p(out["score"])
    n = len(x)
    out["one_sample_t"] = (my - mp.mpf(1) / 2) / mp.sqrt(squares(x) / (n - 1) / n)
    out["one_sample_p"] = t_p(out["one_sample_t"], mp.mpf(n - 1))
    if len(x0) == len(x1):
        d = [b - a for a, b in zip(x0, x1, strict=True)]
        out["paired_t"] = mean(d) / mp.sqrt(squares(d) / (len(d) - 1) / len(d))
        out["paired_p"] = t_p(out["paired_t"], mp.mpf(len(d) - 1))
    if max(x0) > min(x1) and max(x1) > min(x0):
        out |= logistic_columns("logit", x, y, firth=False)
    out |= logistic_columns("firth", x, y, firth=True)
    return out | {f"{name}_log10": mp.log10(value) for name, value in out.items() if name.endswith("_p")}


writer = csv.writer(sys.stdout, lineterminator="\n")
writer.writerow(["dataset", "column", "value"])
for dataset, (values, labels) in read().items():
    for column, value in columns(values, labels).items():
        writer.writerow([dataset, column, mp.nstr(value, 25)])
        sys.stdout.flush()

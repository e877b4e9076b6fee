"""How answers are counted: integer confusion matrices and 95 % intervals."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from scipy.special import betaincinv

DRAWS = 2000  # of the bootstrap
AT_ONCE = 1 << 20  # tuples that are drawn together


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts [C, C] int64: rows are true classes, columns predicted ones. labels and predicted [N] int."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def micro(confusion: np.ndarray) -> float:
    """Top-1 over clips: the figure that papers print. nan without clips."""
    total = int(confusion.sum())
    return float(np.trace(confusion) / total) if total else float("nan")


def per_class(confusion: np.ndarray) -> np.ndarray:
    """Accuracy of each class [C], nan for a class without clips."""
    rows = confusion.sum(1)
    return np.divide(np.diag(confusion), rows, out=np.full(len(rows), np.nan), where=rows > 0)


def macro(confusion: np.ndarray) -> float:
    """Mean over the classes that have clips."""
    if not confusion.any():
        return float("nan")
    return float(np.nanmean(per_class(confusion)))


def ranks(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many candidates stand before the true class of each clip, [N]; of equal scores the first does, as for top-1.
    scores [N, C], truth [N] columns.
    """
    own = np.take_along_axis(scores, truth[:, None], 1)
    before = np.arange(scores.shape[1]) < truth[:, None]
    return ((scores > own) | ((scores == own) & before)).sum(1)


def among_best(scores: np.ndarray, truth: np.ndarray, best: int = 5) -> float | None:
    """The share of clips whose class is among the `best` first. None where there are no more candidates than that, so
    that all would be.
    """
    return float((ranks(scores, truth) < best).mean()) if scores.shape[1] > best else None


def reciprocal_rank(scores: np.ndarray, truth: np.ndarray) -> float:
    """The mean of 1 / place, where the first place is 1."""
    return float((1 / (1 + ranks(scores, truth))).mean())


def binomial_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a share of `hits` in `n` independent trials."""
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return low, high


def tuple_interval(right: np.ndarray, tuples: Iterable[Hashable]) -> tuple[float, float]:
    """The 95 % interval of the mean of `right` [N], 0..1, where answers of one tuple hang together, as those to twins
    do: a percentile bootstrap over `tuples` [N]. Where each answer is a tuple of its own, the exact binomial one.

    Where every tuple has the same share the bootstrap knows no spread; there each counts as one trial of the binomial
    one.
    """
    codes: dict[Hashable, int] = {}
    place = [codes.setdefault(name, len(codes)) for name in tuples]
    hits, n = np.bincount(place, right), np.bincount(place)  # of each tuple
    if (n == 1).all() or np.ptp(hits / n) < 1e-9:
        return binomial_interval(round(len(n) * hits.sum() / n.sum()), len(n))
    rng, rows, shares = np.random.default_rng(0), max(1, AT_ONCE // len(n)), []
    for start in range(0, DRAWS, rows):  # all of them, of 80,000 tuples, would take gigabytes
        draws = rng.integers(len(n), size=(min(rows, DRAWS - start), len(n)))
        shares.append(hits[draws].sum(1) / n[draws].sum(1))
    low, high = np.quantile(np.concatenate(shares), (0.025, 0.975)).tolist()
    return low, high

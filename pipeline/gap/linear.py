"""The linear probe: what a linear map can tell from features, while whole groups of clips are held out.

Ridge regression onto one indicator a value, every value weighing the same whatever its number of clips. It is solved
over clips, not over features (the dual form), so wide cues take little longer than narrow ones, and what features share
is computed once. The strength is chosen by folds within what is learnt from, which has a closed form, too; nothing is
chosen on what is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.protocol.metrics import binomial_interval

FOLDS = 5
STRENGTHS = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1)  # of the ridge, strong to weak; a clip's features are about 1 long
DRAWS = 2000  # of the bootstrap


def grouped_folds(groups: Sequence[str], count: int = FOLDS) -> np.ndarray:
    """A fold 0..count-1 for every clip, [N]: the largest group first, each into the fold that has fewest clips."""
    sizes, held = Counter(groups), [0] * count
    fold_of = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], group)):
        fold_of[group] = held.index(min(held))
        held[fold_of[group]] += sizes[group]
    return np.array([fold_of[group] for group in groups])


def linear_probe(
    blocks: Mapping[str, Tensor], looks: Mapping[str, Mapping[str, float]], answers: Tensor, folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> dict[str, Tensor]:  # fmt: skip
    """How much each look is for every value, of every clip while its fold is held out: {look: [N, K] float32}.

    Args:
        blocks: features [N, d] by name; each is standardised over the clips that are learnt from.
        looks: name -> block -> its share; a look sees all its blocks together.
        answers: [N] int64, 0..K-1.
        folds: [N] int; see `grouped_folds`.
        strengths: of the ridge, of which one is chosen for each fold.
    """
    said = {name: torch.zeros(len(answers), int(answers.max()) + 1) for name in looks}
    for fold in np.unique(folds):
        asked = torch.from_numpy(folds == fold)
        weights = _equal_weights(answers[~asked])
        alike = {name: torch.zeros(len(answers), int((~asked).sum())) for name in looks}
        for block in dict.fromkeys(block for shares in looks.values() for block in shares):
            features = blocks[block]
            gram = _gram(features, ~asked, weights)
            for name, shares in looks.items():
                if block in shares:
                    alike[name] += shares[block] * gram
        inner = torch.from_numpy(folds)[~asked]
        for name, gram in alike.items():
            targets = _targets(answers[~asked], said[name].shape[1], weights)
            solution = _solve(gram[~asked].double(), answers[~asked], targets, weights.double(), inner, strengths)
            said[name][asked] = (gram[asked].double() @ solution).float()
    return said


def _equal_weights(answers: Tensor) -> Tensor:
    """A weight for each clip [n], by which every value weighs the same; 1 on average."""
    counts = answers.bincount()
    return (len(answers) / (counts > 0).sum() / counts)[answers]


def _gram(features: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Inner products [N, n] of all clips with the known ones, standardised over these: about 1 with itself."""
    own = features[known].float()
    mean = (weights[:, None] * own).mean(0)
    spread = (weights[:, None] * (own - mean).square()).mean(0).sqrt()
    scale = torch.where(spread > 1e-6, 1 / (spread * features.shape[1] ** 0.5), 0)
    return (features.float() - mean) * scale @ ((own - mean) * scale).T


def _targets(answers: Tensor, size: int, weights: Tensor) -> Tensor:
    """Indicators of the values [n, K] float64, about their weighted mean."""
    targets = F.one_hot(answers, size).double()
    return targets - (weights[:, None] * targets).mean(0)


def _solve(
    gram: Tensor, answers: Tensor, targets: Tensor, weights: Tensor, folds: Tensor, strengths: Sequence[float]
) -> Tensor:
    """The dual weights [n, K] of that strength which answers best where the inner `folds` are held out."""
    if len(strengths) == 1:
        return torch.linalg.solve(gram + torch.diag(strengths[0] / weights), targets)
    root = weights.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * gram * root)
    vectors = root[:, None] * vectors
    along = vectors.T @ targets
    best, solution = -1.0, targets
    for strength in strengths:
        half = vectors / (values.clamp_min(0) + strength).sqrt()  # half @ half.T = (K + strength / weights)^-1
        found = vectors @ (along / (values.clamp_min(0) + strength)[:, None])
        right = weights * (_held_out(half, found, targets, folds).argmax(1) == answers)
        if right.sum() > best:
            best, solution = float(right.sum()), found
    return solution


def _held_out(half: Tensor, solution: Tensor, targets: Tensor, folds: Tensor) -> Tensor:
    """What each clip would be told, [n, K], had the solution been found without its fold: exactly, by the blocks of
    `half @ half.T`, which is what the targets were multiplied with.
    """
    found = torch.empty_like(targets)
    for fold in folds.unique():
        held = folds == fold
        found[held] = targets[held] - torch.linalg.solve(half[held] @ half[held].T, solution[held])
    return found


def macro_accuracy(said: Tensor, answers: Tensor, groups: Sequence[str]) -> tuple[float, np.ndarray]:
    """The mean over values of the share of their clips that are named right; and DRAWS of it, over groups at random.

    The same draw of groups for every call with the same groups, so that two looks can be compared draw by draw.
    """
    names = {group: row for row, group in enumerate(dict.fromkeys(groups))}
    rows = np.array([names[group] for group in groups])
    counts, hits = np.zeros((2, len(names), int(answers.max()) + 1))
    np.add.at(counts, (rows, answers.numpy()), 1)
    np.add.at(hits, (rows, answers.numpy()), (said == answers).numpy())
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    return float(_macro(hits.sum(0), counts.sum(0))), _macro(drawn @ hits, drawn @ counts)


def _macro(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Over the values that occur."""
    shares = np.divide(hits, counts, out=np.full(hits.shape, np.nan), where=counts > 0)
    return np.nanmean(shares, -1)


def explained(scores: Tensor, answers: Tensor) -> float:
    """The share of the answers' variance that scores [N, K] explain, every value weighing the same; at most 1."""
    weights = _equal_weights(answers)
    targets = F.one_hot(answers, scores.shape[1]).double() - 1 / scores.shape[1]
    error = ((scores - targets).square().sum(1) * weights).sum()
    return 1 - float(error / (targets.square().sum(1) * weights).sum())


def interval(draws: np.ndarray, groups: int = 0) -> tuple[float, float]:
    """The middle 95 % of draws of an accuracy, or without `groups` of a difference. Where all is right, or nothing,
    draws know no spread: then the exact interval of as many trials as there are groups.
    """
    if groups and draws.min() == draws.max() and draws[0] in (0, 1):
        return binomial_interval(round(groups * draws[0]), groups)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)

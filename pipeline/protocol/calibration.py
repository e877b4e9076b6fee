"""Gamma that carries over from the selection phase to the test: by margins, not by its bare value.

A margin is the best seen score less the best unseen one. How large margins are depends on the model, on how many
candidates each side has, and on how near their texts lie to one another; all of it changes from the selection phase to
the test, and a bare gamma with it. What carries over is its *place* among the margins of clips that were trained on:
how many of their standard deviations from their mean. The selection phase chooses a place, on clips and texts of seen
classes; the same place among the margins of the final model's train clips, with the candidates' texts that every
zero-shot score reads, is gamma. No clip of an unseen class has a say.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.manifest.clips import Clip
from pipeline.protocol.gzsl import Stacking

# A selection phase of few classes tells little of the test: the place that it wants is weighed against a usual one, as
# if USUAL_CLASSES more classes wanted that. Both were chosen on splits drawn inside the seen classes' train clips; see
# docs/results.md.
USUAL_PLACE, USUAL_CLASSES = -0.2, 12
MOST = 1000  # clips, drawn by lot of more: a mean and a standard deviation need no more


def some_of(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """At most MOST of the clips that were trained on, always the same ones: whose margins gamma is measured by."""
    if len(clips) <= MOST:
        return tuple(clips)
    return tuple(clips[row] for row in np.sort(np.random.default_rng(0).permutation(len(clips))[:MOST]))


def margins(scores: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """[N] of scores [N, C], where `seen` [C] bool."""
    return scores[:, seen].max(1).astype(np.float64) - scores[:, ~seen].max(1)


def balance(stacking: Stacking) -> float:
    """The gamma at which as large a share of clips is taken for seen, and is not, as for unseen: the middle of where
    that is nearest. It asks only which side a clip belongs to, so that all clips have a say, not the right ones alone.
    """
    edges = np.unique(stacking.margin)
    seen, unseen = (np.sort(stacking.margin[side]) for side in (stacking.is_seen, ~stacking.is_seen))
    between = (edges[1:] + edges[:-1]) / 2
    lost = np.searchsorted(seen, between) / len(seen)
    taken = 1 - np.searchsorted(unseen, between) / len(unseen)
    if not len(between):
        return float(edges[0])
    off = np.abs(lost - taken)
    nearest = np.flatnonzero(off <= off.min() + 1e-12)
    return float(edges[nearest[0]] + edges[nearest[-1] + 1]) / 2


def choose_place(stacking: Stacking, trained: np.ndarray, classes: int) -> float:
    """The place of gamma among the margins `trained` [N] of clips that were trained on, by a selection phase of so many
    seen classes, those that play unseen among them.
    """
    mean, std = trained.mean(), trained.std()
    if std <= 1e-6 * max(1.0, abs(mean)):  # a model that tells nothing apart
        return USUAL_PLACE
    wanted = (balance(stacking) - mean) / std
    return float((classes * wanted + USUAL_CLASSES * USUAL_PLACE) / (classes + USUAL_CLASSES))


def gamma_at(place: float, trained: np.ndarray) -> float:
    """Gamma at this place among the margins `trained` [N]."""
    return float(trained.mean() + place * trained.std())

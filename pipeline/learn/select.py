"""Choosing a run's values by phase-one scores: on train-part clips, among them those of the pseudo-unseen classes.

Reads and writes nothing. The epochs are chosen by the same figure while phase one is trained (train.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.learn.dataset import label_rows
from pipeline.learn.feature_table import Table
from pipeline.learn.score import adapt_table, score_table
from pipeline.manifest.clips import Clip
from pipeline.methods import find_adaptation
from pipeline.methods.adaptation import Adaptation
from pipeline.methods.base import Method
from pipeline.protocol.calibration import choose_place, gamma_at, margins, some_of
from pipeline.protocol.gzsl import Stacking, harmonic
from pipeline.protocol.metrics import confusion_matrix, macro, micro, reciprocal_rank
from pipeline.protocol.splits import Split
from pipeline.protocol.training_set import Phase


@dataclass(frozen=True)
class PhaseModel:
    """A trained method and the features of its phase's clips."""

    phase: Phase
    method: Method
    table: Table
    text: Callable[[Sequence[int]], Tensor]  # class indices -> [C, K, d_t]

    def scores(
        self, clips: Sequence[Clip], candidates: Sequence[int], adaptation: Adaptation | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N, C] of those of `clips` that have features, and their labels [N] as columns."""
        ids = {clip_id: row for row, clip_id in enumerate(self.table.samples.clip_ids)}
        there = [clip for clip in clips if clip.clip_id in ids]
        rows = torch.tensor([ids[clip.clip_id] for clip in there])
        labels = label_rows(there, [clip.clip_id for clip in there], candidates)
        text = self.text(candidates)
        if adaptation is None:
            return score_table(self.method, self.table, text, rows).numpy(), labels.numpy()
        return adapt_table(adaptation, self.table, text, rows).numpy(), labels.numpy()

    def stacking(self, split: Split, adaptation: Adaptation | None = None) -> Stacking:
        """The selection phase's GZSL: clips kept out of training, of its own classes and of the pseudo-unseen ones."""
        scores, labels = self.scores((*self.phase.held_out, *self.phase.pseudo_unseen), split.seen, adaptation)
        return Stacking.of(scores, labels, np.array([c not in split.validation for c in split.seen]))

    def trained_margins(self, split: Split) -> np.ndarray:
        """[N] of clips that the phase has trained on, its own classes against the pseudo-unseen ones."""
        scores, _ = self.scores(some_of(self.phase.train), split.seen)
        return margins(scores, np.array([c not in split.validation for c in split.seen]))

    def zero_shot(self, split: Split, adaptation: Adaptation | None = None) -> np.ndarray:
        """[C, C] counts of the pseudo-unseen classes' clips, among these classes: rows are true."""
        scores, labels = self.scores(self.phase.pseudo_unseen, split.validation, adaptation)
        return confusion_matrix(labels, scores.argmax(1), len(split.validation))

    def figure(self, split: Split, adaptation: Adaptation | None = None) -> float:
        """What epochs and values, an adaptation's too, are chosen by: the area under the curve of `stacking`. Where no
        clip is kept out, since no class has five, that would always be 0: then the mean reciprocal rank among the
        pseudo-unseen classes, which tells more of few clips than how many are first.
        """
        if self.phase.held_out:
            return self.stacking(split, adaptation).ausuc()
        return reciprocal_rank(*self.scores(self.phase.pseudo_unseen, split.validation, adaptation))


def clearly_best(figures: Sequence[float], clips: int) -> int:
    """Where the highest of the figures (shares, of so many clips) stands; 0, where the usual value does, unless it is
    higher than that one's by more than its standard error: of a few, one is always the best by chance.
    """
    best, usual = int(np.argmax(figures)), min(max(figures[0], 0.0), 1.0)
    return best if figures[best] - figures[0] > math.sqrt(usual * (1 - usual) / max(clips, 1)) else 0


def _choose(whose: Method | Adaptation, figure: Callable[[], float], clips: int) -> dict[str, float]:
    """Attribute -> the chosen one of its `choices`, by what `figure` is with it: one after another, each left set. The
    first of an attribute's choices is the usual one, which another has to beat clearly.
    """
    chosen: dict[str, float] = {}
    for name, values in whose.choices.items():
        figures = []
        for value in values:
            setattr(whose, name, value)
            figures.append(figure())
        chosen[name] = values[clearly_best(figures, clips)]
        setattr(whose, name, chosen[name])
    return chosen


def choose_values(model: PhaseModel, split: Split) -> dict[str, Any]:
    """The method's own values by `PhaseModel.figure`, as the epochs were; then the place of gamma (see
    protocol/calibration.py) and what gamma is there in this phase.

    The area needs no gamma and weighs both sides: pseudo-unseen accuracy alone, on a handful of classes, would choose
    by chance. Leaves the method with the chosen values set. All figures are phase-one scores, on train-part clips.
    """
    chosen = _choose(model.method, lambda: model.figure(split), len(model.phase.pseudo_unseen))
    gamma, both = 0.0, {}
    if model.phase.held_out:  # else no clip of a seen class to be right about: nothing to calibrate, no such figures
        stacking = model.stacking(split)
        trained = model.trained_margins(split)
        place = choose_place(stacking, trained, len(split.seen))
        gamma = gamma_at(place, trained)
        seen, unseen = stacking.accuracies(gamma)
        both = {
            "gamma_place": place,
            "gzsl_seen": seen,
            "gzsl_unseen": unseen,
            "gzsl_harmonic": harmonic(seen, unseen),
            "gzsl_ausuc": stacking.ausuc(),
        }
    confusion = model.zero_shot(split)
    return {
        **chosen,
        "gamma": gamma,
        "zsl_top1": micro(confusion),
        "zsl_macro": macro(confusion),
        "zsl_n": int(confusion.sum()),
        **both,
    }


def choose_adaptation(model: PhaseModel, split: Split, name: str) -> dict[str, Any]:
    """The values of an adaptation at test time, chosen as the method's own are.

    Returns its name as `by`, the values, and the phase-one figures to compare with `zsl_top1` and `zsl_macro`.
    """
    adaptation = find_adaptation(name)(model.method.eval().requires_grad_(False))
    chosen = _choose(adaptation, lambda: model.figure(split, adaptation), len(model.phase.pseudo_unseen))
    found = model.zero_shot(split, adaptation)
    return {"by": name, **chosen, "zsl_top1": micro(found), "zsl_macro": macro(found)}

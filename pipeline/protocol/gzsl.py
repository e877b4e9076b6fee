"""Generalised zero-shot recognition: seen and unseen candidates together, calibrated by stacking.

Calibrated stacking (Chao et al., ECCV 2016): subtract gamma from the scores of the seen classes. One number per clip
says everything: the gamma beyond which its answer changes from its best seen class to its best unseen one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PosebridgeError


@dataclass(frozen=True)
class Stacking:
    """Clips scored against all candidates. Means are over clips (micro), or over classes where `weight` says so."""

    margin: np.ndarray  # [N] best seen score minus best unseen score: the answer is a seen class while gamma <= margin
    seen_right: np.ndarray  # [N] bool, the best seen class is the true one
    unseen_right: np.ndarray  # [N] bool, the best unseen class is the true one
    is_seen: np.ndarray  # [N] bool, the true class is seen
    weight: np.ndarray  # [N] of a clip in its side's accuracy: 1, or with macro 1 / clips of its class

    @classmethod
    def of(cls, scores: np.ndarray, labels: np.ndarray, seen: np.ndarray, *, macro: bool = False) -> Stacking:
        """scores [N, C], labels [N] int columns of `scores`, seen [C] bool.

        Raises PosebridgeError for scores that are not finite: they compare with nothing, and still make figures.
        """
        if wrong := int((~np.isfinite(scores)).any(1).sum()):
            raise PosebridgeError(
                f"The scores of {wrong} of {len(scores)} clips are not finite numbers, so there is no figure to give; "
                "train again with a lower learning rate."
            )
        columns = np.arange(scores.shape[1])
        seen_columns, unseen_columns = columns[seen], columns[~seen]
        rows = np.arange(len(scores))
        best_seen = seen_columns[scores[:, seen].argmax(1)]
        best_unseen = unseen_columns[scores[:, ~seen].argmax(1)]
        is_seen = seen[labels]
        weight = 1 / np.bincount(labels, minlength=scores.shape[1])[labels] if macro else np.ones(len(labels))
        margin = scores[rows, best_seen].astype(np.float64) - scores[rows, best_unseen]
        return cls(margin, best_seen == labels, best_unseen == labels, is_seen, weight)

    def accuracies(self, gamma: float) -> tuple[float, float]:
        """(S, U): accuracy on clips of seen and of unseen classes at this gamma."""
        says_seen = self.margin >= gamma
        seen = self._share(self.seen_right & says_seen, self.is_seen)
        unseen = self._share(self.unseen_right & ~says_seen, ~self.is_seen)
        return seen, unseen

    def _share(self, right: np.ndarray, side: np.ndarray) -> float:
        """Weight of the right clips of a side over that of all: sums before the quotient, so that all right is 1."""
        total = float(self.weight[side].sum())
        return float(self.weight[side & right].sum()) / total if total else 0.0

    def best_gamma(self) -> float:
        """The gamma of the highest harmonic mean: the middle of the best interval between margins where nothing
        changes.

        Of several such intervals the widest. For validation scores only: gamma must never be chosen on test clips.
        """
        edges = np.unique(self.margin)
        if len(edges) < 2:
            return 0.0
        middles = (edges[1:] + edges[:-1]) / 2
        values = np.array([harmonic(*self.accuracies(g)) for g in middles])
        widths = np.where(values >= values.max() - 1e-12, np.diff(edges), -1.0)
        return float(middles[widths.argmax()])

    def ausuc(self) -> float:
        """Area under the seen-unseen accuracy curve over every gamma, by the trapezoid rule."""
        edges = np.unique(self.margin)
        gammas = np.concatenate([[-np.inf], (edges[1:] + edges[:-1]) / 2, [np.inf]])
        seen, unseen = np.array([self.accuracies(g) for g in gammas]).T  # S falls and U rises with gamma
        return float(np.trapezoid(seen, unseen))


def harmonic(seen: float, unseen: float) -> float:
    """H = 2 S U / (S + U), 0 where both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0

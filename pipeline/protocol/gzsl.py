"""Generalised zero-shot recognition: seen and unseen candidates together, calibrated by stacking.

Calibrated stacking (Chao et al., ECCV 2016): subtract gamma from the scores of the seen classes. One number per clip
says everything: the gamma beyond which its answer changes from its best seen class to its best unseen one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import PosebridgeError

CHUNK = 4096  # clips whose scores are copied at a time


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
        parts = [scores[start : start + CHUNK] for start in range(0, max(len(scores), 1), CHUNK)]
        if wrong := sum(int((~np.isfinite(part)).any(1).sum()) for part in parts):
            raise PosebridgeError(
                f"The scores of {wrong} of {len(scores)} clips are not finite numbers, so there is no figure to give; "
                "train again with a lower learning rate."
            )
        columns = np.arange(scores.shape[1])
        best_seen, best_unseen = (
            np.concatenate([columns[side][part[:, side].argmax(1)] for part in parts]) for side in (seen, ~seen)
        )
        is_seen, rows = seen[labels], np.arange(len(scores))
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

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(edges [K], S [K + 1], U [K + 1]): the distinct margins, and both accuracies where gamma lies above j of
        them. S falls and U rises with gamma. By sums over the sorted margins, O(N log N).
        """
        edges, place = np.unique(self.margin, return_inverse=True)

        def at(clips: np.ndarray) -> np.ndarray:
            """The weight of these clips at each edge."""
            return np.bincount(place[clips], self.weight[clips], len(edges))

        seen, all_seen = (_sums(at(clips)[::-1])[::-1] for clips in (self.is_seen & self.seen_right, self.is_seen))
        unseen, all_unseen = (_sums(at(clips)) for clips in (~self.is_seen & self.unseen_right, ~self.is_seen))
        return edges, seen / (all_seen[0] or 1), unseen / (all_unseen[-1] or 1)

    def best_gamma(self) -> float:
        """The gamma of the highest harmonic mean: the middle of the best interval between margins where nothing
        changes.

        Of several such intervals the widest. For validation scores only: gamma must never be chosen on test clips.
        """
        edges, seen, unseen = self.curve()
        if len(edges) < 2:
            return 0.0
        values = _harmonic(seen[1:-1], unseen[1:-1])
        widths = np.where(values >= values.max() - 1e-12, np.diff(edges), -1.0)
        below, above = edges[widths.argmax() :][:2]
        middle = (below + above) / 2
        return float(middle if middle > below else above)  # there may be no number between them

    def best_harmonic(self) -> float:
        """The highest harmonic mean at any gamma. Of test clips it is no result: no gamma may be chosen there."""
        _, seen, unseen = self.curve()
        return float(_harmonic(seen, unseen).max())

    def ausuc(self) -> float:
        """Area under the seen-unseen accuracy curve over every gamma, by the trapezoid rule."""
        _, seen, unseen = self.curve()
        return float(np.trapezoid(seen, unseen))


def _sums(values: np.ndarray) -> np.ndarray:
    """The sum of the first 0, 1, ... of the values."""
    return np.concatenate([[0.0], np.cumsum(values)])


def harmonic(seen: float, unseen: float) -> float:
    """H = 2 S U / (S + U), 0 where both are 0."""
    return float(_harmonic(np.array(seen), np.array(unseen)))


def _harmonic(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    both = seen + unseen
    return 2 * seen * unseen / np.where(both > 0, both, 1)

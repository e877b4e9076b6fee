"""Tracks: which finding of one frame is which person of the frames before.

Source: Hungarian assignment in the order of ByteTrack (Zhang et al., ECCV 2022): what the detector is sure of first,
then what it is less sure of, which may continue a track but begins none. The motion model is a constant velocity, and
the similarity adds the joints (OKS) to the boxes (IoU), since boxes of persons who cross are alike and their joints
are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.tracking.similarity import People, box_iou, closeness, oks, together

WEAK = 0.5  # of the threshold: from here a finding may continue a track
IOU, OKS, NEAR = 0.45, 0.45, 0.1  # nearness decides only where neither boxes nor joints overlap
LEAST = 0.05  # similarity below which nobody is the same person
TWICE = 0.9  # OKS above which two findings of one frame are one pose, seen twice
STEADY = 4  # steps over which a velocity is averaged: boxes tremble
HORIZON = 0.5  # seconds: a velocity says nothing about more
PATIENCE = 1.5  # seconds unseen, and more than MISSES frames: then a track has ended
MISSES = 2


@dataclass(frozen=True)
class Findings:
    """What was found in T frames, up to K persons each, in no particular order; a `box_scores` of 0 means nobody."""

    boxes: np.ndarray  # [K, T, 4] x, y, w, h
    box_scores: np.ndarray  # [K, T] 0..1
    keypoints: np.ndarray  # [K, T, V, 2]
    scores: np.ndarray  # [K, T, V] 0..1
    colours: np.ndarray  # [K, T, C] 0..1, of the clothes
    times: np.ndarray  # [T] seconds, ascending


class Track:
    """One person: as last seen, and how fast."""

    def __init__(self, identity: int, person: People, time: float):
        self.identity, self.person, self.time, self.misses = identity, person, time, 0
        self._velocity = np.zeros((1, 2))  # pixels a second
        self._steps = 1

    def at(self, time: float) -> People:
        """The person as expected then."""
        return self.person.moved(self._velocity * min(time - self.time, HORIZON))

    def follow(self, person: People, time: float) -> None:
        """Take in how the person is now."""
        if time > self.time:
            now = (person.centres - self.person.centres) / (time - self.time)
            self._velocity = self._velocity + (now - self._velocity) / min(self._steps, STEADY)
            self._steps += 1
        self.person, self.time, self.misses = person, time, 0

    def ended(self, time: float) -> bool:
        """Whether the person has been away for too long to be known again."""
        return self.misses > MISSES and time - self.time > PATIENCE


def link(findings: Findings, threshold: float) -> np.ndarray:
    """The identity of every finding, [K, T] int32, numbered as they appear; -1 for nobody and for what has no track.

    A track begins with a finding of at least `threshold` and goes on with half of that.
    """
    identity = np.full(findings.box_scores.shape, -1, np.int32)
    tracks: list[Track] = []
    begun = 0
    for t, time in enumerate(findings.times):
        found = People(*(a[:, t].astype(np.float64) for a in (findings.boxes, findings.keypoints, findings.scores)))
        sureness = findings.box_scores[:, t]
        rows = np.argsort(-sureness, kind="stable")
        rows = rows[sureness[rows] >= max(WEAK * threshold, 1e-6)]
        rows = rows[_seen_once(found[rows])]
        waiting = tracks = [track for track in tracks if not track.ended(time)]
        for part in (rows[sureness[rows] >= threshold], rows[sureness[rows] < threshold]):
            for track, row in _assign(waiting, part, found, time):
                track.follow(found[np.array([row])], time)
                identity[row, t] = track.identity
            waiting = [track for track in waiting if track.identity not in identity[:, t]]
        for track in waiting:
            track.misses += 1
        for row in rows[(sureness[rows] >= threshold) & (identity[rows, t] < 0)]:
            tracks.append(Track(begun, found[np.array([row])], time))
            identity[row, t] = begun
            begun += 1
    return identity


def _seen_once(people: People) -> np.ndarray:
    """Of people in the order of their sureness, those whose pose is not that of a surer one: [P] bool."""
    alike = oks(people, people) > TWICE
    kept = np.zeros(len(alike), bool)
    for i in range(len(alike)):
        kept[i] = not alike[i, kept].any()
    return kept


def _assign(tracks: list[Track], rows: np.ndarray, found: People, time: float) -> list[tuple[Track, int]]:
    """The pairs of tracks and findings that are the most similar as a whole."""
    if not tracks or not len(rows):
        return []
    from scipy.optimize import linear_sum_assignment  # late: where nobody is followed it is not waited for

    expected = together([track.at(time) for track in tracks])
    there = found[rows]
    similarity = IOU * box_iou(expected, there) + OKS * oks(expected, there) + NEAR * closeness(expected, there)
    pairs = zip(*linear_sum_assignment(-similarity), strict=True)
    return [(tracks[i], int(rows[j])) for i, j in pairs if similarity[i, j] >= LEAST]

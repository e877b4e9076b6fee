"""A few clips of every action instead of training: whose example is the nearest?

Reads a folder with a sub-folder for every action and clips in each; writes their poses to
cache/examples/<recipe>/<video>.safetensors, so that they are estimated once. Measured on the 60 clips of
UT-Interaction, set 1 (two persons, six actions; chance 0.17), one sequence left out at a time, by `posebridge bench
examples` with the recipe tinypose: the nearest skeleton is right for 0.82 of them (95 %: 0.70 to 0.91), an action's
mean skeleton for 0.78; with cues, half and half, 0.80 and 0.82. Cues do not help there, and are left out unless asked
for.
    posebridge predict video.mp4 --examples my_actions/
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.hashing import fingerprint
from pipeline.files.names import text_of
from pipeline.files.tensors import save_tensors
from pipeline.learn.confidence import NONE, Confidence, fit_confidence
from pipeline.learn.features import Samples, load_samples
from pipeline.learn.trained import hash_of
from pipeline.manifest.clips import Clip
from pipeline.manifest.failure import Failure
from pipeline.methods.prototypes import class_means
from pipeline.predict.live import LivePoses, Row, find_videos
from pipeline.predict.predict import Scorer
from pipeline.skeleton.mirror import mirror
from pipeline.skeleton.resample import resample
from pipeline.video.decode import VideoError
from pipeline.video.identity import identify
from pipeline.video.image_folder import open_video

STEPS = 16  # of time that a clip is resampled to
MOST = 500  # examples that are compared with all others
KEPT = ("keypoints", "scores", "person_valid", "cues", "cue_scores")


class Descriptors:
    """What clips are compared by: unit vectors of the skeletons, of their mirror images, and of the pooled cues.

    skeleton, mirrored [N, 2, STEPS * V * C] (the first persons left to right; the second is zero for one person, as a
    unit vector of both together), cue [N, D] or None.
    """

    def __init__(self, samples: Samples):
        x = samples.keypoints[:, :2]  # [N, <=2, T, V, C]
        valid = samples.person_valid[:, :2]
        self.skeleton = place_free(x, valid)
        self.mirrored = place_free(mirror(x, samples.graph), valid)
        self.cue = pooled_cues(samples)

    def take(self, rows: Tensor) -> Descriptors:
        """Those of the clips `rows` [N] bool."""
        found = copy.copy(self)
        found.skeleton, found.mirrored = self.skeleton[rows], self.mirrored[rows]
        found.cue = None if self.cue is None else self.cue[rows]
        return found


def place_free(x: Tensor, valid: Tensor) -> Tensor:
    """Keypoints [N, M, T, V, C] as unit vectors [N, M * STEPS * V * C], free of place and size, not of time.

    The centre is that of all persons' joints over time and the unit their spread; so the way that two persons stand to
    each other stays. Persons are ordered left to right, by where they are on average; who is not there is zero.
    """
    there = valid[..., None, None].float()  # [N, M, T, 1, 1]
    n = (there.sum((1, 2, 3, 4)) * x.shape[3]).clamp_min(1)  # joints seen
    centre = (x * there).sum((1, 2, 3)) / n[:, None]  # [N, C]
    x = (x - centre[:, None, None, None]) * there
    spread = (x.square().sum((1, 2, 3, 4)) / n).sqrt().clamp_min(1e-6)
    x = hold(x / spread[:, None, None, None, None], valid)
    across = x[..., 0].mean((2, 3))  # [N, M]
    absent = ~valid.any(-1)
    order = across.masked_fill(absent, torch.inf).argsort(1)
    x = x.gather(1, order[:, :, None, None, None].expand_as(x))
    x = resample(x, STEPS)
    return F.normalize(x.flatten(1), dim=1)


def hold(x: Tensor, valid: Tensor) -> Tensor:
    """Where a person is not seen for a while, as last seen (before that, as first seen); [N, M, T, V, C]."""
    frames = torch.arange(valid.shape[2])
    last = torch.where(valid, frames, -1).cummax(2).values  # [N, M, T]
    first = valid.int().argmax(2, keepdim=True)
    source = torch.where(last < 0, first, last)
    return x.gather(2, source[..., None, None].expand_as(x))


def pooled_cues(samples: Samples) -> Tensor | None:
    """The mean cue, anchor by anchor: unit vectors [N, A * D]."""
    mean = mean_cues(samples)
    return None if mean is None else F.normalize(mean.flatten(1), dim=1)


def mean_cues(samples: Samples) -> Tensor | None:
    """The mean over persons and time, weighted by the cues' scores: [N, A, D]; None without cues."""
    if samples.cues is None or samples.cue_scores is None:
        return None
    weight = samples.cue_scores[..., None]  # [N, M, S, A, 1]
    return (samples.cues.float() * weight).sum((1, 2)) / weight.sum((1, 2)).clamp_min(1e-6)


class Nearest:
    """Examples to compare with: of skeletons, and of cues where both are looked at, half and half.

    Every example counts mirrored, too. `neighbours` k takes the mean cosine of an action's k nearest examples; 0 puts
    one prototype in the place of an action's examples, and one in that of their mirror images: their mean.
    """

    def __init__(self, found: Descriptors, own: Tensor, neighbours: int):
        """`own` [N] are the labels' indices of the examples."""
        self._neighbours, self._labels = max(neighbours, 1), int(own.max()) + 1
        self._mean = None if found.cue is None else found.cue.mean(0)
        cue = self._centred(found.cue)
        if not neighbours:
            parts = [class_means([part], own, self._labels) for part in (found.skeleton, found.mirrored)]
            cue = None if cue is None else class_means([cue], own, self._labels)
            own = torch.arange(self._labels)
        else:
            parts = [found.skeleton, found.mirrored]
        self._skeleton, self._own_skeleton = torch.cat(parts), torch.cat([own, own])
        self._cue, self._own_cue = cue, own

    def scores(self, found: Descriptors) -> Tensor:
        """Scores [N, C] of clips."""
        score = self._nearest(found.skeleton @ self._skeleton.T, self._own_skeleton)
        cue = self._centred(found.cue)
        if cue is not None and self._cue is not None:
            score = (score + self._nearest(cue @ self._cue.T, self._own_cue)) / 2
        return score

    def _centred(self, cue: Tensor | None) -> Tensor | None:
        """Cues about the mean of the examples': what all of them share says nothing."""
        return None if cue is None or self._mean is None else F.normalize(cue - self._mean, dim=1)

    def _nearest(self, cosine: Tensor, own: Tensor) -> Tensor:
        """Cosines [N, E] to the examples, or to the prototypes, to scores [N, C]."""
        columns = [cosine[:, own == label] for label in range(self._labels)]
        return torch.stack([c.topk(min(self._neighbours, c.shape[1]), 1).values.mean(1) for c in columns], 1)


class ExampleScorer(Scorer):
    """The nearest of a person's examples. Shares, and whether it is none of these, are learnt of the examples
    themselves, each compared with all others; no other clip has a say.
    """

    temperature = 0.1

    def __init__(self, labels: Sequence[str], samples: Samples, rows: Sequence[int], neighbours: int = 1):
        """`rows` [N] are the labels' indices of the N example clips."""
        self.labels, self.cues = tuple(labels), samples.cues is not None
        self._found, self._own, self._neighbours = Descriptors(samples), torch.tensor(list(rows)), neighbours
        self._nearest = Nearest(self._found, self._own, neighbours)

    @cached_property  # a bench asks for scores alone
    def confidence(self) -> Confidence | None:  # type: ignore[override]
        """Of the examples whose action has another one, at most MOST of them."""
        counts = torch.bincount(self._own)
        asked = torch.nonzero(counts[self._own] > 1)[:, 0]
        asked = asked[:: max(1, len(asked) // MOST)]
        rows = [self._without(int(row)) for row in asked]
        if not rows:
            return None
        return fit_confidence(torch.cat(rows).numpy(), self._own[asked].numpy(), self.temperature)

    @property
    def key(self) -> str:  # type: ignore[override]
        """A hash of the examples and of how they are compared."""
        cue = "" if self._found.cue is None else hash_of(self._found.cue)
        return fingerprint(self.labels, self._own.tolist(), self._neighbours, hash_of(self._found.skeleton), cue)

    def scores(self, samples: Samples) -> np.ndarray:
        return self._nearest.scores(Descriptors(samples)).numpy()

    def _without(self, row: int) -> Tensor:
        """Scores [1, C] of an example by all others."""
        others = torch.arange(len(self._own)) != row
        nearest = Nearest(self._found.take(others), self._own[others], self._neighbours)
        return nearest.scores(self._found.take(torch.arange(len(self._own)) == row))


def load_examples(
    folder: Path, live: LivePoses, cache: Path, neighbours: int = 1, cues: bool = False,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ExampleScorer, list[Failure]]:  # fmt: skip
    """The scorer of a folder of examples, and those of them that show nobody or cannot be read, by their paths.

    Raises PosebridgeError for fewer than two actions, or one without a person in any of its clips.
    """
    actions = sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(actions) < 2:
        raise PosebridgeError(
            f"{folder} should hold a sub-folder of clips for every action, two at least; it has {len(actions)}."
        )
    names = [action.name.replace("_", " ") for action in actions]
    lower = [name.lower() for name in names]
    if twice := [name for name, low in zip(names, lower, strict=True) if lower.count(low) > 1]:
        raise PosebridgeError(f"{folder} has two sub-folders for the action {twice[0]!r}; put their clips together.")
    if NONE in lower:
        raise PosebridgeError(
            f"{NONE!r} is an answer by itself, learnt of all examples; give its sub-folder in {folder} another name."
        )
    videos = [(label, path) for label, action in enumerate(actions) for path in find_videos(action)]
    rows: list[Row] = []
    labels, left_out = [], []
    for done, (label, path) in enumerate(videos, start=1):
        row = example_row(path, live, cache)
        if isinstance(row, Failure):
            left_out.append(Failure(str(path), row.stage, row.reason))
        else:
            rows.append(row)
            labels.append(label)
        on_clip(done, len(videos))
    for label, action in enumerate(actions):
        if label not in labels:
            why = next(each for each in left_out if Path(each.clip_id).is_relative_to(action))
            raise PosebridgeError(
                f"No clip of {action} shows anybody, first {why.clip_id} ({why.reason}); bring others."
            )
    reader = live.reader(rows)
    reads_cues = cues and live.recipe.cues != "none"
    samples = load_samples(reader.clip_ids, reader, reader if reads_cues else None)
    return ExampleScorer(names, samples, labels, neighbours), left_out


def example_row(video: Path, live: LivePoses, cache: Path) -> Row | Failure:
    """The poses of an example, from the cache or estimated now; a Failure where nobody is seen or nothing read."""
    try:
        with open_video(video) as opened:
            clip = Clip(text_of(f"{video}@0"), text_of(str(video)), 0.0, opened.duration)
    except VideoError as error:
        return Failure(str(video), error.stage, str(error))
    identity = identify(video).identity
    path = cache / "examples" / live.recipe.fingerprint[:12] / f"{identity}.safetensors"
    if path.is_file():
        try:
            return {"clip_id": clip.clip_id} | {key: value.numpy() for key, value in load_file(path).items()}
        except SafetensorError:
            path.unlink()  # cut short by a crash or a full disk: estimated again
    (_, row), *_ = live.rows([clip])
    if isinstance(row, Failure):
        return row
    save_tensors({key: torch.from_numpy(np.ascontiguousarray(row[key])) for key in KEPT if key in row}, path)
    return row

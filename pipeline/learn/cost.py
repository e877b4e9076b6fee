"""What stage two will cost: hours and memory of encode, train and evaluate, by the number of their batches and the
seconds of one, which probe.py or `bench scale` has measured. Writes nothing.
    posebridge cache estimate --recipe refined
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from pipeline.learn import feature_table, features
from pipeline.learn.score import BATCH
from pipeline.manifest.clips import Clip
from pipeline.methods.base import Method
from pipeline.params import Params, RunParams

PROCESS_BYTES = 400 << 20  # of Python with PyTorch
CLIP_BYTES = 1_300  # that a process holds of every clip: lists, indices, scores; measured at 240,000 clips


@dataclass(frozen=True)
class Like:
    """A data set as it is published: clips, classes, and how many of the latter its protocol leaves unseen."""

    clips: int
    classes: int
    unseen: int
    validation: int  # pseudo-unseen classes
    tested: float  # share of the clips that are test clips


LIKES = {
    "ntu60": Like(56_880, 60, 5, 5, 0.29),  # SynSE's 55/5, cross-subject
    "ntu120": Like(114_480, 120, 10, 10, 0.45),  # SynSE's 110/10, cross-subject
    "pku_mmd": Like(20_000, 51, 5, 5, 0.13),  # STAR's 46/5, cross-subject
    "kinetics200": Like(120_000, 200, 40, 26, 0.08),  # PURLS's 160/40
    "kinetics400": Like(240_000, 400, 80, 53, 0.08),  # PURLS's 320/80
}


@dataclass(frozen=True)
class Batches:
    """How many batches one seed goes through: of training steps, and of clips that are only scored."""

    encode: int
    train: int
    train_scored: int
    evaluate_scored: int


@dataclass(frozen=True)
class Steps:
    """Seconds of a training step of encoder and method and of scoring a batch, and what they hold in memory."""

    encode_seconds: float  # 0 for a method that has its own encoder
    train_seconds: float
    score_seconds: float
    step_bytes: int  # of the steps, without their clips
    sample_bytes: int  # of a clip
    map_bytes: int  # of its map


@dataclass(frozen=True)
class StageTwo:
    """Hours of one protocol of a data set with one run, all seeds one after another; bytes of the largest of the three
    processes.
    """

    name: str
    clips: int
    hours: float
    encode_hours: float
    train_hours: float
    evaluate_hours: float
    memory_bytes: int


def like_of(clips: Sequence[Clip]) -> Like | None:
    """An ingested data set, a fifth of its classes unseen; None where its clips are not of several classes."""
    labelled = [clip for clip in clips if clip.label is not None]
    classes = len({clip.label for clip in labelled})
    fifth = max(1, classes // 5)
    if classes < 2 + fifth:
        return None
    return Like(len(labelled), classes, fifth, fifth, sum(c.part == "test" for c in labelled) / len(labelled))


def batches_of(like: Like, params: Params, method: Method) -> Batches:
    """Those of a data set of this size, all its classes equally large: the phases of protocol/training_set.py."""
    trained = like.clips * (1 - like.tested) / like.classes  # clips of a class
    own, pseudo = trained * (like.classes - like.unseen - like.validation), trained * like.validation
    return count_batches(0.8 * own, 0.2 * own + pseudo, own + pseudo, like.clips * like.tested, params, method)


def count_batches(
    select: float, kept_out: float, final: float, tested: float, params: Params, method: Method
) -> Batches:
    """Of clips that the two phases train on, that are kept out of the first one, and test clips. The method is taken to
    train for as many epochs as it may, and judges each of them, each of its values and, twice, what is chosen.
    """
    own = asdict(params.train) | dict(method.schedule())
    judgements = own["epochs"] + sum(len(values) for values in method.choices.values()) + 2

    def parts(clips: float, size: int) -> int:
        return math.ceil(clips / size)

    size, own_size = params.encode.batch_size, own["batch_size"]
    return Batches(
        encode=0 if method.end_to_end else params.encode.epochs * (parts(select, size) + parts(final, size)),
        train=own["epochs"] * (parts(select, own_size) + parts(final, own_size)),
        train_scored=judgements * parts(kept_out, BATCH) + parts(final, BATCH),
        evaluate_scored=parts(tested, BATCH),
    )


def stage_seconds(stage: str, step: float, score: float, batches: Batches) -> float:
    """What a stage takes for one seed, by the seconds of its step and of scoring a batch."""
    return {
        "encode": batches.encode * step,
        "train": batches.train * step + batches.train_scored * score,
        "evaluate": batches.evaluate_scored * score,
    }[stage]


def stage_two(name: str, like: Like, params: Params, run: RunParams, method: Method, steps: Steps) -> StageTwo:
    """The cost of one data set."""
    batches, seeds = batches_of(like, params, method), len(params.seeds(run))
    seconds = {"encode": steps.encode_seconds, "train": steps.train_seconds, "evaluate": steps.score_seconds}
    hours = {
        f"{stage}_hours": seeds * stage_seconds(stage, step, steps.score_seconds, batches) / 3600
        for stage, step in seconds.items()
    }
    memory = memory_bytes(round(like.clips * (1 - like.tested)), params.train.views, steps)
    return StageTwo(name, like.clips, sum(hours.values()), memory_bytes=memory, **hours)


def memory_bytes(clips: int, views: int, steps: Steps) -> int:
    """Of a process that trains on so many clips: with them, and then their maps, as far as these are held."""
    found = PROCESS_BYTES + steps.step_bytes + CLIP_BYTES * clips
    if clips * steps.sample_bytes <= features.HELD_BYTES:
        found += clips * steps.sample_bytes
        if (maps := clips * views * steps.map_bytes) <= feature_table.HELD_BYTES:
            found += maps
    return found

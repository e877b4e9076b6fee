"""Stage two at the size of a published data set: memory, the time before the first step, steps, the wait for data.

A store of noise is made in a temporary folder (scale_store.py), and the true code of each stage runs over it for some
steps, in a process of its own (scale_stage.py).
    posebridge bench scale --like kinetics400

What a step costs more whose clips come from the cache is told twice, as there are two kinds of epochs, and one of them
is judged. `cold_over_memory`: the disk is read, as in the first epoch, and in every one where all that the stage reads
is more than a machine's memory can keep. `warm_over_memory`: the system has it in its page cache, as in all but the
first epoch where it fits. `cache_over_memory` is the one of nearly all epochs: warm where what is read fits into half
of this machine's memory, else cold. All three kinds of batches are made by the same thread; "from memory" are rows of
tensors. On a virtual machine whose host takes freed memory back, a page that is filled anew costs two or three times
what it costs elsewhere, and cold steps show it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bench.scale_stage import DISK, PAGES
from pipeline.bench.scale_store import CUE_WIDTH, JOINTS, NAME, PRESENT, RECIPE, let_go, make_store
from pipeline.cache.checksums import Checker
from pipeline.cache.index import index_path, read_index
from pipeline.cache.schema import columns
from pipeline.errors import PosebridgeError
from pipeline.files.device import CPU, name_of
from pipeline.files.memory import machine_bytes
from pipeline.learn.cost import LIKES, Batches, Like, stage_seconds
from pipeline.learn.probe import method_of
from pipeline.params import Params, RunParams

STAGES = ("encode", "train", "evaluate")
BASE_CLIPS = 2_400  # what peaks of memory are compared with
SAMPLED = 0.02  # seconds between two looks at a process


@dataclass(frozen=True)
class StageScale:
    """One stage. Its peaks are of its own process: `peak_mb` is all resident memory, `peak_own_mb` what of it is no
    page of a file, looked at fifty times a second (None where the system does not tell). `grown_mb` is the latter less
    that of the same stage over 2,400 clips.
    """

    stage: str
    first_step_seconds: float  # from the start of the process to the first batch
    opening_seconds: float  # to open all other shards, which falls to the first steps of a process
    step_seconds: float  # the median, as the two below
    waiting_share: float  # of the time of the steps
    cold_over_memory: float  # a step whose batch comes from the disk / the same from memory: the median of such pairs
    warm_over_memory: float  # likewise from the page cache
    cpu_cold_over_memory: float  # the same by the CPU time of all threads, where no other process has a say
    cpu_warm_over_memory: float
    read_gb: float  # by an epoch at this number of clips
    fits: bool  # into the page cache of this machine, so that epochs after the first one are warm
    cache_over_memory: float  # of the two, the one of later epochs
    cpu_over_memory: float
    peak_mb: float
    peak_own_mb: float | None
    grown_mb: float | None
    hours: float  # of the whole table


@dataclass(frozen=True)
class ScaleBench:
    """All stages of one run on one data set; the figures that have limits are the largest of the stages, for
    `cache_over_memory` of those that train: the others read a clip once.
    """

    like: str
    clips: int
    run: str
    device: str  # what it is called
    seeds: int
    store_gb: float
    store_seconds: float
    checksum_seconds: float  # to compare all shards with their checksums once, as each process does in its first epoch
    stages: tuple[StageScale, ...]
    hours: float
    first_step_seconds: float
    waiting_share: float
    cache_over_memory: float
    grown_mb: float


@dataclass(frozen=True)
class _Measured:
    values: dict[str, Any]
    began: float
    peak_mb: float
    own_mb: float | None


def bench_scale(
    like: str, clips: int, params_path: Path, params: Params, run_name: str, run: RunParams, *, steps: int = 32,
    dense: bool = False, folder: Path | None = None, device: torch.device = CPU,
    tell: Callable[[str], None] = lambda message: None,
) -> ScaleBench:  # fmt: skip
    """Measure encode, train and evaluate over `clips` clips like a data set's, and over 2,400.

    `dense` fills the whole store with noise, so that the disk is really read; otherwise most of it are holes. `folder`
    is where the temporary folder is made. Raises PosebridgeError where the disk has not the room, or a stage fails.
    """
    kind = LIKES[like]
    method = method_of(run, RECIPE, CUE_WIDTH, kind.classes)
    stages, slots = STAGES[method.end_to_end :], tuple(dict.fromkeys(("label", *method.text_slots, *method.word_slots)))
    found: dict[int, dict[str, _Measured]] = {}
    for count in dict.fromkeys((min(BASE_CLIPS, clips), clips)):
        with tempfile.TemporaryDirectory(prefix="posebridge-scale-", dir=folder) as name:
            place = Path(name).resolve()
            tell(f"Making a store of {count:,} clips in {place}.")
            begun = time.perf_counter()
            make_store(place, kind, count, slots, dense)
            store_seconds = time.perf_counter() - begun
            store_gb = sum(path.stat().st_blocks for path in place.rglob("*.h5")) * 512 / 1e9
            checksum_seconds = _checksum_seconds(place)
            found[count] = {}
            for stage in ("prepare", *stages):
                let_go(place)
                tell(f"Measuring {stage} over {count:,} clips." if stage != "prepare" else "Preparing.")
                command = (stage, str(place), str(params_path.resolve()), run_name, str(steps), str(device))
                found[count][stage] = _measure(command)
    batches, seeds = Batches(**found[clips]["prepare"].values), len(params.seeds(run))
    score = float(np.mean(found[clips]["evaluate"].values["steps"] or [0.0]))
    result = tuple(
        _stage(
            stage, found[clips][stage], found[min(found)][stage], batches, score, seeds, _read_bytes(stage, kind, clips)
        )
        for stage in stages
    )
    return ScaleBench(
        like, clips, run_name, name_of(device), seeds, store_gb, store_seconds, checksum_seconds, result,
        hours=sum(each.hours for each in result),
        first_step_seconds=max(each.first_step_seconds for each in result),
        waiting_share=max(each.waiting_share for each in result),
        cache_over_memory=max(each.cache_over_memory for each in result if each.stage != "evaluate"),
        grown_mb=max(each.grown_mb or 0.0 for each in result),
    )  # fmt: skip


def _checksum_seconds(folder: Path, count: int = 4) -> float:
    """What comparing all shards with their checksums takes, by the first ones."""
    index = read_index(index_path(folder / "cache", NAME, NAME), "")
    store, entries = folder / "cache" / "store" / NAME / index["store"], index["shards"][:count]
    begun = time.perf_counter()
    for entry in entries:
        checker = Checker(store / entry["file"], entry["checksums"], "")
        checker.check_rest()
        for name in ("clip_id", "keypoints", "scores", "person_valid", "cues", "cue_scores"):
            checker.check(name)
    return (time.perf_counter() - begun) / len(entries) * len(index["shards"])


def _measure(arguments: tuple[str, ...]) -> _Measured:
    """Run scale_stage.py in a process of its own and look at its memory. Raises PosebridgeError where it fails."""
    command = [sys.executable, "-m", "pipeline.bench.scale_stage", *arguments]
    began, peak, own = time.time(), 0.0, None
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors, cwd=Path(__file__).parents[2])
        try:
            while process.poll() is None:
                status = _status(process.pid)
                peak = max(peak, status.get("VmHWM", 0.0))
                if "RssAnon" in status:
                    own = max(own or 0.0, status["RssAnon"] + status.get("RssShmem", 0.0))
                time.sleep(SAMPLED)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or [f"it ended with {process.returncode}"])[-1]
    if process.returncode:
        raise PosebridgeError(f"Measuring {arguments[0]} failed: {last}")
    values = json.loads((Path(arguments[1]) / f"{arguments[0]}.json").read_bytes())
    if not peak:  # no /proc
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return _Measured(values, began, peak, own)


def _status(pid: int) -> dict[str, float]:
    """Megabytes of /proc/<pid>/status; none on other systems than Linux, or when the process has just ended."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        pairs = (line.split() for line in lines if line.endswith(" kB"))
        return {name.rstrip(":"): int(value) * 1024 / 1e6 for name, value, _ in pairs}
    return {}


def _read_bytes(stage: str, like: Like, clips: int) -> float:
    """What an epoch of a stage reads: of train clips, or test clips, joints and, where it sees them, cues. Of both, a
    person who is not there has joints only.
    """
    sizes = {column.name: column.row_bytes for column in columns(RECIPE, JOINTS, CUE_WIDTH)}
    joints = sum(sizes[name] for name in ("keypoints", "scores", "person_valid"))
    cues = sizes["cue_scores"] + sizes["cues"] * PRESENT
    share = like.tested if stage == "evaluate" else 1 - like.tested
    return clips * share * (joints + cues * (stage != "encode"))


def _stage(
    stage: str, at: _Measured, base: _Measured, batches: Batches, score: float, seeds: int, read_bytes: float
) -> StageScale:
    values = at.values
    if not values["steps"]:
        raise PosebridgeError(f"The stage {stage} has too few batches to be measured; take more --clips.")
    step, waits = float(np.median(values["steps"])), sum(values["waits"])
    own, own_base = at.own_mb, base.own_mb
    cold, warm = (np.median(values[source], axis=0).tolist() for source in (DISK, PAGES))
    fits = 2 * read_bytes <= machine_bytes()
    later = warm if fits and stage != "evaluate" else cold
    return StageScale(
        stage,
        first_step_seconds=values["first"] - at.began,
        opening_seconds=values["opening"],
        step_seconds=step,
        waiting_share=waits / sum(values["steps"]),
        cold_over_memory=cold[0],
        warm_over_memory=warm[0],
        cpu_cold_over_memory=cold[1],
        cpu_warm_over_memory=warm[1],
        read_gb=read_bytes / 1e9,
        fits=fits,
        cache_over_memory=later[0],
        cpu_over_memory=later[1],
        peak_mb=at.peak_mb,
        peak_own_mb=own,
        grown_mb=None if own is None or own_base is None else own - own_base,
        hours=seeds * stage_seconds(stage, float(np.mean(values["steps"])), score, batches) / 3600,
    )

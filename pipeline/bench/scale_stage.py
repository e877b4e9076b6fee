"""One stage over the store of scale_store.py, for so many steps, with a clock around its batches.

What `bench scale` starts in a process of its own, so that the peak of memory is the stage's. Writes <stage>.json there.
Command: python -m pipeline.bench.scale_stage train FOLDER params.yaml posebridge 16 cpu
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bench.scale_store import JOINTS, NAME
from pipeline.errors import PosebridgeError
from pipeline.files.device import choose_devices
from pipeline.files.durable import write_for_people
from pipeline.learn import feature_table, features, loop
from pipeline.learn.cost import count_batches
from pipeline.learn.dataset import Dataset, open_dataset
from pipeline.learn.encode import encode, new_encoder, write_encoder
from pipeline.learn.encoders import encoder_folder, encoder_learnt_from
from pipeline.learn.evaluate import evaluate
from pipeline.learn.features import Samples
from pipeline.learn.run import open_run
from pipeline.learn.score import BATCH
from pipeline.learn.train import new_method, train, write_trained
from pipeline.learn.trained import model_folder
from pipeline.params import Params, RunParams, choose, load_params
from pipeline.protocol.heldout import heldout_clips
from pipeline.protocol.training_set import PHASES, training_phase

WARM = 3  # batches that nobody counts
MADE_NEXT = 2  # while one is worked on, one waits already, and the next but one is made: `ahead` to a depth of 1
DISK, PAGES, MEMORY = "disk", "pages", "memory"


class Enough(Exception):
    """As many steps as were asked for are done."""


@dataclass
class Meter:
    """Notes of each batch when it was asked for and when it came, and ends the stage after `steps` of them.

    Each is given three times, always by the thread that reads: from the disk, when no memory has its clips yet; read
    again by the same code, when the system has them in its page cache; and taken from tensors in memory. So the three
    stand side by side, and what else the machine does falls on all of them. No more than `most` are given, where there
    is a place for so many only. `dropped` batches after the first one are read and left out: by then all shards have
    been opened.
    """

    steps: int
    most: int = sys.maxsize
    dropped: int = 0
    first: float = 0.0  # when the first one came, in seconds of the epoch
    opening: float = 0.0  # seconds that these took
    asked: list[tuple[float, float]] = field(default_factory=list)  # by the clock, and the CPU time of all threads
    came: list[tuple[float, float]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # where each came from
    read_again: Callable[[], Samples] | None = None  # what was read last

    def around(self, ahead: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """`ahead` with this clock around it."""

        def metered(items: Iterable[Any], depth: int) -> Iterator[Any]:
            coming = ahead(self._thrice(items), depth)
            while True:
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # or a step would seem to take no longer than to ask for it
                self.asked.append(_now())
                item, source = next(coming, (None, ""))
                if item is None:
                    self.asked.pop()
                    return
                self.came.append(_now())
                self.sources.append(source)
                self.first = self.first or time.time()
                if len(self.came) == WARM + 3 * self.steps + MADE_NEXT or len(self.came) > self.most:
                    raise Enough
                yield item
                if len(self.came) == 1:
                    begun = time.perf_counter()
                    for _ in range(self.dropped):
                        next(coming, None)
                    self.opening = time.perf_counter() - begun

        return metered

    def remembering(self, take: Callable[[Any, Any], Samples]) -> Callable[[Any, Any], Samples]:
        """The `take` of clips on the disk, whose last call can be made again."""

        def taken(samples: Any, rows: Any) -> Samples:
            self.read_again = partial(take, samples, rows)
            return self.read_again()

        return taken

    def _thrice(self, items: Iterable[Any]) -> Iterator[tuple[Any, str]]:
        """With each item where it is from: from all three, once the shards are open."""
        for number, item in enumerate(items):
            yield item, DISK
            if number >= WARM + self.dropped:
                yield _with(item, self._read_again), PAGES
                yield _with(item, lambda samples: samples.take(range(len(samples)))), MEMORY

    def _read_again(self, samples: Samples) -> Samples:
        assert self.read_again is not None
        return self.read_again().to(samples.keypoints.device)

    def values(self) -> dict[str, Any]:
        """When the first batch came; seconds to open the other shards; of each step with a batch from the disk, and of
        the wait for it; and `disk` and `pages`, a step with a batch from there / the same with one from memory, by the
        clock and by CPU time.

        A step with a batch is the work in whose time it was made, which is that on the batch two before it, and the
        wait for it. So the three steps that are compared are work on equal clips.
        """
        asked, came = np.array(self.asked), np.array(self.came)
        values: dict[str, Any] = {name: [] for name in ("steps", "waits", DISK, PAGES)}
        for number in range(WARM, len(came) - 2 * MADE_NEXT):
            if self.sources[number : number + 2] == [DISK, PAGES]:
                made = np.arange(number, number + 3) + MADE_NEXT
                memory, disk, pages = asked[made - 1] - came[made - 2] + came[made] - asked[made]
                values["steps"].append(disk[0])
                values["waits"].append(float(came[made[1], 0] - asked[made[1], 0]))
                values[DISK].append((disk / memory).tolist())
                values[PAGES].append((pages / memory).tolist())
        return {"first": self.first, "opening": self.opening} | values


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _with(item: Any, made: Callable[[Samples], Samples]) -> Any:
    """A batch with other samples in the place of its own, of which nothing has been computed."""
    if isinstance(item, tuple):
        return tuple(_with(part, made) for part in item)
    return made(item) if isinstance(item, Samples) else item


def main(stage: str, folder: Path, params_path: Path, run_name: str, steps: int, device: str = "cpu") -> dict[str, Any]:
    """Run one stage on a device, or `prepare` them all."""
    params = load_params(params_path)
    run = replace(choose(params.runs, run_name, "run"), recipe=NAME, skeletons="estimated", text="minilm", seeds=())
    params = replace(params, encode=replace(params.encode, seeds=params.encode.seeds[:1]))
    dataset = open_dataset(NAME, folder / "manifests", folder / "cache", verify=False)
    if stage == "prepare":
        return prepare(dataset, run_name, run, params)
    features.HELD_BYTES = 0  # few clips, too, are to be read batch by batch
    shards = len(dataset.reader(NAME).index["shards"])
    batch = params.encode.batch_size if stage == "encode" else BATCH
    meter = Meter(steps, dropped=4 * shards // batch)
    if stage == "evaluate":
        test = heldout_clips(dataset.split(NAME), dataset.clips)
        meter.most = (len(test.unseen) + len(test.seen)) // BATCH
    devices = choose_devices(device)
    place = feature_table if stage == "evaluate" else loop
    place.ahead = meter.around(place.ahead)  # type: ignore[attr-defined]
    features.StoredSamples.take = meter.remembering(features.StoredSamples.take)  # type: ignore[assignment, method-assign]
    try:
        if stage == "encode":
            encode(dataset, NAME, NAME, params.encode, devices=devices)
        elif stage == "train":
            train(dataset, NAME, run_name, run, params, devices=devices)
        else:
            evaluate(dataset, NAME, run_name, run, params, device=devices[0])
    except Enough:
        pass
    return meter.values()


def prepare(dataset: Dataset, run_name: str, run: RunParams, params: Params) -> dict[str, Any]:
    """Write encoders and a method as they are before training, in the place of trained ones: how long a score takes
    does not depend on the weights. Returns how many batches each stage has.
    """
    split, seed = dataset.split(NAME), params.encode.seeds[0]
    phases = {name: training_phase(name, split, dataset.clips) for name in PHASES}
    recipe = dataset.reader(NAME).recipe
    shape = 1, recipe.persons, recipe.frames, JOINTS, recipe.dimensions + 1
    for name, phase in phases.items():
        encoder = new_encoder(shape, len(phase.classes), params.encode)
        path = encoder_folder(dataset.cache, NAME, NAME, NAME) / f"seed-{seed}" / f"{name}.safetensors"
        write_encoder(path, encoder, shape, phase, params.encode, encoder_learnt_from(dataset, NAME, phase))
    opened = open_run(dataset, NAME, run)
    method, _ = new_method(opened, split.seen)
    method.see_text(opened.bank.take(split.seen, method.text_slots))
    place = model_folder(dataset.cache, NAME, NAME, run_name) / f"seed-{seed}"
    chosen = {name: values[0] for name, values in method.choices.items()} | {"gamma": 0.0, "epochs": 1}
    write_trained(opened, place, seed, phases["final"], {"final": method}, chosen)

    select, final, test = phases["select"], phases["final"], heldout_clips(split, dataset.clips)
    kept_out, tested = len(select.held_out) + len(select.pseudo_unseen), len(test.unseen) + len(test.seen)
    return asdict(count_batches(len(select.train), kept_out, len(final.train), tested, params, method))


if __name__ == "__main__":
    torch.manual_seed(0)
    name, where, params_file, run_called, count, computed_on = sys.argv[1:]
    try:
        found = main(name, Path(where), Path(params_file), run_called, int(count), computed_on)
    except PosebridgeError as error:
        sys.exit(str(error))
    write_for_people(Path(where) / f"{name}.json", json.dumps(found).encode())

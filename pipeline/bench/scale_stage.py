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
from pathlib import Path
from typing import Any

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


class Enough(Exception):
    """As many steps as were asked for are done."""


@dataclass
class Meter:
    """Notes of each batch when it was asked for and when it came, and ends the stage after `steps` of them from the
    cache. Each is given twice, as it was read and then taken again from memory, which the same thread does: so a step
    from the cache stands beside the same step from memory, and what else the machine does falls on both. No more than
    `most` are given, where there is a place for so many only. `dropped` batches after the first one are read and left
    out: by then all shards have been opened.
    """

    steps: int
    most: int = sys.maxsize
    dropped: int = 0
    first: float = 0.0  # when the first one came, in seconds of the epoch
    opening: float = 0.0  # seconds that these took
    asked: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)  # CPU time of all threads, when it was asked for
    again: list[bool] = field(default_factory=list)  # whether it came from memory

    def around(self, ahead: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """`ahead` with this clock around it."""

        def metered(items: Iterable[Any], depth: int) -> Iterator[Any]:
            coming = ahead(self._twice(items), depth)
            while True:
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()  # or a step would seem to take no longer than to ask for it
                self.asked.append(time.perf_counter())
                self.spent.append(time.process_time())
                item, again = next(coming, (None, False))
                if item is None:
                    self.asked.pop()
                    self.spent.pop()
                    return
                self.came.append(time.perf_counter())
                self.again.append(again)
                self.first = self.first or time.time()
                if len(self.came) > WARM + 2 * self.steps or len(self.came) > self.most:
                    raise Enough
                yield item
                if len(self.came) == 1:
                    begun = time.perf_counter()
                    for _ in range(self.dropped):
                        next(coming, None)
                    self.opening = time.perf_counter() - begun

        return metered

    def _twice(self, items: Iterable[Any]) -> Iterator[tuple[Any, bool]]:
        """With each item whether it is from memory: every second one, once the shards are open."""
        for number, item in enumerate(items):
            yield item, False
            if number >= WARM + self.dropped:
                yield _taken_again(item), True

    def values(self) -> dict[str, Any]:
        """When the first batch came; seconds to open the other shards, of each step from the cache, and of the wait for
        its batch; and the ratios of a step from the cache and the same from memory, by the clock and by CPU time. A
        step goes from one batch to the next.
        """
        steps, waits, by_clock, by_cpu = [], [], [], []
        for number in range(WARM, len(self.came) - 1):
            if self.again[number]:
                continue
            steps.append(self.asked[number + 1] - self.asked[number])
            waits.append(self.came[number] - self.asked[number])
            if self.again[number + 1] and number + 2 < len(self.asked):
                by_clock.append(steps[-1] / (self.asked[number + 2] - self.asked[number + 1]))
                one, same = self.spent[number + 1] - self.spent[number], self.spent[number + 2] - self.spent[number + 1]
                by_cpu.append(one / same)
        return {
            "first": self.first, "opening": self.opening, "steps": steps, "waits": waits, "by_clock": by_clock,
            "by_cpu": by_cpu,
        }  # fmt: skip


def _taken_again(item: Any) -> Any:
    """A batch as its clips would be taken from memory: copied, and without what was computed of it."""
    if isinstance(item, tuple):
        return tuple(map(_taken_again, item))
    return item.take(range(len(item))) if isinstance(item, Samples) else item


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

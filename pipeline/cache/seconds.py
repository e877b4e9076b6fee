"""What an extraction cost, by the receipts of its shards: seconds depend on the machine and stand in no shard or index.

Reads receipts; writes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.cache.reader import CacheReader
from pipeline.cache.store import open_store

PARTS = ("decode", "boxes", "pose")  # beside one another, in threads: no sum


@dataclass(frozen=True)
class Cost:
    """Of `estimated` clips, failed ones among them; `seconds` by name, see extract/stopwatch.py. `devices`: where, and
    for how many shards.
    """

    estimated: int
    seconds: Mapping[str, float]
    devices: Mapping[str, int]

    @property
    def a_clip(self) -> float:
        """Seconds: CPU time of all threads, or, where a GPU took part, wall time of a worker."""
        kind = "cpu" if set(self.devices) <= {"", "CPU"} else "wall"
        return self.seconds[kind] / self.estimated

    @property
    def parts(self) -> dict[str, float]:
        """Seconds a clip of each part that there was, wall time."""
        return {part: self.seconds[part] / self.estimated for part in PARTS if part in self.seconds}


def cost_of(reader: CacheReader, most: int) -> Cost | None:
    """Of `most` of its shards at the most, evenly taken; None where no receipt tells: the store is older than this, of
    imported skeletons, or not here.
    """
    store = open_store(reader.folder)
    shards = [entry["shard"] for entry in reader.index["shards"]]
    step = max(1, -(-len(shards) // max(1, most)))
    estimated, seconds, devices = 0, defaultdict[str, float](float), Counter[str]()
    for receipt in map(store.receipt, shards[::step]):
        if receipt is None or not receipt.estimated or not {"wall", "cpu"} <= receipt.seconds.keys():
            continue
        estimated += receipt.estimated
        devices[receipt.computed.get("device", "")] += 1
        for name, value in receipt.seconds.items():
            seconds[name] += value
    return Cost(estimated, dict(seconds), dict(devices)) if estimated else None

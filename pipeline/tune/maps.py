"""What a frozen pose model sees of a source's crops, computed once: tapped maps, keypoints, scores, captions.

Writes `<folder>/part-00000.safetensors`, GROUPS of the source each, the maps as float16, and beside each a sealed JSON
with its sha256, which is its commit point: a killed run goes on behind the last sealed part.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from pipeline.cache.sealed import canonical_json, read_sealed, seal
from pipeline.errors import PosebridgeError
from pipeline.files.device import memory_for
from pipeline.files.durable import make_folder, write_for_people
from pipeline.files.hashing import sha256_file
from pipeline.files.tensors import save_tensors
from pipeline.hpe.base import TappedEstimator
from pipeline.tune.data import CropSource, TrainingCrop

GROUPS = 256  # of a part
BATCH = 16  # crops in one call of the pose model
LARGEST = 65504.0  # that float16 holds
PLACES, FACTS = ("keypoints", "scores"), ("caption", "scene", "held")
Progress = Callable[[Sequence[int]], Iterator[int]]


@dataclass
class MapBatch:
    """What a head is trained on: maps [N, C, h, w] float32, laid out with channels last; keypoints [N, V, 2], scores
    [N, V], rows [N] of text.
    """

    maps: list[Tensor]
    keypoints: Tensor
    scores: Tensor
    caption: Tensor
    scene: Tensor
    held: Tensor

    def to(self, device: torch.device) -> MapBatch:
        """The same on a device."""
        return MapBatch([m.to(device) for m in self.maps], *(getattr(self, n).to(device) for n in (*PLACES, *FACTS)))


class CachedMaps:
    """The crops of sealed parts, read a batch at a time: they lie on the disk."""

    def __init__(self, parts: Sequence[Path], taps: int) -> None:
        self._files = [safe_open(path, "pt") for path in parts]
        self._taps = taps
        counts = [len(file.get_tensor("scene")) for file in self._files]
        self._ends = np.cumsum(counts)
        self.facts = {name: torch.cat([file.get_tensor(name) for file in self._files]) for name in FACTS}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, rows: Tensor) -> MapBatch:
        """Some crops, in the order given."""
        names = [*(f"map{tap}" for tap in range(self._taps)), *PLACES]
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        for row in rows.tolist():
            part = int(np.searchsorted(self._ends, row, side="right"))
            place = row - (int(self._ends[part - 1]) if part else 0)
            for name in names:
                found[name].append(self._files[part].get_slice(name)[place])
        stacked = {name: torch.stack(values).float() for name, values in found.items()}
        maps = [stacked[f"map{tap}"].contiguous(memory_format=torch.channels_last) for tap in range(self._taps)]
        facts = (self.facts[name][rows] for name in FACTS)
        return MapBatch(maps, stacked["keypoints"], stacked["scores"], *facts)


def cache_maps(
    estimator: TappedEstimator,
    source: CropSource,
    groups: int,
    folder: Path,
    facts: dict[str, Any],
    progress: Progress = iter,
) -> CachedMaps:
    """The maps of the source's first `groups` groups, computed as far as no part of equal `facts` is sealed already.

    `facts` is all that the maps depend on. `progress` may wrap the groups that are still to be seen.

    Raises PosebridgeError where the disk has not the room, before anything is computed, and as the source does.
    """
    key = hashlib.sha256(canonical_json(facts)).hexdigest()
    starts = range(0, groups, GROUPS)
    paths = [folder / f"part-{number:05d}.safetensors" for number in range(len(starts))]
    open_parts = [n for n, path in enumerate(paths) if not _is_sealed(path, key)]
    wanted = [group for n in open_parts for group in range(starts[n], min(starts[n] + GROUPS, groups))]
    _require_room(estimator, len(wanted) * source.per_group, folder)
    shown = iter(progress(wanted)) if wanted else iter(())
    for number in open_parts:
        count = min(GROUPS, groups - starts[number])
        crops = [crop for _ in range(count) for crop in source.crops(next(shown), estimator.crop_size)]
        _seal_part(paths[number], key, _see(estimator, crops))
    for _ in shown:  # so that a bar ends
        pass
    return CachedMaps(paths, len(estimator.taps))


def _see(estimator: TappedEstimator, crops: Sequence[TrainingCrop]) -> dict[str, Tensor]:
    """What a part holds of these crops."""
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(crops), BATCH):
        images = np.stack([crop.image for crop in crops[start : start + BATCH]])
        with memory_for("The pose model", BATCH):
            maps, keypoints, scores = estimator.tapped(images)
        named = {f"map{tap}": values.clamp(-LARGEST, LARGEST).half() for tap, values in enumerate(maps)}
        for name, values in (named | {"keypoints": keypoints.float(), "scores": scores.float()}).items():
            found.setdefault(name, []).append(values.cpu())
    joined = {name: torch.cat(values).contiguous() for name, values in found.items()}  # mmpose has channels last
    return joined | {name: torch.tensor([getattr(crop, name) for crop in crops]) for name in FACTS}


def _seal_part(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    sha256 = save_tensors(tensors, path, {"key": key})
    write_for_people(path.with_suffix(".json"), canonical_json(seal({"key": key, "sha256": sha256})) + b"\n")


def _is_sealed(path: Path, key: str) -> bool:
    """Whether a part is whole and of these facts; any other one is made anew."""
    try:
        told = read_sealed(path.with_suffix(".json"), "it is made anew")
        return told.get("key") == key and path.is_file() and sha256_file(path) == told.get("sha256")
    except (PosebridgeError, OSError):
        return False


def _require_room(estimator: TappedEstimator, crops: int, folder: Path) -> None:
    width, height = estimator.crop_size
    numbers = sum(channels * (width // stride) * (height // stride) for channels, stride in estimator.taps.values())
    needed = 2 * numbers * crops
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise PosebridgeError(
            f"The maps of {crops} crops take {needed / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left; give "
            "fewer --images, or a recipe with fewer or deeper taps."
        )

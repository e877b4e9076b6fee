"""Test clips that repeat a train clip, as `extract` noted them: a table, and a strip of thumbnails of each pair.

Reads cache/<dataset>/<recipe>/{index,duplicates}.json and clips.csv, and the shards for the thumbnails; what is not
there is left out. Writes the strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pipeline.cache.imported import list_of_clips
from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.files.durable import writing
from pipeline.files.shipped import dataset_folder
from pipeline.manifest.clips import read_clips
from pipeline.protocol.duplicates import Duplicate, noted_duplicates
from pipeline.report.leaderboard import NONE
from pipeline.report.runs import Run

MOST_ROWS = 200  # pairs in the table
SHOWN, FRAMES, ZOOM = 20, 8, 3  # pairs with pictures; thumbnails of a strip; their magnification


@dataclass(frozen=True)
class Repeated:
    """What is known of one recipe: its pairs, None where nobody has looked since the extraction changed."""

    recipe: str
    pairs: tuple[Duplicate, ...] | None
    strips: tuple[Path, ...]  # of the first pairs
    class_names: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """Printable, a row for each of the first pairs."""
        rows = [
            [p.test, self._name(p.test_label), p.train, self._name(p.train_label), p.kind, f"{p.distance:.3f}"]
            for p in (self.pairs or ())[:MOST_ROWS]
        ]
        return pd.DataFrame(rows, columns=["test clip", "its class", "train clip", "its class", "kind", "distance"])

    def _name(self, label: int | None) -> str:
        return self.class_names[label] if label is not None and label < len(self.class_names) else NONE


def read_repeated(
    cache: Path, store_root: Path | None, manifests: Path, runs: Sequence[Run], class_names: Sequence[str], folder: Path
) -> tuple[list[Repeated], list[str]]:
    """Of every recipe of the runs, if its extraction is in `cache`; strips go to `folder`. And one sentence for each
    recipe whose pairs are unknown, or of whose pairs no strip could be made.
    """
    dataset = runs[0].first.dataset
    found, complaints = [], []
    for recipe in dict.fromkeys(run.first.recipe for run in runs):
        try:
            index = index_path(cache, dataset, recipe)
        except PosebridgeError:  # no recipe of ours
            continue
        clips_csv = list_of_clips(index, dataset_folder(manifests, dataset))
        if not (index.is_file() and clips_csv.is_file()):  # results from elsewhere
            continue
        try:
            pairs = noted_duplicates(index, read_clips(clips_csv))
        except PosebridgeError as error:
            complaints.append(f"The repeated clips ({dataset}, {recipe}): {error}")
            continue
        try:
            strips = _strips(index, store_root, pairs or [], folder)
        except PosebridgeError as error:
            complaints.append(f"The pictures of repeated clips ({dataset}, {recipe}): {error}")
            strips = ()
        found.append(Repeated(recipe, None if pairs is None else tuple(pairs), strips, tuple(class_names)))
    return found, complaints


def _strips(index: Path, store_root: Path | None, pairs: Sequence[Duplicate], folder: Path) -> tuple[Path, ...]:
    """A picture of each of the first pairs; none without thumbnails. Raises PosebridgeError as the reader does,
    and where the disk does not let us.
    """
    if not pairs:
        return ()
    written = []
    with CacheReader(index, store_root) as reader:
        for number, pair in enumerate(pairs[:SHOWN] if "thumbnail" in reader.names else (), start=1):
            both = reader.read([pair.train, pair.test], ["thumbnail"])["thumbnail"]  # [2, T, 24, 24]
            frames = both[:, np.linspace(0, both.shape[1] - 1, FRAMES).round().astype(int)]
            strip = np.concatenate([np.concatenate(list(row), 1) for row in frames])
            path = folder / f"{index.parent.name}-repeated-{number}.png"
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", strip.repeat(ZOOM, 0).repeat(ZOOM, 1))[1].tobytes())
            written.append(path)
    return tuple(written)

"""Test clips that repeat a train clip, as `extract` noted them: a table, and a strip of thumbnails of each pair.

Reads cache/<dataset>/<recipe>/{index,duplicates}.json and clips.csv, and the shards for the thumbnails; what is not
there is left out. Writes the strips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import read_clips
from pipeline.protocol.duplicates import Duplicate, count_told, noted_duplicates
from pipeline.report.html import image, table
from pipeline.report.leaderboard import NONE
from pipeline.report.results import Run

SHOWN, FRAMES, ZOOM = 20, 8, 3  # pairs with pictures; thumbnails of a strip; their magnification

REPEATED = """<p>A test clip that is a train clip under another name, re-encoded, cropped, cut or mirrored, is learnt by
heart and not recognised. The distance is 0 for the same video; .17 and more are different ones. In a strip the train
clip is above, the test clip below.</p>"""


@dataclass(frozen=True)
class Repeated:
    """What is known of one recipe: its pairs, None where nobody has looked since the extraction changed."""

    recipe: str
    pairs: tuple[Duplicate, ...] | None
    strips: tuple[Path, ...] = ()


def read_repeated(cache: Path, manifests: Path, runs: Sequence[Run], folder: Path) -> tuple[Repeated, ...]:
    """Of every recipe of the runs, if its extraction is in `cache`; strips go to `folder`."""
    dataset = runs[0].first.dataset
    found = []
    for recipe in dict.fromkeys(run.first.recipe for run in runs):
        index = index_path(cache, dataset, recipe)
        try:
            pairs = noted_duplicates(index, read_clips(manifests / dataset / "clips.csv")) if index.is_file() else []
        except PosebridgeError:  # results of a data set whose manifests are elsewhere
            continue
        if index.is_file():
            found.append(Repeated(recipe, None if pairs is None else tuple(pairs), _strips(index, pairs or [], folder)))
    return tuple(found)


def section(found: Sequence[Repeated], class_names: Sequence[str]) -> list[str]:
    """The part of the page; none where no extraction is there."""
    parts = []
    for each in found:
        recipe = escape(each.recipe)
        if each.pairs is None:
            parts.append(
                f"<p>Nobody has looked for test clips that repeat train clips since the extraction by {recipe} or a "
                "part changed; run <code>posebridge extract</code>.</p>"
            )
        elif not each.pairs:
            parts.append(f"<p>No test clip was found to repeat a train clip (recipe {recipe}).</p>")
        else:
            body = [
                [p.test, _name(p.test_label, class_names), p.train, _name(p.train_label, class_names), p.kind,
                 f"{p.distance:.3f}"]
                for p in each.pairs
            ]  # fmt: skip
            header = ["test clip", "its class", "train clip", "its class", "kind", "distance"]
            count = f"<p><span class='red'>{count_told(each.pairs)}</span> (recipe {recipe}).</p>"
            named = ((path, f"{p.train} | {p.test}") for path, p in zip(each.strips, each.pairs, strict=False))
            pictures = "".join(
                f"<figure>{image(path, clips)}<figcaption>{escape(clips)}</figcaption></figure>"
                for path, clips in named
            )
            parts += [count, REPEATED, table(header, body, numbers_from=5), f"<div class='grid'>{pictures}</div>"]
    return ["<h3>Test clips that repeat train clips</h3>", *parts] if parts else []


def _name(label: int | None, class_names: Sequence[str]) -> str:
    return class_names[label] if label is not None and label < len(class_names) else NONE


def _strips(index: Path, pairs: Sequence[Duplicate], folder: Path) -> tuple[Path, ...]:
    """A picture of each of the first pairs; none without thumbnails or without the store."""
    if not pairs:
        return ()
    written = []
    try:
        with CacheReader(index) as reader:
            for number, pair in enumerate(pairs[:SHOWN] if "thumbnail" in reader.names else (), start=1):
                both = reader.read([pair.train, pair.test], ["thumbnail"])["thumbnail"]  # [2, T, 24, 24]
                frames = both[:, np.linspace(0, both.shape[1] - 1, FRAMES).round().astype(int)]
                strip = np.concatenate([np.concatenate(list(row), 1) for row in frames])
                path = folder / f"{index.parent.name}-repeated-{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), strip.repeat(ZOOM, 0).repeat(ZOOM, 1))
                written.append(path)
    except PosebridgeError:
        return ()
    return tuple(written)

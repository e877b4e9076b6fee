"""What a protocol keeps together, in pictures: which classes of one place, or of one movement, are unseen at once.

A protocol `shoot_2` keeps together the classes of one value in the column `shoot` of attributes.csv. Reads
manifests/<dataset>/attributes.csv; writes a strip for each of the largest groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.files.tables import open_table
from pipeline.manifest.clips import MOST_CLASSES
from pipeline.report.cards import Card, save_strip
from pipeline.report.clip_frames import FramesOf
from pipeline.report.families import family_of
from pipeline.report.runs import Run
from pipeline.report.swap_pictures import name_of

MOST_GROUPS, MOST_CLIPS = 6, 4  # with pictures
HIGH, WIDE, GREY = 150, 150, 128  # pixels of each frame, and what is around it


@dataclass(frozen=True)
class Together:
    """`cards` are of the largest groups of unseen classes that agree in `column`; `of` is each class's value there."""

    column: str
    of: Mapping[int, str]
    groups: int
    classes: int
    alone: int  # groups of a single class
    cards: tuple[Card, ...]


def kept_together(
    run: Run, attributes: Path, unseen: Sequence[int], names: Sequence[str], folder: Path, frames_of: FramesOf
) -> Together | None:
    """Of the protocol of `run`; None where no column is called as it. Raises PosebridgeError for a damaged table."""
    column = family_of(run.first.protocol)
    if not attributes.is_file() or column not in open_table(attributes, ("index",), (column,)).places:
        return None
    groups, asked, of = defaultdict(list), set(unseen), {}
    for row in open_table(attributes, ("index", column)):
        if (index := row.whole("index", 0, MOST_CLASSES, "the index of a class")) in asked:
            of[index] = row.needed(column)
            groups[of[index]].append(index)
    first: dict[int, str] = {}  # class -> its first clip
    for clip_id, label in run.results[0].answers.label.items():
        first.setdefault(int(label), str(clip_id))
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    cards: list[Card] = []
    for value, classes in largest:
        clips = [first[c] for c in classes if c in first][:MOST_CLIPS]
        if not clips or len(cards) == MOST_GROUPS:
            continue
        frames = [_fitted(found[0]) for found in frames_of(run.first.dataset, "", clips, 1, "").values() if len(found)]
        strip = np.full((MOST_CLIPS, HIGH, WIDE, 3), GREY, np.uint8)  # of one width, however few there are
        strip[: len(frames)] = frames or GREY
        picture = save_strip(strip, folder / f"together-{len(cards) + 1}.jpg", 480) if frames else None
        some = ", ".join(name_of(names, c) for c in classes[:MOST_CLIPS])
        rest = f" and {len(classes) - MOST_CLIPS} more" if len(classes) > MOST_CLIPS else ""
        cards.append(Card(picture, f"{column} {value}", note=some + rest))
    alone = sum(len(classes) == 1 for classes in groups.values())
    return Together(column, of, len(groups), sum(map(len, groups.values())), alone, tuple(cards))


def _fitted(frame: np.ndarray) -> np.ndarray:
    """The whole frame [H, W, 3] in the middle of a grey one of a fixed size."""
    height, width = frame.shape[:2]
    scale = min(HIGH / height, WIDE / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    top, left = (HIGH - size[1]) // 2, (WIDE - size[0]) // 2
    edges = (top, HIGH - size[1] - top, left, WIDE - size[0] - left)
    return cv2.copyMakeBorder(small, *edges, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))

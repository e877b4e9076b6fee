"""A contact sheet of what a search has found: frames of each clip with the joints of the cache, and times.

Reads videos and an extraction; `contact_sheet` returns the page, which needs nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.cache.index import index_path
from pipeline.cache.reader import CacheReader
from pipeline.manifest.clips import Clip
from pipeline.predict.overlay import Sight, draw
from pipeline.report.clip_frames import ClipFrames, frames_at
from pipeline.report.page import templates
from pipeline.search.search import Hit
from pipeline.skeleton.graph import graph_of

FRAMES = 3
HEIGHT = 200  # pixels of a frame
WANTED = ("keypoints", "scores", "boxes", "person_valid", "timestamp", "frame_index")


@dataclass(frozen=True)
class Shown:
    """A clip on the sheet; `picture` is a JPEG in base64, empty where its video is not there."""

    hit: Hit
    picture: str
    time: str


def contact_sheet(
    query: str, told: str, warnings: Sequence[str], hits: Sequence[Hit], recipe: str, frames: ClipFrames, cache: Path,
    store_root: Path | None = None,
) -> str:  # fmt: skip
    """The page; `told` says by what was searched. Raises PosebridgeError for a damaged extraction."""
    names = {hit.dataset for hit in hits}
    readers = {name: CacheReader(index_path(cache, name, recipe), store_root) for name in names}
    shown = [Shown(hit, _picture(hit, readers[hit.dataset], frames.root(hit.dataset)), time_of(hit)) for hit in hits]
    sheet = templates().get_template("sheet.html")
    return sheet.render(query=query, told=told, warnings=warnings, shown=shown)


def time_of(hit: Hit) -> str:
    """`1.0-4.0 s`, or that it is the whole video."""
    if hit.start is None and hit.end is None:
        return "whole video"
    return f"{hit.start or 0:.1f} s to the end" if hit.end is None else f"{hit.start or 0:.1f}-{hit.end:.1f} s"


def _picture(hit: Hit, reader: CacheReader, root: Path) -> str:
    """Frames side by side, evenly among those that the extraction looked at."""
    if not hit.path or "frame_index" not in reader.names:
        return ""
    row = {name: values[0] for name, values in reader.read([hit.clip_id], WANTED).items()}
    chosen = sorted({int(len(row["timestamp"]) * (i + 0.5) / FRAMES) for i in range(FRAMES)})
    positions = row["frame_index"][chosen].tolist()
    path = Clip(hit.clip_id, hit.path).file(root)
    found = frames_at(path, lambda video: positions if max(positions) < len(video.times) else [])
    if found is None:
        return ""
    sight, graph = Sight(row, range(len(row["person_valid"]))), graph_of(reader.recipe.layout)
    strip = []
    for frame, time in zip(found, row["timestamp"][chosen].tolist(), strict=True):
        picture = draw(frame, sight, time, [f"{time:.1f} s"], graph)
        width = max(round(picture.shape[1] * HEIGHT / picture.shape[0]), 1)
        strip.append(cv2.resize(picture, (width, HEIGHT), interpolation=cv2.INTER_AREA))
    _, jpeg = cv2.imencode(".jpg", np.hstack(strip)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(jpeg.tobytes()).decode()

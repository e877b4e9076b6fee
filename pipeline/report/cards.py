"""Clips as cards: a strip of frames, and below it what the clip is and what runs said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline.files.durable import writing

WIDEST = 400  # pixels of a strip: three stand side by side, and all of a page are to fit into it
QUALITY = 65  # of its JPEG


@dataclass(frozen=True)
class Shown:
    """One clip. `said`: run, answer, whether it is right."""

    frames: np.ndarray  # [n, H, W, 3] uint8
    title: str
    said: tuple[tuple[str, str, bool], ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Card:
    """The same with its strip written; no `picture` where there are no frames."""

    picture: Path | None
    title: str
    said: tuple[tuple[str, str, bool], ...] = ()
    note: str = ""


def save_cards(rows: Sequence[Sequence[Shown]], folder: Path, name: str) -> tuple[tuple[Card, ...], ...]:
    """Write the strips, <folder>/<name>-<number>.jpg. Raises PosebridgeError where the disk does not let us."""
    cards, number = [], 0
    for row in rows:
        done = []
        for shown in row:
            number += 1
            path = save_strip(shown.frames, folder / f"{name}-{number}.jpg")
            done.append(Card(path, shown.title, shown.said, shown.note))
        cards.append(tuple(done))
    return tuple(cards)


def save_strip(frames: np.ndarray, path: Path, widest: int = WIDEST) -> Path:
    """Frames [n, H, W, 3] side by side as a JPEG of at most so many pixels across."""
    strip = np.concatenate(list(frames), axis=1)
    scale = min(1.0, widest / strip.shape[1])
    size = max(round(strip.shape[1] * scale), 1), max(round(strip.shape[0] * scale), 1)
    small = cv2.resize(strip, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg.tobytes())
    return path

"""Clips that failed, with their reasons and a frame where one can be read; and what `ingest` missed or refused.

Reads failures of an index, videos, and manifests/<dataset>/missing.csv. Writes a strip for each clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.errors import PosebridgeError
from pipeline.files.tables import open_table
from pipeline.report.cards import Card, save_strip
from pipeline.report.clip_frames import FramesOf
from pipeline.report.extraction import Extraction, in_a_cell, reason_kind

MOST = 12  # clips with a card
MOST_ROWS = 40  # of missing.csv


def failed_cards(found: Sequence[Extraction], folder: Path, frames_of: FramesOf) -> tuple[Card, ...]:
    """The first failed clip of every reason, then the second, until there are enough."""
    cards = []
    for number, (dataset, failure) in enumerate(_first_of_each_reason(found), start=1):
        clip_id = failure["clip_id"]
        frames = frames_of(dataset, "", [clip_id], 1, "").get(clip_id)
        picture = None if frames is None else save_strip(frames, folder / f"failed-{number}.jpg", 360)
        cards.append(Card(picture, clip_id, note=f"{failure['stage']}: {in_a_cell(failure['reason'])}"))
    return tuple(cards)


def _first_of_each_reason(found: Sequence[Extraction]) -> list[tuple[str, dict[str, str]]]:
    kinds: dict[str, dict[str, tuple[str, dict[str, str]]]] = {}  # kind -> clip_id -> its failure
    for each in found:
        for failure in each.failures:
            of_kind = kinds.setdefault(reason_kind(failure), {})
            if len(of_kind) < MOST:
                of_kind.setdefault(failure["clip_id"], (each.dataset, dict(failure)))
    queues = [list(of_kind.values()) for of_kind in kinds.values()]
    rounds = [queue[i] for i in range(MOST) for queue in queues if i < len(queue)]
    return rounds[:MOST]


def refused(manifest: Path) -> tuple[pd.DataFrame, int]:
    """(the first rows, how many there are) of missing.csv, printable; no rows where there is none that can be read."""
    path, count = manifest / "missing.csv", 0
    rows: list[list[str]] = []
    try:
        for row in open_table(path, ("kind", "name", "reason")) if path.is_file() else ():
            count += 1
            if len(rows) < MOST_ROWS:
                rows.append([in_a_cell(row.raw(column)) for column in ("name", "kind", "reason")])
    except PosebridgeError:  # `ingest` writes it anew
        return pd.DataFrame(), 0
    return pd.DataFrame(rows, columns=["name", "what", "why"]), count

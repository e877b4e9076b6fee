"""What a cache holds, in figures: the stores there are, and what is in one of them. Reads only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cache.index import read_index
from pipeline.cache.reader import CacheReader
from pipeline.cache.records import sum_up
from pipeline.cache.seconds import cost_of
from pipeline.cache.store import open_store
from pipeline.cache.verify import orphans
from pipeline.errors import PosebridgeError
from pipeline.files.names import is_file


def summary(folder: Path) -> dict[str, Any]:
    """One store: dataset, folder, fingerprint, shards done and planned, clips, failures, bytes, bytes of orphans."""
    store = open_store(folder)
    layout = store.layout()
    receipts = store.receipts(layout)
    return {
        "dataset": folder.parent.name,
        "store": folder.name,
        "fingerprint": store.recipe.fingerprint,
        "shards_done": len(receipts),
        "shards": layout.shards if layout else 0,
        "clips": sum(len(receipt.clips) for receipt in receipts),
        "failures": sum(len(receipt.failures) for receipt in receipts),
        "bytes": sum(receipt.bytes for receipt in receipts),
        "orphan_bytes": sum(path.stat().st_size for path in orphans(store, receipts) if is_file(path)),
    }


def recipe_names(cache: Path) -> dict[tuple[str, str], list[str]]:
    """(data set, store's folder) -> the recipes of params.yaml whose index refers to that store; damaged indexes, which
    `verify` tells of, to none.
    """
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(cache.glob("*/*/index.json")):
        try:
            index = read_index(path, "")
        except PosebridgeError:
            continue
        found[index["dataset"], index["store"]].append(path.parent.name)
    return found


def statistics(reader: CacheReader) -> dict[str, Any]:
    """One index: bytes a clip, bytes by dataset, seconds, how much was seen, odd videos, failures by stage and
    reason.
    """
    found = reader.frame()
    failed = found[found["stage"] != ""]
    clips, recipe, shards = len(reader.clip_ids), reader.recipe, reader.index["shards"]
    total = sum(entry["bytes"] for entry in shards)
    frames = 0 if recipe.backend == "features" else clips * recipe.frames
    anchors = 0 if recipe.cues == "none" else clips * recipe.cue_frames * len(recipe.anchors)
    cost = cost_of(reader, len(shards))
    return {
        "clips": clips,
        "shards": len(shards),
        "bytes": total,
        "bytes_per_clip": total / clips if clips else 0,
        "bytes_by_dataset": {
            column.name: sum(entry["checksums"].datasets[column.name].bytes for entry in shards)
            for column in (reader.columns if shards else ())
        },
        "extraction": None if cost is None else asdict(cost) | {"seconds_per_clip": cost.a_clip},
        "first_person_seen": _share(found["seen"].sum(), frames),
        "mean_score": _share(found["score"].sum(), found["joints"].sum()),
        "anchors_seen": _share(found["anchors"].sum(), anchors),
        "videos": sum_up(found),
        "failures": (failed["stage"] + ": " + failed["reason"]).value_counts(sort=False).to_dict(),
    }


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None

"""What a cache holds, in figures: the stores there are, and what is in one of them. Reads only."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cache.index import read_index
from pipeline.cache.reader import CacheReader
from pipeline.cache.records import sum_up
from pipeline.cache.store import open_store
from pipeline.cache.verify import orphans
from pipeline.errors import PosebridgeError
from pipeline.files.names import is_file


def summary(folder: Path) -> dict[str, Any]:
    """One store: dataset, folder, fingerprint, shards done and planned, clips, failures, bytes, bytes of orphans."""
    store = open_store(folder)
    layout = store.layout()
    receipts = store.receipts(layout) if layout else []
    return {
        "dataset": folder.parent.name,
        "store": folder.name,
        "fingerprint": store.recipe.fingerprint,
        "shards_done": len(receipts),
        "shards": layout.shards if layout else 0,
        "clips": sum(len(receipt.clips) for receipt in receipts),
        "failures": sum(len(receipt.failures) for receipt in receipts),
        "bytes": sum(receipt.bytes for receipt in receipts),
        "orphan_bytes": sum(path.stat().st_size for path in orphans(folder) if is_file(path)),
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
    """One index: bytes a clip, bytes by dataset, how much was seen, odd videos, failures by stage and reason."""
    shards = {id(shard): shard for shard in map(reader.shard, reader.clip_ids)}.values()
    by_dataset: Counter[str] = Counter()
    sums: defaultdict[str, float] = defaultdict(float)
    for shard in shards:
        by_dataset.update({name: int(array.nbytes) for name, array in shard.items()})
        valid = shard["person_valid"]  # [N, M, T]
        sums["slots"] += valid[:, 0].size
        sums["seen"] += int(valid[:, 0].sum())
        sums["joints"] += int(valid.sum()) * shard["scores"].shape[-1]
        sums["score"] += float(shard["scores"].sum(where=valid[..., None], dtype=np.float64))
        if "cue_scores" in shard:
            sums["anchors"] += shard["cue_scores"][:, 0].size
            sums["anchors_seen"] += int((shard["cue_scores"][:, 0] > 0).sum())
    clips = len(reader.clip_ids)
    total = sum(entry["bytes"] for entry in reader.index["shards"])
    return {
        "clips": clips,
        "shards": len(reader.index["shards"]),
        "bytes": total,
        "bytes_per_clip": total / clips if clips else 0,
        "bytes_by_dataset": dict(by_dataset),
        "first_person_seen": sums["seen"] / sums["slots"] if sums["slots"] else None,
        "mean_score": sums["score"] / sums["joints"] if sums["joints"] else None,
        "anchors_seen": sums["anchors_seen"] / sums["anchors"] if sums["anchors"] else None,
        "videos": sum_up(reader),
        "failures": dict(Counter(f"{failure['stage']}: {failure['reason']}" for failure in reader.failures)),
    }

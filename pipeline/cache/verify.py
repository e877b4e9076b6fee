"""Checking the cache: every receipt, every shard, every index. Reads only.

The full check hashes every shard; the quick one compares sizes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.index import entry_of, read_index
from pipeline.cache.reader import MappedShard
from pipeline.cache.store import Layout, Receipt, Store, open_store
from pipeline.errors import PosebridgeError
from pipeline.files.durable import unreadable
from pipeline.files.hashing import sha256_file
from pipeline.files.names import check_name


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file of the cache; `reason` is a sentence that ends in the remedy."""

    path: Path
    reason: str


def store_folders(root: Path, dataset: str = "") -> list[Path]:
    """The stores under a root (`cache/store`), of one data set or of all.

    Raises PosebridgeError for what cannot be a data set's name.
    """
    if dataset:
        check_name(dataset, "data set")
    found = {path.parent for name in ("recipe", "layout") for path in root.glob(f"{dataset or '*'}/*/{name}.json")}
    return sorted(found)


def verify_store(
    folder: Path, quick: bool = False, progress: Callable[[int], None] = lambda size: None
) -> list[Problem]:
    """Check one store. `progress` is told the bytes of every shard that was checked."""
    try:
        store = open_store(folder)
        layout = store.layout()
        if layout is None:
            raise PosebridgeError(f"{folder / 'layout.json'} is missing; delete {folder} and extract again.")
    except PosebridgeError as error:
        return [Problem(folder, str(error))]
    problems = []
    for shard in range(layout.shards):
        path = store.stem(shard).with_suffix(".json")
        if not path.is_file():
            problems.append(
                Problem(path, f"{path} is missing: the run was not finished; run `posebridge extract` again.")
            )
            continue
        try:
            receipt = store.read_receipt(path)
            check_shard(store, layout, receipt, quick)
        except PosebridgeError as error:
            problems.append(Problem(path, str(error)))
        else:
            progress(receipt.bytes)
    return problems


def check_shard(store: Store, layout: Layout, receipt: Receipt, quick: bool) -> None:
    """Raise PosebridgeError where a shard is not what its receipt says."""
    path = store.folder / receipt.file
    if not store.has_file(receipt):
        raise PosebridgeError(f"{path} is missing or has not {receipt.bytes} bytes; {store.remedy}.")
    if quick or receipt.checksums is None:
        return
    try:
        sha256 = sha256_file(path)
    except OSError as error:
        raise unreadable(path, error, store.remedy) from None
    if sha256 != receipt.sha256:
        raise PosebridgeError(f"{path} is damaged: its sha256 is not the receipt's; {store.remedy}.")
    shard = MappedShard(path, store.columns(layout), store.remedy, receipt.checksums)
    dict(shard)  # compares every dataset with its checksum
    if set(shard.rows) != set(receipt.clips):
        raise PosebridgeError(f"{path} holds other clips than its receipt says; {store.remedy}.")


def verify_index(path: Path, root: Path) -> list[Problem]:
    """Check that an index is undamaged, and that its store's receipts say the same of its shards."""
    remedy = "run `posebridge extract` again"
    try:
        index = read_index(path, remedy)
        store = open_store(root / index["dataset"] / index["store"])
        if store.layout() != index["layout"]:
            raise PosebridgeError(f"{path} has not the layout of its store; {remedy}.")
    except PosebridgeError as error:
        return [Problem(path, str(error))]
    clips: defaultdict[int, set[str]] = defaultdict(set)
    for clip_id, shard in index["clips"].items():
        clips[shard].add(clip_id)
    problems = []
    for entry in index["shards"]:
        receipt = store.receipt(entry["shard"])
        if receipt is None or entry != entry_of(receipt) or clips[receipt.shard] != receipt.clips.keys():
            problems.append(Problem(path, f"{path} says of {entry['file']} what its receipt does not; {remedy}."))
    return problems


def orphans(store: Store, receipts: list[Receipt]) -> list[Path]:
    """Shards that no receipt names (predecessors, or the losers of a race): harmless, they only take space.

    `receipts` are all of the store that are sound. Shards of a damaged or unreadable one are no orphans: nobody can
    tell which of them it named.
    """
    named = {receipt.file for receipt in receipts}
    unknown = {path.stem for path in store.folder.glob("shard-?????.json")}
    unknown -= {store.stem(receipt.shard).name for receipt in receipts}
    found = sorted(store.folder.glob("shard-*.h5"))
    return [path for path in found if path.name not in named and path.name.rpartition("-")[0] not in unknown]

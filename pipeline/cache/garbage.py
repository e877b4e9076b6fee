"""What of the store nothing refers to any more: found first, deleted only on request.

Reads cache/store/..., every cache/<dataset>/<recipe>/index.json and the recipes of params.yaml.
    posebridge cache gc
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache.index import read_index
from pipeline.cache.sealed import is_abandoned
from pipeline.cache.store import open_store
from pipeline.cache.verify import orphans, store_folders
from pipeline.errors import PosebridgeError
from pipeline.recipe import Recipe

DAY = 24 * 3600.0


@dataclass(frozen=True)
class Garbage:
    """A file or a whole store that may go, and why."""

    path: Path
    kind: str  # replaced (a shard that no receipt names), draft (of a dead process) or store
    bytes: int


def find_garbage(root: Path, cache: Path, recipes: Iterable[Recipe], whole_stores: bool = True) -> list[Garbage]:
    """List the garbage of the stores under `root`.

    Args:
        cache: where the indexes are that keep a store, with every shard that they name.
        recipes: those of params.yaml; a store of one of them stays, whatever its weights.
        whole_stores: off for a disk that others share, since their indexes and recipes are not to be seen here.

    Raises:
        PosebridgeError: an index is damaged, so nobody can tell what it refers to.
    """
    kept_stores, kept_shards = _named(cache)
    wanted = {_without_weights(recipe) for recipe in recipes}
    found = []
    for folder in store_folders(root):
        try:
            store = open_store(folder)
            replaced = orphans(store, store.receipts(store.layout()))
        except PosebridgeError:
            continue  # `cache verify` tells of it; what is not understood is not deleted
        name = (folder.parent.name, folder.name)
        if whole_stores and name not in kept_stores and _without_weights(store.recipe) not in wanted:
            found.append(Garbage(folder, "store", sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())))
            continue
        shards = [path for path in replaced if (*name, path.name) not in kept_shards and _is_old(path)]
        left = sorted([*folder.glob("*.tmp-*"), *folder.glob("*.lease")])  # a lease that is held is never old
        drafts = [path for path in left if is_abandoned(path, DAY)]
        found += [Garbage(path, "replaced", path.stat().st_size) for path in shards]
        found += [Garbage(path, "draft", path.stat().st_size) for path in drafts]
    return found


def delete(garbage: Iterable[Garbage]) -> None:
    """Delete what `find_garbage` found. Raises PosebridgeError where the disk does not let us."""
    for item in garbage:
        try:
            if item.kind == "store":
                shutil.rmtree(item.path)
            else:
                item.path.unlink(missing_ok=True)
        except OSError as error:
            raise PosebridgeError(f"{item.path} cannot be deleted ({error.strerror}); ask whoever owns it.") from None


def _named(cache: Path) -> tuple[set[tuple[str, str]], set[tuple[str, str, str]]]:
    """The stores and the shards that indexes name."""
    stores, shards = set(), set()
    for path in sorted(cache.glob("*/*/index.json")):
        index = read_index(path, "make it again with `posebridge extract`, or delete it")
        store = (index["dataset"], index["store"])
        stores.add(store)
        shards |= {(*store, entry["file"]) for entry in index["shards"]}
    return stores, shards


def _without_weights(recipe: Recipe) -> str:
    """What a recipe of params.yaml and that of its store have in common: files give hashes and words later."""
    later = ("weights_sha256", "detector_sha256", "hpe_text", "hpe_classes", "image_text_sha256")
    values = json.loads(recipe.canonical_json()) | dict.fromkeys(later, "")
    if recipe.backend != "mmpose":
        values["config"] = ""
    return json.dumps(values, sort_keys=True)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > DAY

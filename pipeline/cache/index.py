"""index.json: what stage two and DVC depend on. Merged from the receipts; it changes exactly when a shard does."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.cache.checksums import Checksums, settled
from pipeline.cache.schema import SCHEMA
from pipeline.cache.sealed import canonical_json, read_sealed, seal, typed
from pipeline.cache.store import CLOSED, Layout, Receipt, Sha256, Store, recipe_of, shard_name
from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_durably
from pipeline.files.names import check_name, is_file
from pipeline.manifest.failure import Failure

Name = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$")]  # of one folder


@dataclass(frozen=True)
class Entry:
    """One shard in the index."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    shard: int
    file: str
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]
    clips: int
    checksums: Checksums


@dataclass(frozen=True)
class Index:
    """The file; `clips` maps a clip to the number of its shard."""

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    schema: int
    dataset: Name
    store: Name
    recipe: dict[str, Any]
    fingerprint: Sha256
    layout: Layout
    shards: list[Entry]
    clips: dict[str, int]
    failures: list[Failure]


INDEX = TypeAdapter(Index)


def index_path(cache: Path, dataset: str, recipe_name: str) -> Path:
    """`<cache>/<dataset>/<recipe-name>/index.json`. Raises PosebridgeError for what is no name."""
    return cache / check_name(dataset, "data set") / check_name(recipe_name, "recipe") / "index.json"


def entry_of(receipt: Receipt) -> dict[str, Any]:
    """A receipt's shard as an index lists it, and `read_index` gives it back."""
    return {
        "shard": receipt.shard,
        "file": receipt.file,
        "sha256": receipt.sha256,
        "bytes": receipt.bytes,
        "clips": len(receipt.clips),
        "checksums": receipt.checksums,
    }


def write_index(path: Path, dataset: str, store: Store, layout: Layout, receipts: list[Receipt]) -> bool:
    """Write the index unless the file already says the same; returns whether it was written."""
    values = {
        "schema": SCHEMA,
        "dataset": dataset,
        "store": store.folder.name,
        "recipe": json.loads(store.recipe.canonical_json()),
        "fingerprint": store.recipe.fingerprint,
        "layout": asdict(layout),
        "shards": [entry_of(r) | {"checksums": asdict(r.checksums)} for r in receipts if r.checksums],
        "clips": {clip_id: r.shard for r in receipts for clip_id in r.clips},
        "failures": [asdict(failure) for r in receipts for failure in r.failures],
    }
    content = canonical_json(seal(values))
    try:
        if path.is_file() and path.read_bytes() == content:
            return False
    except OSError:
        pass  # what cannot be read is written again
    make_folder(path.parent)
    write_durably(path, content)
    return True


# What this process has read: an index -> its values. Dozens of places want it, and of 240,000 clips it takes seconds.
_read: dict[tuple, dict[str, Any]] = {}
MOST_READ = 8


def read_index(path: Path, remedy: str) -> dict[str, Any]:
    """Read an index, once a process while the file stays as it is; `recipe`, `layout` and the shards' `checksums` come
    back as objects. Nobody may change what is returned.

    Raises PosebridgeError where it is damaged or odd.
    """
    key = settled(path, path.stat()) if is_file(path) else None
    if key is None:
        return _read_index(path, remedy)
    if key not in _read:
        while len(_read) >= MOST_READ:
            del _read[next(iter(_read))]
        _read[key] = _read_index(path, remedy)
    return _read[key]


def _read_index(path: Path, remedy: str) -> dict[str, Any]:
    values = read_sealed(path, remedy)
    if values.get("schema") != SCHEMA:
        raise PosebridgeError(f"{path} is of schema {values.get('schema')!r}, not {SCHEMA}; {remedy}.")
    index = typed(INDEX, values, path, remedy)
    recipe = recipe_of(values["recipe"], path, remedy)
    if recipe.fingerprint != index.fingerprint or index.store != Store(path, "", recipe).folder.name:
        raise PosebridgeError(f"{path} names a store of another recipe; {remedy}.")
    clips = Counter(index.clips.values())
    for entry in index.shards:
        if clips.pop(entry.shard, 0) != entry.clips or entry.file != shard_name(entry.shard, entry.sha256):
            raise PosebridgeError(f"{path} contradicts itself about its shard {entry.shard}; {remedy}.")
    if clips:
        raise PosebridgeError(f"{path} has clips in shards that it does not name; {remedy}.")
    shards = [entry | {"checksums": each.checksums} for entry, each in zip(values["shards"], index.shards, strict=True)]
    return values | {"recipe": recipe, "layout": index.layout, "shards": shards}

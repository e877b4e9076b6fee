"""index.json: what stage two and DVC depend on. Merged from the receipts; it changes exactly when a shard does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cache.schema import SCHEMA
from pipeline.cache.sealed import canonical_json, read_sealed, seal
from pipeline.cache.store import Layout, Receipt, Store, recipe_of
from pipeline.durable import write_durably
from pipeline.errors import PosebridgeError


def index_path(cache: Path, dataset: str, recipe_name: str) -> Path:
    """`<cache>/<dataset>/<recipe-name>/index.json`."""
    return cache / dataset / recipe_name / "index.json"


def write_index(path: Path, dataset: str, store: Store, layout: Layout, receipts: list[Receipt]) -> bool:
    """Write the index unless the file already says the same; returns whether it was written."""
    values = {
        "schema": SCHEMA,
        "dataset": dataset,
        "store": store.folder.name,
        "recipe": json.loads(store.recipe.canonical_json()),
        "fingerprint": store.recipe.fingerprint,
        "layout": asdict(layout),
        "shards": [
            {"shard": r.shard, "file": r.file, "sha256": r.sha256, "bytes": r.bytes, "clips": len(r.clips)}
            for r in receipts if r.file
        ],
        "clips": {clip_id: r.shard for r in receipts for clip_id in r.clips},
        "failures": [asdict(failure) for r in receipts for failure in r.failures],
    }  # fmt: skip
    content = canonical_json(seal(values))
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)
    return True


def read_index(path: Path, remedy: str) -> dict[str, Any]:
    """Read an index; `recipe` and `layout` come back as objects. Raises PosebridgeError where it is damaged."""
    values = read_sealed(path, remedy)
    try:
        values["recipe"] = recipe_of(values["recipe"])
        values["layout"] = Layout(**values["layout"])
    except (KeyError, TypeError) as error:
        raise PosebridgeError(f"{path} is of another version of this program ({error}); {remedy}.") from None
    return values

"""A store in one compressed file: for an archive, a release, or a colleague without DVC.

The working form stays uncompressed, since it is read through a memory map. The archive is a `.tar.gz` of recipe.json,
layout.json, the receipts and the shards that they name; import checks every hash before the store appears.
    posebridge cache export skelgap-mini.tar.gz --dataset skelgap-mini --recipe refined --archive
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tarfile
import zlib
from pathlib import Path

from pipeline.cache.index import index_path, read_index, write_index
from pipeline.cache.store import open_store
from pipeline.cache.verify import Problem, verify_index, verify_store
from pipeline.errors import PosebridgeError

SUFFIX = ".tar.gz"
MEMBER = re.compile(r"([\w.-]+)/((?:recipe|layout|shard-\d{5})\.json|shard-\d{5}-[0-9a-f]{12}\.h5)")


def export_archive(index: Path, root: Path, path: Path) -> int:
    """Write the store that an index refers to; returns the bytes of the file.

    `root` is the folder of the stores. Raises PosebridgeError where index or store is missing or damaged.
    """
    if not index.is_file():
        raise PosebridgeError(f"{index} is missing; make it with `posebridge extract`.")
    values = read_index(index, "make it again with `posebridge extract`")
    folder = root / values["dataset"] / values["store"]
    _refuse(verify_index(index, root) or verify_store(folder))
    names = ["recipe.json", "layout.json", *sorted(p.name for p in folder.glob("shard-?????.json"))]
    names += sorted(entry["file"] for entry in values["shards"])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with tarfile.open(draft, "w:gz") as archive:
            for name in names:
                archive.add(folder / name, f"{folder.name}/{name}", recursive=False)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path.stat().st_size


def import_archive(path: Path, dataset: str, recipe_name: str, *, cache: Path, cache_root: Path | None = None) -> Path:
    """Unpack a store of `dataset`, check every shard, and write its index; returns the index.

    Raises PosebridgeError naming the file where it is damaged, or holds anything but one store of this data set.
    """
    root = cache_root or cache / "store"
    draft = root / f".import-{socket.gethostname()}-{os.getpid()}"
    try:
        name = _unpack(path, draft / dataset)
        unpacked = draft / dataset / name
        problems = verify_store(unpacked)
        if problems:
            raise PosebridgeError(f"{path} holds no sound store ({len(problems)} problems); fetch it again.")
        folder = root / dataset / name
        if folder.is_dir():
            _refuse(verify_store(folder))
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            unpacked.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    store = open_store(folder)
    layout = store.layout()
    assert layout is not None
    receipts = [receipt for shard in range(layout.shards) if (receipt := store.receipt(shard))]
    index = index_path(cache, dataset, recipe_name)
    write_index(index, dataset, store, layout, receipts)
    return index


def _unpack(path: Path, folder: Path) -> str:
    """Write the files of an archive under `folder`; returns the store's name. Nothing but content is taken from it."""
    if not path.is_file():
        raise PosebridgeError(f"{path} is missing; name an archive.")
    stores = set()
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                match = MEMBER.fullmatch(member.name)
                if match is None or not member.isreg() or match[1] in (".", ".."):
                    raise PosebridgeError(f"{path} holds {member.name!r}, which belongs to no store.")
                stores.add(match[1])
                target = folder / match[1] / match[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file)
    except FileExistsError:
        raise PosebridgeError(f"{path} holds a file twice; fetch it again.") from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        reason = type(error).__name__
        raise PosebridgeError(f"{path} is no readable {SUFFIX} file ({reason}); fetch it again.") from None
    if len(stores) != 1:
        raise PosebridgeError(f"{path} holds {len(stores)} stores; an archive has one.")
    return stores.pop()


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise PosebridgeError(problems[0].reason)

"""A store in one compressed file: for an archive, a release, or a colleague without DVC.

The working form stays uncompressed, since single clips are read out of it. The archive is a `.tar.gz` of recipe.json,
layout.json, the receipts and the shards that they name, in this order: what comes first says what may follow, so that
an archive of somebody else can neither fill the disk nor hide anything. Import checks every hash before the store
appears.
    posebridge cache export skelgap-mini.tar.gz --dataset skelgap-mini --recipe refined --archive
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from pipeline.cache.imported import require_no_import, require_skeletons
from pipeline.cache.index import index_path, read_index, write_index
from pipeline.cache.sealed import ABANDONED, is_abandoned
from pipeline.cache.store import Store, open_store
from pipeline.cache.verify import Problem, verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.files.durable import draft_of, make_folder, temporary, writing
from pipeline.files.names import check_name
from pipeline.interchange.tar import OddMember, plain_files

SUFFIX = ".tar.gz"
MEMBER = re.compile(r"([\w-][\w.-]{0,199})/((?:recipe|layout|shard-\d{5})\.json|shard-\d{5}-[0-9a-f]{12}\.h5)", re.A)
LARGEST_JSON = 64 << 20  # bytes; the receipt of 256 clips has about 0.1 MB
PACKED = 200  # how many times its own size an archive may unpack to: persons who are not there are zeros
SLACK = 64 << 20  # and so much more, for small ones
LEFT = 64 << 20  # bytes that stay free on the disk
DRAFT = ".import"


def export_archive(index: Path, root: Path, path: Path) -> int:
    """Write the store that an index refers to; returns the bytes of the file.

    `root` is the folder of the stores. Raises PosebridgeError where index or store is missing or damaged, or holds
    imported features, or the file cannot be written.
    """
    if not index.is_file():
        raise PosebridgeError(f"{index} is missing; make it with `posebridge extract`.")
    values = read_index(index, "make it again with `posebridge extract`")
    require_skeletons(index, values["recipe"])
    folder = root / values["dataset"] / values["store"]
    _refuse(verify_index(index, root) or verify_store(folder))
    names = ["recipe.json", "layout.json", *sorted(p.name for p in folder.glob("shard-?????.json"))]
    names += sorted(entry["file"] for entry in values["shards"])
    make_folder(path.parent)
    try:
        with writing(path):
            with (
                draft_of(path) as draft,
                tarfile.open(draft, "w:gz", format=tarfile.USTAR_FORMAT, dereference=True) as archive,
            ):
                for name in names:
                    archive.add(folder / name, f"{folder.name}/{name}", recursive=False, filter=_content_only)
            return path.stat().st_size
    except ValueError as error:  # of a name or size that has no place in the format
        raise PosebridgeError(f"{folder} cannot be archived ({error}); copy the folder instead.") from None


def import_archive(path: Path, dataset: str, recipe_name: str, *, cache: Path, cache_root: Path | None = None) -> Path:
    """Unpack a store of `dataset`, check every shard, and write its index; returns the index.

    Raises PosebridgeError naming the file where it is damaged, too large for the disk, or holds anything but one store
    of this data set; nothing but the drafts of killed imports is changed then.
    """
    check_name(dataset, "data set")
    check_name(recipe_name, "recipe")
    root = cache_root or cache / "store"
    make_folder(root)
    _remove_abandoned(root)
    draft = temporary(root / DRAFT)
    try:
        unpacked = _unpack(path, draft, dataset)
        if problems := verify_store(unpacked):
            raise PosebridgeError(f"{path} holds no sound store ({len(problems)} problems); fetch it again.")
        folder = root / dataset / unpacked.name
        make_folder(folder.parent)
        with writing(folder):
            try:
                unpacked.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                _refuse(verify_store(folder))  # it has been there already
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    store = open_store(folder)
    layout = store.layout()
    assert layout is not None
    index = index_path(cache, dataset, recipe_name)
    if store.recipe.backend != "features":
        require_no_import(index)
    write_index(index, dataset, store, layout, store.receipts(layout))
    return index


def _content_only(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whose the files were, and when, is nobody's business."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _remove_abandoned(root: Path) -> None:
    """Clear what killed imports left more than an hour ago, or a day where another process has their number now."""
    for draft in root.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if is_abandoned(draft, ABANDONED) or time.time() - draft.stat().st_mtime > 24 * ABANDONED:
                shutil.rmtree(draft, ignore_errors=True)


@dataclass
class _Unpacking:
    """How far an archive has been read, and what may still come."""

    path: Path
    folder: Path | None = None  # of the store
    store: Store | None = None  # once recipe and layout have come
    shards: int = 0  # of the layout
    receipts: int = 0  # that have come
    bytes: int = 0  # written, or announced by a receipt
    most: int = 0
    seen: set[str] = field(default_factory=set)
    announced: dict[str, int] = field(default_factory=dict)  # shard -> bytes

    def admit(self, name: str, size: int) -> None:
        """Raise PosebridgeError for a file that may not come now."""
        if name in self.seen:
            raise PosebridgeError(f"{self.path} holds a file twice; fetch it again.")
        self.seen.add(name)
        if name.startswith("shard-") and self.store is None:
            raise PosebridgeError(f"{self.path} does not begin with recipe.json and layout.json; fetch it again.")
        if name.endswith(".h5"):
            if self.announced.pop(name, -1) != size:
                raise PosebridgeError(f"{self.path} holds {name}, which no receipt before it names; fetch it again.")
            return
        if name.startswith("shard-") and int(name[6:11]) >= self.shards:
            raise PosebridgeError(f"{self.path} holds {name}, but its layout has {self.shards} shards; fetch it again.")
        if size > LARGEST_JSON:
            raise PosebridgeError(f"{self.path} holds {name} of {size} bytes, which belongs to no store.")
        self._count(size)

    def note(self, file: Path) -> None:
        """Take from a file that was written what may follow."""
        assert self.folder is not None
        try:
            if {"recipe.json", "layout.json"} <= self.seen and self.store is None:
                self.store = open_store(self.folder)
                layout = self.store.layout()
                self.shards = layout.shards if layout else 0
            if self.store is not None and file.name.startswith("shard-") and file.suffix == ".json":
                receipt = self.store.read_receipt(file)
                self.receipts += 1
                if receipt.file:
                    self.announced[receipt.file] = receipt.bytes
                    self._count(receipt.bytes)
        except _TooLarge:
            raise
        except PosebridgeError:
            raise PosebridgeError(f"{self.path} holds no sound store: {file.name} is odd; fetch it again.") from None

    def _count(self, size: int) -> None:
        self.bytes += size
        if self.bytes > self.most:
            raise _TooLarge(
                f"{self.path} would unpack to {self.bytes} bytes or more, but only {max(self.most, 0)} are admitted "
                "for its size and the free disk; make room, or fetch it again."
            )


class _TooLarge(PosebridgeError):
    pass


def _unpack(path: Path, draft: Path, dataset: str) -> Path:
    """Write the files of an archive under `draft`; returns the store's folder. Nothing but content is taken from it."""
    try:
        size = path.stat().st_size if path.is_file() else -1
    except OSError as error:
        raise PosebridgeError(f"{path} cannot be read ({error.strerror}); correct its permissions.") from None
    if size < 0:
        raise PosebridgeError(f"{path} is missing or no plain file; name an archive.")
    make_folder(draft / dataset)
    free = shutil.disk_usage(draft).free - LEFT
    so_far = _Unpacking(path, most=min(free, PACKED * size + SLACK))
    with _opened(path) as file:
        for name, length, content in plain_files(file):
            match = MEMBER.fullmatch(name)
            if match is None:
                raise PosebridgeError(f"{path} holds {name[:100]!r}, which belongs to no store.")
            if so_far.folder not in (None, draft / dataset / match[1]):
                raise PosebridgeError(f"{path} holds 2 stores; an archive has one.")
            so_far.folder = draft / dataset / match[1]
            so_far.admit(match[2], length)
            _write(so_far.folder / match[2], content)
            os.utime(draft)  # so that nobody takes it for abandoned
            so_far.note(so_far.folder / match[2])
    if so_far.folder is None:
        raise PosebridgeError(f"{path} holds 0 stores; an archive has one.")
    if so_far.store is None or so_far.announced or so_far.receipts < so_far.shards:
        raise PosebridgeError(f"{path} holds no sound store: files are missing; fetch it again.")
    return so_far.folder


def _write(target: Path, content: Iterator[bytes]) -> None:
    """Only what the disk says here is about the disk: the content comes from the archive as it is read."""
    with writing(target):
        target.parent.mkdir(exist_ok=True)
        file = target.open("xb")
    try:
        for chunk in content:
            with writing(target):
                file.write(chunk)
        with writing(target):
            file.close()
    finally:
        with contextlib.suppress(OSError):
            file.close()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The tar in a compressed file; whatever goes wrong in reading it is a PosebridgeError that names the file."""
    try:
        with gzip.open(path) as file:
            yield cast(BinaryIO, file)
    except OddMember as error:
        raise PosebridgeError(f"{path} holds {str(error)[:100]!r}, which belongs to no store.") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        reason = type(error).__name__
        raise PosebridgeError(f"{path} is no readable {SUFFIX} file ({reason}); fetch it again.") from None


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise PosebridgeError(problems[0].reason)

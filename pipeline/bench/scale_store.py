"""A store as large as a published data set's, of noise: what stage two is measured on.

Writes manifests/scale/ and cache/ into a folder. The shards are real ones, with receipts, checksums and an index that
are true; but what is the same in all of them is made once, and blocks of zeros are left out of the files (holes), so
that they take about an eighth of their size on the disk.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.cache.index import index_path, write_index
from pipeline.cache.schema import columns
from pipeline.cache.store import Layout, Receipt, Store, row_hash, rows_hash, shard_name, shard_of
from pipeline.cache.writer import ShardWriter
from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people, writing
from pipeline.files.tables import write_table
from pipeline.learn.cost import Like
from pipeline.learn.probe import TEXT_WIDTH
from pipeline.manifest.clips import Clip, write_clips
from pipeline.recipe import Recipe
from pipeline.text.bank import TextBank, save_bank

NAME = "scale"  # of the data set, its protocol and its recipe
RECIPE = Recipe(weights="", weights_sha256="0" * 64, persons=2, frames=64, cue_frames=16)  # M, T, S; A = 6 anchors
JOINTS, CUE_WIDTH = 17, 512  # V, D
CLIPS_A_SHARD = 256
PRESENT = 0.625  # share of the persons who are there: the second one in every fourth clip
TEXT_BYTES = {"clip_id": 16, "video_path": 16, "video_identity": 48}
EMPTY = ("cues", "thumbnail")  # zeros, unless the store is to be dense
BLOCK = 4096


def row_bytes(dense: bool) -> tuple[int, int]:
    """Bytes of a clip in its shard, and of what of it takes place on the disk."""
    sizes = {column.name: column.row_bytes for column in columns(RECIPE, JOINTS, CUE_WIDTH, TEXT_BYTES)}
    return sum(sizes.values()), sum(size for name, size in sizes.items() if dense or name not in EMPTY)


def require_room(folder: Path, clips: int, dense: bool) -> None:
    """Raise PosebridgeError where the disk of `folder` has not the room for such a store."""
    need, free = int(1.1 * clips * row_bytes(dense)[1]) + (64 << 20), shutil.disk_usage(folder).free
    if need > free:
        raise PosebridgeError(
            f"The store of {clips:,} clips takes {need / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB left; name "
            "another folder with --folder, or fewer --clips."
        )


def make_store(folder: Path, like: Like, clips: int, slots: tuple[str, ...], dense: bool = False) -> None:
    """Write the manifests, the shards with their receipts and index, and a text bank of these slots into `folder`.

    Every clip differs from every other one in its first joint, and every fourth has a second person. Raises
    PosebridgeError where the disk has not the room, or every class would have fewer than six clips.
    """
    if clips < 6 * like.classes:
        raise PosebridgeError(f"{like.classes} classes need {6 * like.classes:,} clips or more, not {clips:,}.")
    require_room(folder, clips, dense)
    manifests, cache = folder / "manifests", folder / "cache"
    listed = _write_manifests(manifests / NAME, like, clips, slots)
    store = Store(cache / "store", NAME, RECIPE)
    layout = store.create(len(listed), CLIPS_A_SHARD, JOINTS, CUE_WIDTH)
    templates: dict[int, _Template] = {}
    receipts = []
    for shard, own in enumerate(_by_shard(listed, layout.shards)):
        if len(own) not in templates:
            templates[len(own)] = _Template(store, layout, len(own), dense)
        receipts.append(templates[len(own)].write(shard, own))
        store.commit(receipts[-1])
    write_index(index_path(cache, NAME, NAME), NAME, store, layout, receipts)
    _write_bank(cache, like.classes, slots)


def _write_manifests(folder: Path, like: Like, clips: int, slots: tuple[str, ...]) -> list[Clip]:
    names = [f"class {index}" for index in range(like.classes)]
    write_table(folder / "classes.csv", ["index", "name"], enumerate(names))
    texts = ([index, slot, f"{slot} of {name}"] for index, name in enumerate(names) for slot in slots)
    write_table(folder / "texts.csv", ["index", "slot", "text"], texts)
    seen = like.classes - like.unseen
    unseen, validation = range(seen, like.classes), range(seen - like.validation, seen)
    for file, rows in ((f"{NAME}.txt", unseen), (f"{NAME}.val.txt", validation)):
        write_for_people(folder / "protocols" / file, "".join(f"{index} {names[index]}\n" for index in rows).encode())
    listed = [
        Clip(
            f"clip{number:08d}", path, label=number % like.classes,
            part="test" if 37 * (number // like.classes) % 100 < 100 * like.tested else "train",
            sha256=hashlib.sha256(path.encode()).hexdigest(), fps=25.0, frames=250, height=256, width=340,
        )
        for number, path in enumerate(_paths(clips))
    ]  # fmt: skip
    write_clips(folder / "clips.csv", listed)
    return listed


def _paths(clips: int) -> Iterator[str]:
    """Paths of so many videos, of which no shard gets more than one above any other: they can share a template."""
    shards = -(-clips // CLIPS_A_SHARD)
    room = [clips // shards + (shard < clips % shards) for shard in range(shards)]
    for number in itertools.count():
        path = f"{number:09d}.mp4"
        shard = shard_of(path, shards)
        if room[shard]:
            room[shard] -= 1
            yield path
        elif not any(room):
            return


def _by_shard(clips: list[Clip], shards: int) -> list[list[Clip]]:
    found: list[list[Clip]] = [[] for _ in range(shards)]
    for clip in clips:
        found[shard_of(clip.path, shards)].append(clip)
    return found


class _Template:
    """A shard of so many clips, from which others are made: they differ in ids, paths and every clip's first joint."""

    def __init__(self, store: Store, layout: Layout, clips: int, dense: bool) -> None:
        self._store = store
        rng = np.random.default_rng(0)
        rows = [f"clip{row:08d}" for row in range(clips)]
        stem = store.folder / "template"
        with ShardWriter(stem, store.columns(layout, TEXT_BYTES), rows, {"recipe": RECIPE.canonical_json()}) as writer:
            for number, row in enumerate(rows):
                writer.write(row, _noise(rng, number, layout, dense))
            path, _ = writer.seal()
            self._checksums = writer.checksums
        self._image = bytearray(path.read_bytes())
        path.unlink()
        self._ids, self._paths = self._column("clip_id", "S16", ()), self._column("video_path", "S16", ())
        self._keypoints = self._column("keypoints", "<f4", (RECIPE.persons, RECIPE.frames, JOINTS, RECIPE.dimensions))
        blocks = np.frombuffer(self._image + bytes(-len(self._image) % BLOCK), np.uint8).reshape(-1, BLOCK).any(1)
        edges = np.flatnonzero(np.diff(blocks, prepend=False, append=False)) * BLOCK
        self._filled = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))  # the rest are holes

    def _column(self, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A column of the image, to write into."""
        part, size = self._checksums.datasets[name], np.dtype(dtype).itemsize * math.prod(shape)
        return np.ndarray((part.bytes // size, *shape), dtype, self._image, part.offset)

    def write(self, shard: int, clips: list[Clip]) -> Receipt:
        """Write the shard of these clips; returns its receipt."""
        self._ids[:] = [clip.clip_id.encode() for clip in clips]
        self._paths[:] = [clip.path.encode() for clip in clips]
        self._keypoints[:, 0, 0, 0, 0] = [int(clip.clip_id[4:]) / 1000 for clip in clips]
        content = memoryview(self._image)
        datasets = dict(self._checksums.datasets)
        for name in ("clip_id", "video_path", "keypoints"):
            part = datasets[name]
            datasets[name] = replace(part, crc32=zlib.crc32(content[part.offset : part.offset + part.bytes]))
        sha256 = hashlib.sha256(content).hexdigest()
        file = shard_name(shard, sha256)
        with writing(self._store.folder / file), (self._store.folder / file).open("wb") as target:
            for start, stop in self._filled:
                target.seek(start)
                target.write(content[start:stop])
            target.truncate(len(content))
        hashes = {clip.clip_id: row_hash(clip) for clip in clips}
        return Receipt(
            shard, RECIPE.fingerprint, rows_hash(hashes.values()), hashes, {}, (), {}, file, sha256, len(content),
            replace(self._checksums, datasets=datasets),
        )  # fmt: skip


def _noise(rng: np.random.Generator, number: int, layout: Layout, dense: bool) -> dict[str, Any]:
    """A value for every column of a shard."""
    persons = np.array([True, number % 4 == 0])[: RECIPE.persons]
    row: dict[str, Any] = dict.fromkeys(("clip_id", "video_path"), "x")
    for column in columns(RECIPE, layout.joints, layout.cue_width):
        if column.name == "video_identity":
            row[column.name] = "noise"
        elif column.dtype.kind == "S":
            row.setdefault(column.name, "")
        elif column.name in EMPTY and not dense:
            row[column.name] = np.zeros(column.shape)
        elif column.name in ("scores", "cue_scores"):
            seen = persons.reshape(-1, *[1] * (len(column.shape) - 1))
            row[column.name] = rng.uniform(0.3, 1, column.shape) * seen
        elif column.name == "person_valid":
            row[column.name] = np.repeat(persons[:, None], RECIPE.frames, 1)
        elif column.dtype.kind == "f" and column.shape:
            row[column.name] = rng.normal(100, 30, column.shape)
        else:
            row[column.name] = np.broadcast_to(number % 200, column.shape)
    return row


def _write_bank(cache: Path, classes: int, slots: tuple[str, ...]) -> None:
    vectors = torch.randn(classes, len(slots), TEXT_WIDTH, generator=torch.Generator().manual_seed(0))
    names = tuple(f"class {index}" for index in range(classes))
    bank = TextBank(
        torch.nn.functional.normalize(vectors, dim=-1), torch.ones(classes, len(slots), dtype=torch.bool), slots, names,
        "minilm", "0" * 64,
    )  # fmt: skip
    save_bank(bank, NAME, cache)


def let_go(folder: Path) -> None:
    """Ask the system to forget what it holds of the shards in memory, so that the next stage reads the disk."""
    if hasattr(os, "posix_fadvise"):
        for path in folder.rglob("*.h5"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

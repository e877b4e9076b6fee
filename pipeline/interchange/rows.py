"""Large arrays of others, read some rows at a time: `.npy` files, members of a `.npz`, datasets of an HDF5 file.

What a file says of its size is compared with the size that it has before anything is made of it. What is packed is
unpacked once into a nameless file beside the cache; nothing is held in memory but the rows that are asked for.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py
import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.durable import writing
from pipeline.files.plain_file import open_plain
from pipeline.interchange.npz import PACKED, SLACK, NoPlainArray, members, read_header, reading
from pipeline.interchange.unpickling import plain_array

MOST_BYTES = 1 << 40  # of the arrays of a file: they may lie on the disk once more, unpacked
MOST_TURNED = 2 << 30  # of an array in Fortran's order, which is read at once
BLOCK = 64 << 20  # bytes that are read together
FILTERS = {
    h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF,
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """An array [N, ...] of a file. `read` gives the rows from one number up to another."""

    name: str  # for messages
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """All rows, some at a time, each block with the number of its first one."""
        step = max(1, BLOCK // max(1, self.row_bytes))
        for start in range(0, len(self), step):
            yield start, self.read(start, min(len(self), start + step))


def npy_rows(path: Path) -> Rows:
    """A `.npy` file. Raises PosebridgeError for what is no plain array, a pickle above all."""
    with reading(path):
        file = open_plain(path)
        return _npy(str(path), file, path.stat().st_size)


def npz_rows(path: Path, names: Sequence[str], folder: Path) -> dict[str, Rows]:
    """Those of the arrays that a `.npz` has, unpacked on the disk of `folder`. Raises PosebridgeError."""
    found = {}
    with reading(path), zipfile.ZipFile(path) as file:
        for name, info in members(file, path, names, MOST_BYTES).items():
            plain = _nameless(folder)
            with reading(f"{path}: {name}"):
                with file.open(info) as member:
                    _copy(member, plain, folder)
                plain.seek(0)
                found[name] = _npy(f"{path}: {name}", plain, info.file_size)
    return found


def npz_names(path: Path) -> list[str]:
    """The names of all arrays of a `.npz`, for messages. Raises PosebridgeError."""
    with reading(path), zipfile.ZipFile(path) as file:
        return [info.filename.removesuffix(".npy") for info in file.infolist()]


def hdf5_names(path: Path) -> list[str]:
    """The names of all that lies at the top of an HDF5 file, for messages. Raises PosebridgeError."""
    with reading(path), h5py.File(path, "r", locking=False) as file:
        return list(file)


def hdf5_rows(path: Path, names: Sequence[str], folder: Path) -> dict[str, Rows]:
    """Those of the datasets that an HDF5 file has. Raises PosebridgeError for links, odd filters and other types."""
    with reading(path):
        file = h5py.File(path, "r", locking=False)
        datasets = {name: plain_dataset(file, name, path) for name in names if name in file}
        declared, size = sum(dataset.nbytes for dataset in datasets.values()), path.stat().st_size
        if declared > min(MOST_BYTES, PACKED * size + SLACK):
            raise PosebridgeError(
                f"{path} has {size} bytes but says that its arrays have {declared}; more than {PACKED} times as much, "
                f"or than {MOST_BYTES >> 30} GiB, is not read: write it without packing, or in parts."
            )
        return {name: _dataset(dataset, f"{path}: {name}", folder) for name, dataset in datasets.items()}


def plain_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset whose data lie in its own file. Raises PosebridgeError."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
        raise PosebridgeError(f"{path}: {name!r} is a link or a group; write it as a dataset of its own.")
    dataset = file[name]
    plan = dataset.id.get_create_plist()
    filters = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())}
    if dataset.is_virtual or dataset.external or not filters <= FILTERS or dataset.ndim == 0:
        raise PosebridgeError(f"{path}: {name!r} is packed oddly or lies in another file; write a plain dataset.")
    if dataset.chunks and np.prod(dataset.chunks, dtype=object) * dataset.dtype.itemsize > BLOCK:
        raise PosebridgeError(f"{path}: {name!r} is in chunks of more than {BLOCK >> 20} MiB; write smaller ones.")
    return dataset


def _dataset(dataset: h5py.Dataset, name: str, folder: Path) -> Rows:
    """Read where it lies, or, since a chunk would be unpacked for each of its rows, from a plain copy."""
    shape, dtype = dataset.shape, dataset.dtype
    if 0 in shape:
        raise PosebridgeError(f"{name} is empty, of the shape {list(shape)[:8]}; fill it or leave it out.")
    if dtype.kind == "O":  # HDF5 takes as much memory as an entry says that it has, before it looks
        raise PosebridgeError(f"{name} is text of variable length, which is not read; write np.array(names, 'S').")
    if dtype.kind not in "fiuS" or not dtype.itemsize:
        kind = str(dtype)[:40]
        raise PosebridgeError(f"{name} is of the type {kind}; write floats, whole numbers or text of fixed width.")

    def read(start: int, stop: int) -> np.ndarray:
        try:
            return dataset[start:stop]
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise PosebridgeError(f"{name} cannot be read ({type(error).__name__}); bring the file again.") from None

    rows = Rows(name, shape, dtype, read)
    if not dataset.chunks:
        return rows
    plain = _nameless(folder)
    for _, block in rows.blocks():
        with writing(folder):
            plain.write(block.tobytes())
    with writing(folder):
        plain.flush()
    return _file_rows(name, plain, 0, shape, dtype)


def _npy(name: str, file: IO[bytes], size: int) -> Rows:
    shape, fortran, dtype = read_header(file, size)
    if not shape:
        raise NoPlainArray("has no rows; save plain arrays")
    if not fortran or len(shape) == 1:
        return _file_rows(name, file, file.tell(), shape, dtype)
    if size > MOST_TURNED:
        raise NoPlainArray("is in Fortran's order; save np.ascontiguousarray of it")
    whole = plain_array(file.read(), dtype, shape, fortran)
    return Rows(name, shape, dtype, lambda start, stop: whole[start:stop])


def _file_rows(name: str, file: IO[bytes], offset: int, shape: tuple[int, ...], dtype: np.dtype) -> Rows:
    row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def read(start: int, stop: int) -> np.ndarray:
        file.seek(offset + start * row)
        content = bytearray()
        while len(content) < (stop - start) * row and (part := file.read((stop - start) * row - len(content))):
            content += part
        if len(content) < (stop - start) * row:
            raise PosebridgeError(f"{name} has changed since it was opened; run the same command again.")
        try:
            return plain_array(content, dtype, (stop - start, *shape[1:]), fortran=False)
        except ValueError:
            raise PosebridgeError(f"{name} is text that is no Unicode; write it again.") from None

    return Rows(name, shape, dtype, read)


def _nameless(folder: Path) -> IO[bytes]:
    """A file that is gone with this process, whatever ends it, on the disk of a folder that need not be there yet."""
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    with writing(there):
        return tempfile.TemporaryFile(dir=there)


def _copy(source: IO[bytes], goal: IO[bytes], folder: Path) -> None:
    while part := source.read(1 << 20):
        with writing(folder):
            goal.write(part)
    with writing(folder):
        goal.flush()

"""Plain arrays of a `.npz` that somebody else wrote: bounded before memory is taken.

A `.npz` is a zip of `.npy` files, and each of both says how large it is: a few bytes may declare terabytes, or really
unpack to a thousand times their size.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.interchange.unpickling import KINDS, plain_array

MOST_BYTES = 16 << 30  # of the arrays, all of which are held in memory
PACKED = 50  # how many times the file's size its arrays may have: padding is zeros, and packs well
SLACK = 16 << 20  # and so much more, for small files
LONGEST_HEADER = 10_000  # of a .npy
ODD = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, OverflowError,
    MemoryError, LookupError, SyntaxError, TypeError, RecursionError, tokenize.TokenError,
)  # fmt: skip  # what a damaged file makes numpy and zipfile raise


class NoPlainArray(ValueError):
    """A header that tells of no plain array, or of another size than there is."""


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that the file has. Raises PosebridgeError naming the file where it is odd."""
    try:
        if not path.is_file():
            raise PosebridgeError(f"{path} is missing or no plain file; name an annotation file.")
        with zipfile.ZipFile(path) as file:
            return {name: _array(file, info) for name, info in members(file, path, names, MOST_BYTES).items()}
    except ODD as error:
        raise PosebridgeError(f"{path} is no readable .npz of plain arrays ({type(error).__name__}).") from None


def members(file: zipfile.ZipFile, path: Path, names: Sequence[str], most: int) -> dict[str, zipfile.ZipInfo]:
    """Those of the arrays `names` that a .npz has. Raises PosebridgeError where it has one twice or packs it oddly, and
    where together they say that they have more than `most` bytes, or far more than the file.
    """
    size = path.stat().st_size
    wanted = [info for info in file.infolist() if info.filename.removesuffix(".npy") in names]
    found = {info.filename.removesuffix(".npy"): info for info in wanted}
    if len(found) < len(wanted):
        raise PosebridgeError(f"{path} holds an array twice; write it again.")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in wanted):
        raise PosebridgeError(f"{path} is packed in a way that numpy does not use; write it with np.savez.")
    if (total := sum(info.file_size for info in wanted)) > min(most, PACKED * size + SLACK):
        raise PosebridgeError(
            f"{path} has {size} bytes but says that its arrays have {total}; more than {PACKED} times as much, "
            f"or than {most >> 30} GiB, is not read: write it with np.savez, or in parts."
        )
    return found


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is in Fortran's order, and dtype of a .npy of `size` bytes, leaving `file` where the array
    begins. Raises NoPlainArray, or others of ODD, unless it is a plain array of exactly these bytes.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)  # type: ignore[arg-type]
    if dtype.kind == "O":
        raise NoPlainArray("it holds Python objects, a pickle, which is never read")
    if dtype.kind not in KINDS or not dtype.itemsize or len(shape) > 32 or min(shape, default=0) < 0:
        raise NoPlainArray("no plain array")
    if max(shape, default=0) > size or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise NoPlainArray("the shape does not fit the size")
    return shape, fortran, dtype


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array. Raises those of ODD."""
    with file.open(info) as member:
        shape, fortran, dtype = read_header(member, info.file_size)
        content = member.read()
    return plain_array(content, dtype, shape, fortran)

"""Plain arrays of a `.npz` that somebody else wrote: bounded before memory is taken.

A `.npz` is a zip of `.npy` files, and each of both says how large it is: a few bytes may declare terabytes, or really
unpack to a thousand times their size.
"""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    """What is no plain array, or of another size than it says. The message is what such a file is or holds, and what
    to do.
    """


@contextmanager
def reading(what: Path | str) -> Iterator[None]:
    """Whatever a damaged file makes a library raise, as one sentence on `what`."""
    try:
        yield
    except NoPlainArray as error:
        raise PosebridgeError(f"{what} {error}.") from None
    except MemoryError:
        raise PosebridgeError(f"{what} does not fit into memory; bring it in parts.") from None
    except ODD as error:
        if isinstance(error, OSError) and error.strerror:
            raise PosebridgeError(f"{what} cannot be read ({error.strerror}); name one that can.") from None
        raise PosebridgeError(
            f"{what} is damaged or cut off, or of another kind than its name says; bring it again."
        ) from None


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that the file has. Raises PosebridgeError naming the file where it is odd."""
    with reading(path):
        if not path.is_file():
            raise PosebridgeError(f"{path} is missing or no plain file; name an annotation file.")
        with zipfile.ZipFile(path) as file:
            return {name: _array(file, path, info) for name, info in members(file, path, names, MOST_BYTES).items()}


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
    begins. Raises NoPlainArray, or others of ODD, unless it is a plain array of exactly these bytes, and of any.
    """
    version = np.lib.format.read_magic(file)  # type: ignore[arg-type]
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file, max_header_size=LONGEST_HEADER)  # type: ignore[arg-type]
    if dtype.kind == "O":
        raise NoPlainArray("holds Python objects, a pickle, which is never read; save plain arrays")
    if dtype.kind not in KINDS or not dtype.itemsize or len(shape) > 32 or min(shape, default=0) < 0:
        raise NoPlainArray("is no plain array of numbers or text; save plain arrays")
    if 0 in shape:
        raise NoPlainArray(f"is empty, of the shape {list(shape)[:8]}; fill it or leave it out")
    if max(shape, default=0) > size or math.prod(shape) * dtype.itemsize != size - file.tell():
        raise NoPlainArray("is damaged or cut off: its shape does not fit its size; bring it again")
    return shape, fortran, dtype


def _array(file: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    """One array. Raises PosebridgeError naming file and array where it is odd."""
    with reading(f"{path}: {info.filename.removesuffix('.npy')}"), file.open(info) as member:
        shape, fortran, dtype = read_header(member, info.file_size)
        content = member.read()
    return plain_array(content, dtype, shape, fortran)

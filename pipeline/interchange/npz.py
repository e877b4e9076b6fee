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

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.interchange.unpickling import KINDS, plain_array

MOST_BYTES = 16 << 30  # of the arrays, all of which are held in memory
PACKED = 50  # how many times the file's size its arrays may have: padding is zeros, and packs well
SLACK = 16 << 20  # and so much more, for small files
LONGEST_HEADER = 10_000  # of a .npy


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the arrays `names` that the file has. Raises PosebridgeError naming the file where it is odd."""
    try:
        if not path.is_file():
            raise PosebridgeError(f"{path} is missing or no plain file; name an annotation file.")
        size = path.stat().st_size
        with zipfile.ZipFile(path) as file:
            wanted = [info for info in file.infolist() if info.filename.removesuffix(".npy") in names]
            if len({info.filename.removesuffix(".npy") for info in wanted}) < len(wanted):
                raise PosebridgeError(f"{path} holds an array twice; write it again.")
            if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in wanted):
                raise PosebridgeError(f"{path} is packed in a way that numpy does not use; write it with np.savez.")
            if (total := sum(info.file_size for info in wanted)) > min(MOST_BYTES, PACKED * size + SLACK):
                raise PosebridgeError(
                    f"{path} has {size} bytes but says that its arrays have {total}; more than {PACKED} times as much, "
                    f"or than {MOST_BYTES >> 30} GiB, is not read: write it with np.savez, or in parts."
                )
            return {info.filename.removesuffix(".npy"): _array(file, info) for info in wanted}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError,
            OverflowError, MemoryError, LookupError, SyntaxError, TypeError, RecursionError,
            tokenize.TokenError) as error:  # fmt: skip
        raise PosebridgeError(f"{path} is no readable .npz of plain arrays ({type(error).__name__}).") from None


def _array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array. Raises ValueError unless its header fits the member's size."""
    with file.open(info) as member:
        version = np.lib.format.read_magic(member)  # type: ignore[arg-type]
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(member, max_header_size=LONGEST_HEADER)  # type: ignore[arg-type]
        if dtype.kind not in KINDS or not dtype.itemsize or len(shape) > 32 or min(shape, default=0) < 0:
            raise ValueError("no plain array")
        size = info.file_size - member.tell()
        if max(shape, default=0) > info.file_size or math.prod(shape) * dtype.itemsize != size:
            raise ValueError("the shape does not fit the size")
        content = member.read()
    return plain_array(content, dtype, shape, fortran)

"""The plain files of a tar, as they come: nothing is believed but headers of 512 bytes, and nothing is held.

Python's tarfile reads whatever length an extended header declares into memory, and follows sparse files, links and
names that override names. Here its public parser of one header is used, and all of these are refused.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
LONGEST_NOTE = 4096  # bytes of an extended header; that of a plain file may hold times
_TIMES = re.compile(rb"(\d+ [amc]time=[\d.]+\n)*")


class OddMember(Exception):
    """A member that is no plain file; the message is its name."""


def plain_files(file: BinaryIO) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, size and content of each member; the content is to be read before the next one is asked for.

    Raises OddMember, EOFError where the tar is cut, and ValueError or tarfile.TarError where it is none.
    """
    while (block := _exactly(file, BLOCK)).strip(b"\0"):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        if info.type == tarfile.XHDTYPE and 0 <= info.size <= LONGEST_NOTE:
            note = _exactly(file, info.size + -info.size % BLOCK)
            if not _TIMES.fullmatch(note[: info.size]):
                raise OddMember(info.name)
            info = tarfile.TarInfo.frombuf(_exactly(file, BLOCK), "utf-8", "strict")  # one note a file
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise OddMember(info.name)
        content = _chunks(file, info.size)
        yield info.name, info.size, content
        for _ in content:
            pass
        _exactly(file, -info.size % BLOCK)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = _exactly(file, min(size, CHUNK))
        size -= len(chunk)
        yield chunk


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError
    return content

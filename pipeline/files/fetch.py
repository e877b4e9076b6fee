"""One file from the web: streamed, bounded, checked, and under its name only when it is whole.

What a server sends is taken for hostile: the size that it declares is a promise that is held against it, it may lead to
other web addresses only, and of a zip archive one member is read, under no name of the archive's own.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import PosebridgeError, first_line, short
from pipeline.files.durable import draft_for_people, temporary
from pipeline.files.hashing import sha256_file

WEB = ("http", "https")
MOST_BYTES = 1 << 30  # of a file whose size nobody knows beforehand
CHUNK = 1 << 18
PATIENCE = 60.0  # seconds without a byte
SLOW_AFTER, LEAST_SPEED = 60.0, 1000  # seconds, after which a server must have sent so many bytes a second
MOST_DIRECTORY = 1 << 16  # bytes of a zip's list of members, some thousand names
END, END_64, END_BYTES = b"PK\x05\x06", b"PK\x06\x07", 22  # of a zip
PLAIN = re.compile(r"[\w.+-]+(/[\w.+-]+)*/?", re.ASCII)
ODD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)

Told = Callable[[int, int | None], None]  # bytes that have come, and of how many, where the server says it


class _NotFetched(Exception):
    """Why not, to stand in a sentence."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to web addresses only, and from a sealed connection to no open one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in (("https",) if urlsplit(req.full_url).scheme == "https" else WEB):
            raise _NotFetched(f"it leads to {short(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str, path: Path, sha256: str = "", member: str = "", most: int = MOST_BYTES, told: Told | None = None
) -> None:
    """Write what is at a web address to `path`, whole or not at all.

    Args:
        sha256: the first digits, or all, of what is written; else it is not written. Empty: nobody knows.
        member: the address holds a zip archive; this is the name, without folders, of the one file that is taken of it.
        most: bytes that are taken, and that are unpacked.
        told: told of every piece that comes.

    Raises PosebridgeError, with the address and with the place where to put the file by hand.
    """
    with draft_for_people(path) as draft:
        try:
            if member:
                packed = temporary(path)
                try:
                    _write(packed, _pieces_of_web(url, most, told))
                    _write(draft, _pieces_of_zip(packed, member, most))
                finally:
                    packed.unlink(missing_ok=True)
            else:
                _write(draft, _pieces_of_web(url, most, told))
            if not (found := sha256_file(draft)).startswith(sha256):
                raise _NotFetched(f"what came has sha256 {found[:12]}..., expected {sha256[:12]}...")
        except _NotFetched as error:
            raise PosebridgeError(
                f"Could not fetch {url} ({error}); try again later, or where the network is closed bring the file"
                f"{f' {member} out of this archive' if member else ''} and put it at {path}."
            ) from None


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    """Only what the disk says here is about the disk."""
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def _pieces_of_web(url: str, most: int, told: Told | None) -> Iterator[bytes]:
    """What is at an address. Raises _NotFetched."""
    try:
        if urlsplit(url).scheme not in WEB:
            raise _NotFetched("this is no web address")
        begun, got = time.monotonic(), 0
        request = urllib.request.Request(url, headers={"User-Agent": "posebridge"})
        with urllib.request.build_opener(_Redirects).open(request, timeout=PATIENCE) as answer:
            declared = answer.headers.get("Content-Length", "")
            size = int(declared) if re.fullmatch("[0-9]{1,15}", declared) else None
            if (size or 0) > most:
                raise _NotFetched(f"it declares {size} bytes, more than the {most} that are taken")
            while piece := answer.read1(CHUNK):
                got += len(piece)
                if got > most:
                    raise _NotFetched(f"it sends more than the {most} bytes that are taken")
                if (seconds := time.monotonic() - begun) > SLOW_AFTER and got < LEAST_SPEED * seconds:
                    raise _NotFetched(f"only {got} bytes came in {seconds:.0f} seconds")
                yield piece
                if told:
                    told(got, size)
            if size is not None and got != size:
                raise _NotFetched(f"the connection was cut after {got} of {size} bytes")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _NotFetched(first_line(error).strip("<>")) from None


def _pieces_of_zip(path: Path, member: str, most: int) -> Iterator[bytes]:
    """The one file of that name, in whatever folder of the archive. Raises _NotFetched."""
    try:
        _refuse_endless_list(path)
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
            for info in infos:
                if not PLAIN.fullmatch(info.orig_filename) or ".." in info.orig_filename.split("/"):
                    raise _NotFetched(f"the archive holds a file of the odd name {short(info.orig_filename)}")
            found = [info for info in infos if info.filename.rpartition("/")[2] == member]
            if len(found) != 1:
                raise _NotFetched(f"the archive holds {len(found)} files {member}, not one")
            if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _NotFetched("the archive is packed in an unusual way")
            if found[0].file_size > most:
                raise _NotFetched(f"the archive says that {member} has {found[0].file_size} bytes, too many")
            with file.open(found[0]) as content:  # gives no more bytes than it says, and checks their sum
                got = 0
                while piece := content.read(CHUNK):
                    got += len(piece)
                    yield piece
            if got != found[0].file_size:
                raise _NotFetched(f"the archive says that {member} has {found[0].file_size} bytes, but it has {got}")
    except ODD_ZIP as error:
        raise _NotFetched(f"what came is no sound zip archive: {first_line(error, 80)}") from None


def _refuse_endless_list(path: Path) -> None:
    """zipfile reads the whole list of members into memory, of which an archive can have millions."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, END_BYTES + (1 << 16)), 2)
        tail = file.read()
    at = tail.rfind(END)
    if not 0 <= at <= len(tail) - END_BYTES or tail[max(at - 20, 0) : at].startswith(END_64):
        raise zipfile.BadZipFile("it has no plain end")
    if int.from_bytes(tail[at + 12 : at + 16], "little") > MOST_DIRECTORY:
        raise zipfile.BadZipFile("it holds too many files")

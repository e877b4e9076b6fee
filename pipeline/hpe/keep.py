"""Published weights in the project: fetched once, with a receipt beside, by which they are known ever after.

Writes `cache/weights/<file>` and `<file>.receipt.json`: source, licence, bytes and sha256. Recipes that use the file
compare it with its receipt, and so does a second fetch, for a server may give something else one day.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.cache.sealed import remove_abandoned
from pipeline.errors import PosebridgeError
from pipeline.files.durable import unreadable, write_durably, writing
from pipeline.files.fetch import Told, fetch
from pipeline.files.hashing import sha256_file
from pipeline.files.names import is_file
from pipeline.files.plain_file import open_plain
from pipeline.hpe.published import Published

MOST_RECEIPT = 1 << 16  # bytes
MOST_TIMES = 4  # the size that is known about, to be taken from a server
ABSENT, THERE, UNKNOWN, CHANGED = "absent", "there", "not fetched by us", "changed"


@dataclass(frozen=True)
class Receipt:
    """What was fetched; `bytes` and `sha256` are of the file as it lies there, not of an archive around it."""

    source: str
    licence: str
    bytes: int
    sha256: str


def receipt_place(path: Path) -> Path:
    return path.with_name(f"{path.name}.receipt.json")


def read_receipt(path: Path) -> Receipt | None:
    """A file's receipt, where it has one. Raises PosebridgeError for a damaged one."""
    place = receipt_place(path)
    if not is_file(place):
        return None
    try:
        with open_plain(place) as file:
            values = json.loads(file.read(MOST_RECEIPT))
        if not re.fullmatch("[0-9a-f]{64}", values["sha256"]):
            raise ValueError
        return Receipt(str(values["source"]), str(values["licence"]), int(values["bytes"]), values["sha256"])
    except OSError as error:
        raise unreadable(place, error, "delete it and fetch the file again") from None
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise PosebridgeError(f"{place} is damaged; delete it, and {path} if in doubt, and fetch it again.") from None


def check_receipt(path: Path, sha256: str) -> None:
    """Raise PosebridgeError where a file that was fetched is not what it was; `sha256` is what it is."""
    receipt = read_receipt(path)
    if receipt and receipt.sha256 != sha256:
        raise PosebridgeError(
            f"{path} has changed since it was fetched: its sha256 is {sha256[:12]}..., {receipt_place(path).name} has "
            f"{receipt.sha256[:12]}...; delete the file and fetch it again, or the receipt if you changed it yourself."
        )


def state_of(published: Published) -> str:
    """ABSENT, THERE as it should be, UNKNOWN (a person's own file of that name) or CHANGED."""
    path = published.path
    if not is_file(path):
        return ABSENT
    found = _sha256(path)
    if receipt := read_receipt(path):
        return THERE if found == receipt.sha256 else CHANGED
    return THERE if found.startswith(published.sha256) else UNKNOWN


def get(published: Published, mirror: str = "", told: Told | None = None) -> tuple[Receipt, bool]:
    """Fetch weights, unless they are there as their receipt has them; the receipt, and whether anything was fetched.

    Args:
        mirror: a web folder that has the file by its own name, to be asked instead of the publisher.

    Raises PosebridgeError where it cannot be fetched or is not what it was, and for another file in its place.
    """
    path, receipt = published.path, read_receipt(published.path)
    if is_file(path):
        found = _sha256(path)
        check_receipt(path, found)
        if receipt:
            return receipt, False
        if not found.startswith(published.sha256):
            raise PosebridgeError(
                f"{path} is there and is not the published file (sha256 {found[:12]}..., not "
                f"{published.sha256[:12]}...); move it away to have that one, or use it as it is."
            )
        return _record(published, published.url), False
    url = f"{mirror.rstrip('/')}/{published.url.rpartition('/')[2]}" if mirror else published.url
    expected = receipt.sha256 if receipt else published.sha256
    with writing(path.parent):
        remove_abandoned(path.parent)
    fetch(url, path, expected, published.member, int(published.megabytes * MOST_TIMES * 1e6), told)
    return _record(published, url), True


def _record(published: Published, source: str) -> Receipt:
    path = published.path
    receipt = Receipt(source, published.licence, path.stat().st_size, _sha256(path))
    write_durably(receipt_place(path), json.dumps(asdict(receipt), indent=1).encode())
    return receipt


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise unreadable(path, error, "put it right") from None

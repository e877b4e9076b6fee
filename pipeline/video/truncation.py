"""Whether the end of a file is missing, by the sizes that its own structure tells; durations are only claims.

What cannot be told so: a stream without container, a cut between two packets of a transport stream, between two
fragments of an mp4, or between two blocks of a live recording whose sizes were never written.
"""

from __future__ import annotations

import io
import os

TAIL = 128 << 10  # bytes; programme streams and Ogg pages are at most 64 KiB
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
EBML_SEGMENT = 0x18538067
SYNC = 0x47  # of MPEG transport streams
MAGIC = {
    b"\x1aE\xdf\xa3": "matroska", b"RIFF": "avi", b"FLV\1": "flv", b"OggS": "ogg", b"\x30\x26\xb2\x75": "asf",
    b"\x06\x0e\x2b\x34": "mxf", b"GIF8": "gif",
}  # fmt: skip
MXF_PACK = bytes.fromhex("060e2b34020501010d01020101")  # of a partition, of whatever kind


def is_cut(file: io.FileIO, format_name: str) -> bool:
    """Whether the file ends before its structure does; `format_name` is FFmpeg's. The file's position is kept."""
    place = file.tell()
    try:
        size = os.fstat(file.fileno()).st_size
        first = format_name.split(",")[0]
        check = {
            "mov": _mov, "matroska": _matroska, "avi": _avi, "mpegts": _mpegts, "mpeg": _mpeg, "asf": _asf, "ogg": _ogg,
            "flv": _flv, "mxf": _mxf, "gif": _gif,
        }.get(first)  # fmt: skip
        return check is not None and check(file, size)
    except OSError:  # a bad sector: told where the frames are read, if they are concerned
        return False
    finally:
        file.seek(place)


def likely_format(file: io.FileIO) -> str:
    """What FFmpeg would call the format of a file that it does not open, by the first bytes; "mov" for all others."""
    place = file.tell()
    try:
        return MAGIC.get(_at(file, 0, 4), "mov")
    except OSError:
        return "mov"
    finally:
        file.seek(place)


def _at(file: io.FileIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count) or b""


def _mov(file: io.FileIO, size: int) -> bool:
    """Whether the table of contents (`moov`) is missing or torn, or, of a file in fragments, the last box.

    A file with one table is asked for its samples instead; what follows them may well be missing.
    """
    place, kinds, kind = 0, set(), b""
    while place + 8 <= size:
        head = _at(file, place, 16)
        length, kind = int.from_bytes(head[:4]), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16])
        kinds.add(kind)
        if length == 0 or length < 8:  # to the end, or no box
            break
        place += length
    if not kinds & {b"ftyp", b"moov", b"moof", b"mdat"}:
        return False
    torn = place > size or 0 < size - place < 8
    return b"moov" not in kinds or (torn and (kind == b"moov" or b"moof" in kinds))


def _matroska(file: io.FileIO, size: int) -> bool:
    """By the size of the segment, or else, of a live recording, by those of the elements in it."""
    place = 0
    while place < size:
        head = _at(file, place, 16)
        try:
            element, used = _ebml_number(head, keep_marker=True)
            length, more = _ebml_number(head[used:], keep_marker=False)
        except ValueError:
            return place + 16 > size  # torn in the middle of a head; else no EBML, which FFmpeg may make sense of
        place += used + more
        if length == (1 << 7 * more) - 1:  # of unknown size: what is in it comes next
            continue
        place += length
        if place > size:
            return True
        if element == EBML_SEGMENT:
            return False
    return False


def _ebml_number(data: bytes, keep_marker: bool) -> tuple[int, int]:
    """A number of variable length and the bytes that it takes. Raises ValueError where there is none."""
    if not data or not data[0]:
        raise ValueError("no number")
    length = 9 - data[0].bit_length()
    if len(data) < length:
        raise ValueError("no whole number")
    value = int.from_bytes(data[:length])
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), length


def _avi(file: io.FileIO, size: int) -> bool:
    """Whether a list of frames (`movi`) is torn; one of size 0 was never completed, and tells nothing.

    Beyond 1 GB there are several, in a RIFF each.
    """
    place, lists = 0, 0
    while place + 12 <= size:
        head = _at(file, place, 12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"RIFF":
            place += 12
            continue
        if head[:4] == b"LIST" and head[8:] == b"movi":
            if length in (0, 0xFFFFFFFF) or place + 8 + length > size:
                return length not in (0, 0xFFFFFFFF)
            lists += 1
        elif lists and head[:4] not in (b"idx1", b"JUNK"):
            break  # whatever follows the frames is none of ours
        place += 8 + length + length % 2
    return not lists and _at(file, 8, 4) == b"AVI "  # it ends before its frames begin


def _mpegts(file: io.FileIO, size: int) -> bool:
    """Whether the last packet is torn. A recording may begin within a packet."""
    head = _at(file, 0, 8 << 10)
    for packet in (188, 192, 204):  # plain; with time codes before, as cameras write them; with check bytes
        for first in range(packet):
            if len(head) > first + 4 * packet and all(head[first + i * packet] == SYNC for i in range(5)):
                return bool((size - first + (4 if packet == 192 else 0)) % packet)
    return False


def _mpeg(file: io.FileIO, size: int) -> bool:
    """Whether the last packet is torn, by following the lengths from the last pack on."""
    tail = _at(file, max(size - TAIL, 0), TAIL)
    place = tail.rfind(b"\0\0\1\xba")
    if place < 0:
        return False
    head = tail[place : place + 14]
    mpeg2 = len(head) > 4 and head[4] >> 6 == 1
    if len(head) < (14 if mpeg2 else 12):
        return True
    place += 14 + (head[13] & 7) if mpeg2 else 12
    while tail[place : place + 3] == b"\0\0\1" and tail[place + 3 : place + 4] != b"\xb9":
        if len(tail) < place + 6:
            return True
        place += 6 + int.from_bytes(tail[place + 4 : place + 6])
    return place > len(tail)


def _asf(file: io.FileIO, size: int) -> bool:
    """By the size in the header; a live recording has none."""
    head = _at(file, 0, 64 << 10)
    place = head.find(ASF_FILE_PROPERTIES)
    if place < 0 or len(head) < place + 92:
        return False
    live = head[place + 88] & 1
    return not live and int.from_bytes(head[place + 40 : place + 48], "little") > size


def _ogg(file: io.FileIO, size: int) -> bool:
    """Whether the last page is torn."""
    tail = _at(file, max(size - TAIL, 0), TAIL)
    place = tail.rfind(b"OggS")
    if place < 0:
        return False
    head = tail[place : place + 27]
    sizes = tail[place + 27 : place + 27 + head[26]] if len(head) == 27 else b""
    return len(head) < 27 or len(sizes) < head[26] or place + 27 + head[26] + sum(sizes) > len(tail)


def _flv(file: io.FileIO, size: int) -> bool:
    """Whether the last tag is torn, by following the lengths; each is followed by four bytes, which may be wrong."""
    place = int.from_bytes(_at(file, 5, 4)) + 4
    while place + 11 <= size:
        head = _at(file, place, 11)
        if head[0] & 0x1F not in (8, 9, 18):
            return False  # no tag: nothing can be told
        place += 11 + int.from_bytes(head[1:4]) + 4
    return place - 4 > size or 0 < size - place < 11


def _mxf(file: io.FileIO, size: int) -> bool:
    """By the place of the last partition, which the first one tells where the file was completed."""
    head = _at(file, 0, 64 << 10)
    place = head.find(MXF_PACK)
    if place < 0:
        return False
    long = head[place + 16 : place + 17]
    place += 17 + (long[0] & 0x7F if long and long[0] & 0x80 else 0)  # behind the length of the pack
    return int.from_bytes(head[place + 24 : place + 32]) >= size


def _gif(file: io.FileIO, size: int) -> bool:
    """Whether a block is torn, by following the lengths; the byte that ends the file is often left out."""
    place = 13 + _gif_colours(_at(file, 10, 1))
    while place < size:
        head = _at(file, place, 10)
        if head[:1] not in (b"!", b","):
            return False  # the end, or no block
        place += 2 if head[:1] == b"!" else 11 + _gif_colours(head[9:])
        while place < size and (length := _at(file, place, 1)[0]):
            place += 1 + length
        place += 1
    return place > size


def _gif_colours(flags: bytes) -> int:
    """Bytes of the table of colours that these flags tell of."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0

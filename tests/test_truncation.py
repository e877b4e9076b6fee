"""Whether a file is cut, by structures written out byte by byte: whole, and with one byte fewer."""

from __future__ import annotations

import pytest

from pipeline.video.truncation import is_cut, likely_format

pytestmark = pytest.mark.unit


@pytest.fixture
def cut(tmp_path):
    def ask(format_name: str, data: bytes) -> bool:
        path = tmp_path / "a"
        path.write_bytes(data)
        with path.open("rb", buffering=0) as file:
            file.seek(3)
            found = is_cut(file, format_name)
            assert file.tell() == 3, "the position is kept"
        return found

    return ask


def box(kind: bytes, size: int) -> bytes:
    """An mp4 box of this many bytes."""
    return size.to_bytes(4) + kind + bytes(size - 8)


def large_box(kind: bytes, size: int) -> bytes:
    return (1).to_bytes(4) + kind + size.to_bytes(8) + bytes(size - 16)


def test_mp4_is_cut_without_its_table_or_within_it_or_within_a_fragment(cut):
    ftyp, moov, moof, mdat = (box(kind, 40) for kind in (b"ftyp", b"moov", b"moof", b"mdat"))
    name = "mov,mp4,m4a,3gp,3g2,mj2"
    assert not cut(name, ftyp + moov + mdat) and not cut(name, ftyp + mdat + moov)
    assert cut(name, ftyp + mdat), "no table"
    assert cut(name, ftyp + mdat + moov[:-1]) and cut(name, ftyp + mdat + moov[:9])
    assert not cut(name, ftyp + moov + mdat[:-1]), "the table is asked for its samples instead"
    assert cut(name, ftyp + moov + moof + mdat[:-1]) and not cut(name, ftyp + moov + moof + mdat)
    assert cut(name, ftyp + moov + moof + mdat + moof[:7]), "a head of a box is torn"
    assert not cut(name, ftyp + moov + large_box(b"mdat", 40) + moof)
    assert cut(name, ftyp + moov + moof + large_box(b"mdat", 40)[:-1])
    assert not cut(name, ftyp + moov + moof + bytes(4) + b"mdat" + bytes(9)), "a size of 0 is to the end"
    assert not cut(name, b"no mp4 at all, whatever its name is")


def ebml(element: str, size: str, content: bytes = b"") -> bytes:
    return bytes.fromhex(element) + bytes.fromhex(size) + content


def test_matroska_is_cut_by_the_size_of_its_segment_or_of_what_is_in_it(cut):
    head = ebml("1a45dfa3", "84", b"webm")
    segment = ebml("18538067", "010000000000000a", bytes(10))  # eight bytes for a size of ten
    name = "matroska,webm"
    assert not cut(name, head + segment) and cut(name, head + segment[:-1]) and cut(name, head[:-1])
    assert not cut(name, head + segment + b"behind it, something of others")
    live = head + ebml("18538067", "01ffffffffffffff")  # of unknown size: the elements in it are asked
    cluster = ebml("1f43b675", "4005", bytes(5))  # two bytes for a size of five
    assert not cut(name, live + cluster) and cut(name, live + cluster[:-1]) and cut(name, live + cluster[:5])
    assert not cut(name, live + ebml("1f43b675", "ff") + cluster), "a cluster of unknown size as well"
    assert not cut(name, head + bytes(16)) and cut(name, head + bytes(15)), "no element, or the head of one is torn"


def chunk(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    return kind + (len(content) if size is None else size).to_bytes(4, "little") + content + bytes(len(content) % 2)


def test_avi_is_cut_within_its_frames_or_before_they_begin(cut):
    riff = b"RIFF\xff\xff\xff\0AVI " + chunk(b"LIST", b"hdrl" + bytes(7)) + chunk(b"JUNK", bytes(5))
    movi = chunk(b"LIST", b"movi" + bytes(20))
    assert not cut("avi", riff + movi) and not cut("avi", riff + movi + b"idx1")
    assert cut("avi", riff + movi[:-1]) and cut("avi", riff + movi[:11]) and cut("avi", riff)
    for unsaid in (0, 0xFFFFFFFF):
        assert not cut("avi", riff + chunk(b"LIST", b"movi" + bytes(20), unsaid))
    assert not cut("avi", b"RIFF\0\0\0\0WAVE" + bytes(4))


@pytest.mark.parametrize(("before", "behind"), [(0, 0), (4, 0), (0, 16)], ids=["ts", "m2ts", "check bytes"])
def test_a_transport_stream_is_cut_within_a_packet(cut, before, behind):
    packet = bytes(before) + b"\x47" + bytes(187 + behind)
    for whole in (packet * 9, packet[100:] + packet * 9):  # a recording may begin anywhere
        assert not cut("mpegts", whole) and cut("mpegts", whole[:-1]) and cut("mpegts", whole + b"\x47")
    assert not cut("mpegts", bytes(4000)), "no packets"


@pytest.mark.parametrize(
    "pack",
    [bytes.fromhex("000001ba 44") + bytes(8) + b"\xf8", bytes.fromhex("000001ba 44") + bytes(8) + b"\xfb\xff\xff\xff",
     bytes.fromhex("000001ba 21") + bytes(7)],
    ids=["mpeg 2", "with three bytes of stuffing", "mpeg 1"],
)  # fmt: skip
def test_a_programme_stream_is_cut_within_a_packet_after_its_last_pack(cut, pack):
    packet = bytes.fromhex("000001e0 0009") + bytes(9)
    whole = (pack + packet + packet) * 3
    assert not cut("mpeg", whole) and not cut("mpeg", whole + bytes.fromhex("000001b9"))
    for less in (1, 8, 9, 10, 11):  # within the body, within the length, within the head
        assert cut("mpeg", whole[:-less]), less
    assert cut("mpeg", whole + pack[:-1]) and not cut("mpeg", whole + pack)
    assert not cut("mpeg", pack + packet) and cut("mpeg", pack + packet[:-1])
    assert not cut("mpeg", bytes(99)), "no pack"


def test_asf_is_cut_by_the_size_in_its_header(cut):
    def file(size: int, flags: int) -> bytes:
        head = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(24) + size.to_bytes(8, "little")
        return bytes(30) + head + b"\1" * 40 + bytes([flags]) + bytes(3 + 40)  # 30 + 88 + 1 + 43 = 162 bytes

    assert not cut("asf", file(162, 2)) and cut("asf", file(163, 2)) and not cut("asf", file(163, 3)), "3: live"
    assert not cut("asf", file(999, 0)[:121]) and not cut("asf", bytes(200)), "no header, or not a whole one"


def test_ogg_is_cut_within_its_last_page(cut):
    page = b"OggS" + bytes(22) + bytes([2, 5, 7]) + bytes(12)  # two segments of five and seven bytes
    assert not cut("ogg", page * 3) and not cut("ogg", bytes(99))
    for less in (1, 12, 13, 15, 30):  # of the body, the sizes, the head
        assert cut("ogg", (page * 3)[:-less]), less


def test_flv_is_cut_within_its_last_tag(cut):
    def tag(kind: int) -> bytes:
        return bytes([kind, 0, 0, 9]) + bytes(7 + 9) + (20).to_bytes(4)

    head = b"FLV\x01\x05" + (9).to_bytes(4) + bytes(4)
    whole = head + tag(18) + tag(9) + tag(8)
    assert not cut("flv", whole) and not cut("flv", whole[:-4]), "the four bytes behind a tag may be missing"
    assert cut("flv", whole[:-5]) and cut("flv", whole + tag(9)[:1]) and cut("flv", whole + tag(9)[:10])
    assert not cut("flv", head + tag(9) + tag(7)[:-5]), "no tag: nothing can be told"


def test_mxf_is_cut_before_its_last_partition(cut):
    def file(footer: int, length: bytes) -> bytes:
        pack = bytes.fromhex("060e2b34020501010d01020101") + bytes(3) + length
        return bytes(10) + pack + bytes(24) + footer.to_bytes(8) + bytes(40)

    for length in (b"\x58", b"\x83\0\0\x58"):  # in one byte, or in three that follow
        size = len(file(0, length))
        assert not cut("mxf", file(size - 1, length)) and cut("mxf", file(size, length))
    assert not cut("mxf", bytes(99))


def test_gif_is_cut_within_any_block_and_may_lack_its_last_byte(cut):
    head = b"GIF89a" + bytes(4) + b"\x81" + bytes(2 + 12)  # a table of four colours
    control = b"!\xf9\x04" + bytes(4) + b"\0"
    picture = b"," + bytes(8) + b"\x80" + bytes(6) + b"\x08" + b"\x02ab\x03abc\0"  # of two colours of its own
    whole = head + control + picture + control + picture
    assert not cut("gif", whole) and not cut("gif", whole + b";") and not cut("gif", whole + b";of others")
    assert cut("gif", head[:-1])
    for block in (control, picture):
        assert all(cut("gif", head + control + block[:n]) for n in range(1, len(block)))
        assert not cut("gif", head + control + block)


def test_a_format_is_told_by_its_first_bytes_and_others_are_not_judged(cut, tmp_path):
    for head, name in (
        (b"\x1aE\xdf\xa3", "matroska"), (b"RIFF", "avi"), (b"FLV\1", "flv"), (b"OggS", "ogg"),
        (b"\x30\x26\xb2\x75", "asf"), (b"\x06\x0e\x2b\x34", "mxf"), (b"\0\0\0\x20", "mov"), (b"", "mov"),
    ):  # fmt: skip
        (tmp_path / "b").write_bytes(head)
        with (tmp_path / "b").open("rb", buffering=0) as file:
            assert likely_format(file) == name and file.tell() == 0
    assert not cut("h264", bytes(9))

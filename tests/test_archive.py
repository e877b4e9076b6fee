"""A store in one compressed file, and back."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import time
import tracemalloc

import pytest
from click.testing import CliRunner
from test_cache import make_store

from pipeline.cache.reader import CacheReader
from pipeline.cache.sealed import canonical_json, seal
from pipeline.errors import PosebridgeError
from pipeline.interchange import archive
from pipeline.interchange.archive import export_archive, import_archive
from pipeline.interchange.tar import OddMember, plain_files
from stages.cli import main


@pytest.mark.unit
def test_an_archive_gives_the_same_store_and_index(tmp_path):
    store, index, rows = make_store(tmp_path)
    (store.folder / "shard-00001-000000000000.h5").write_bytes(b"an orphan stays at home")
    file = tmp_path / "a.tar.gz"
    assert export_archive(index, tmp_path / "store", file) == file.stat().st_size
    new = import_archive(file, "d", "r", cache=tmp_path / "b")
    assert new.read_bytes() == index.read_bytes()
    with CacheReader(new) as reader:
        assert set(reader.read(sorted(rows), ["keypoints"])) == {"keypoints"}
        names = {path.name for path in reader.folder.iterdir()}
    assert names == {path.name for path in store.folder.iterdir()} - {"shard-00001-000000000000.h5"}
    assert import_archive(file, "d", "r", cache=tmp_path / "b") == new, "a second time changes nothing"
    assert sorted(path.name for path in (tmp_path / "b" / "store").iterdir()) == ["d"], "no draft stays"
    new.with_name("clips.csv").touch()
    with pytest.raises(PosebridgeError, match="holds imported features; give the recipe another name"):
        import_archive(file, "d", "r", cache=tmp_path / "b")


def rewrite(file, change) -> None:
    """Every member of an archive through `change(name, content) -> list of (TarInfo, content)`."""
    with tarfile.open(file) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive]
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members:
            for info, data in change(name, content):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def with_link(name, content):
    link = tarfile.TarInfo(name.replace("recipe", "shard-00009"))
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    extra = [(link, b"")] if name.endswith("recipe.json") else []
    return [(tarfile.TarInfo(name), content), *extra]


def with_another_bit(name, content):
    return [(tarfile.TarInfo(name), content[:-1] + bytes([content[-1] ^ 1]) if name.endswith(".h5") else content)]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (with_another_bit, "no sound store"),
        (lambda n, c: [] if n.endswith(".h5") else [(tarfile.TarInfo(n), c)], "no sound store"),
        (lambda n, c: [(tarfile.TarInfo(f"../{n}"), c)], "belongs to no store"),
        (lambda n, c: [(tarfile.TarInfo(f"../{n.rpartition('/')[2]}"), c)], "belongs to no store"),
        (lambda n, c: [(tarfile.TarInfo(n), c), (tarfile.TarInfo(n), c)], "a file twice"),
        (lambda n, c: [(tarfile.TarInfo(n), c), (tarfile.TarInfo(f"x{n}"), c)], "holds 2 stores"),
        (with_link, "belongs to no store"),
    ],
)
def test_an_archive_that_was_changed_is_refused_and_leaves_nothing(tmp_path, change, match):
    _, index, _ = make_store(tmp_path)
    file = tmp_path / "a.tar.gz"
    export_archive(index, tmp_path / "store", file)
    rewrite(file, change)
    with pytest.raises(PosebridgeError, match=f"a.tar.gz.*{match}"):
        import_archive(file, "d", "r", cache=tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.*"))


@pytest.mark.fault
def test_other_files_and_a_damaged_store_are_refused(tmp_path):
    store, index, _ = make_store(tmp_path)
    file = tmp_path / "a.tar.gz"
    export_archive(index, tmp_path / "store", file)
    whole = file.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(PosebridgeError, match="a.tar.gz.*fetch it again|holds 0 stores"):
            import_archive(file, "d", "r", cache=tmp_path / "b")
    next(store.folder.glob("*.h5")).write_bytes(b"x")
    with pytest.raises(PosebridgeError, match="posebridge extract"):
        export_archive(index, tmp_path / "store", file)


def packed(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A .tar.gz of these headers and contents, whatever the headers say."""
    raw = b"".join(info.tobuf(form) + data + bytes(-len(data) % 512) for info, data in members)
    return gzip.compress(raw + bytes(1024))


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info


def sparse() -> bytes:
    """One block on the disk that stands for eight gigabytes."""
    block = bytearray(member("s/recipe.json", 0, tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"00000000000\0" b"00000000001\0"
    block[483:495] = b"77777777777\0"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return gzip.compress(bytes(block) + bytes(1024))


S = "simcc-refined-0123456789ab"
ODD = {
    "sparse": sparse(),
    "long name": packed((member("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME), b"")),
    "long note": packed((member("x", 1 << 40, tarfile.XHDTYPE), b"")),
    "note with a path": packed((member("x", 22, tarfile.XHDTYPE), b"22 path=../../evil.txt\n"[:22])),
    "global note": packed((member("x", 0, tarfile.XGLTYPE), b"")),
    "hard link": packed((member(f"{S}/recipe.json", 0, tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "symbolic link": packed((member(S, 0, tarfile.SYMTYPE, "/tmp"), b"")),
    "device": packed((member(f"{S}/recipe.json", 0, tarfile.CHRTYPE), b"")),
    "pipe": packed((member(f"{S}/recipe.json", 0, tarfile.FIFOTYPE), b"")),
    "folder": packed((member(S, 0, tarfile.DIRTYPE), b"")),
    "contiguous": packed((member(f"{S}/recipe.json", 0, tarfile.CONTTYPE), b"")),
    "negative size": packed((member(f"{S}/recipe.json", -512), b"")),
    "endless size": packed((member(f"{S}/recipe.json", 1 << 60), b"")),
    "absolute": packed((member("/etc/recipe.json"), b"")),
    "up": packed((member("../recipe.json"), b"")),
    "up further": packed((member("../../x/recipe.json"), b"")),
    "dot": packed((member("./recipe.json"), b"")),
    "hidden": packed((member(".import/recipe.json"), b"")),
    "deep": packed((member("a/b/recipe.json"), b"")),
    "no folder": packed((member("recipe.json"), b"")),
    "other file": packed((member(f"{S}/run.sh"), b"")),
    "line end": packed((member(f"{S}/recipe.json\n"), b"")),
    "no Unicode": gzip.compress(b"\xff" * 2048),
    "shard first": packed((member(f"{S}/shard-00000-0123456789ab.h5", 3), b"abc")),
    "recipe only": packed((member(f"{S}/recipe.json", 2), b"{}")),
    "recipe and layout": packed((member(f"{S}/recipe.json", 2), b"{}"), (member(f"{S}/layout.json", 2), b"{}")),
    "nothing": gzip.compress(bytes(1024)),
    "no end": gzip.compress(b""),
    "zeros": gzip.compress(bytes(10 << 20)),
    "no gzip": bytes(1024),
    "text in gzip": gzip.compress(b"text" * 1000),
    "cut": sparse()[:40],
    "trailing text": gzip.compress(bytes(100)) + b"text",
}  # fmt: skip


@pytest.mark.fault
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_archive_is_one_sentence_and_leaves_nothing(tmp_path, kind):
    file = tmp_path / "odd.tar.gz"
    file.write_bytes(ODD[kind])
    tracemalloc.start()
    try:
        with pytest.raises(PosebridgeError, match="odd.tar.gz"):
            import_archive(file, "d", "r", cache=tmp_path / "b")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == ["b", "b/store", "odd.tar.gz"]


@pytest.mark.fault
@pytest.mark.parametrize("times", [b"", b"22 mtime=1700000000.5\n"])
def test_a_file_has_one_note_before_it_and_no_endless_row_of_them(times):
    note, file = (member("x", len(times), tarfile.XHDTYPE), times), (member(f"{S}/recipe.json", 2), b"{}")
    raw = gzip.decompress(packed(note, file, note, file))
    assert [(name, size, b"".join(content)) for name, size, content in plain_files(io.BytesIO(raw))] == [
        (f"{S}/recipe.json", 2, b"{}")
    ] * 2
    with pytest.raises(OddMember):
        list(plain_files(io.BytesIO(gzip.decompress(packed(note, note, file)))))


def resealed(part: str, **changes):
    """A change for `rewrite`: a sealed file with other values and a seal that fits them."""

    def change(name, content):
        if name.rpartition("/")[2] != part:
            return [(tarfile.TarInfo(name), content)]
        return [(tarfile.TarInfo(name), canonical_json(seal(json.loads(content) | changes)))]

    return change


@pytest.mark.fault
@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("layout.json", {"shards": 10**8}), ("layout.json", {"shards": 99_999}), ("layout.json", {"shards": 1}),
        ("layout.json", {"shards": 0}), ("layout.json", {"shards": "2"}), ("layout.json", {"joints": 10**9}),
        ("recipe.json", {"frames": 10**9}), ("recipe.json", {"layout": 5}), ("recipe.json", {"more": 1}),
        ("shard-00000.json", {"file": "../../../../etc/passwd"}), ("shard-00000.json", {"file": "/etc/passwd"}),
        ("shard-00000.json", {"file": ""}), ("shard-00000.json", {"bytes": 10**15}),
        ("shard-00000.json", {"bytes": -1}), ("shard-00000.json", {"shard": 1}), ("shard-00000.json", {"clips": {}}),
        ("shard-00000.json", {"clips": [1]}), ("shard-00000.json", {"sha256": "0" * 64}),
        ("shard-00000.json", {"checksums": None}),
    ],
    ids=str,
)  # fmt: skip
def test_an_archive_with_odd_values_under_a_good_seal_is_refused(tmp_path, part, changes):
    _, index, _ = make_store(tmp_path)
    file = tmp_path / "a.tar.gz"
    export_archive(index, tmp_path / "store", file)
    rewrite(file, resealed(part, **changes))
    with pytest.raises(PosebridgeError, match="a.tar.gz"):
        import_archive(file, "d", "r", cache=tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.*"))


@pytest.mark.fault
def test_an_archive_that_unpacks_to_more_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    _, index, _ = make_store(tmp_path)
    file = tmp_path / "a.tar.gz"
    export_archive(index, tmp_path / "store", file)
    usage = shutil.disk_usage(tmp_path)._replace(free=archive.LEFT + 5000)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(PosebridgeError, match="a.tar.gz would unpack to .* make room"):
        import_archive(file, "d", "r", cache=tmp_path / "b")
    assert not list((tmp_path / "b").rglob("*.*"))


@pytest.mark.fault
def test_what_killed_imports_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    _, index, _ = make_store(tmp_path)
    file, root = tmp_path / "a.tar.gz", tmp_path / "b" / "store"
    export_archive(index, tmp_path / "store", file)
    names = [".import-host-123", ".import.tmp-elsewhere-7-0123abcd", ".import.tmp-elsewhere-8-0123abcd"]
    for name in names:
        (root / name / "d").mkdir(parents=True)
    long_ago = time.time() - 2 * 3600
    for name in names[:2]:
        os.utime(root / name, (long_ago, long_ago))
    import_archive(file, "d", "r", cache=tmp_path / "b")
    assert sorted(path.name for path in root.iterdir()) == [names[2], "d"]


@pytest.mark.fault
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_places_where_nothing_may_be_written_are_one_sentence(tmp_path):
    _, index, _ = make_store(tmp_path)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    with pytest.raises(PosebridgeError, match="shut/a.tar.gz failed"):
        export_archive(index, tmp_path / "store", shut / "a.tar.gz")
    export_archive(index, tmp_path / "store", tmp_path / "a.tar.gz")
    with pytest.raises(PosebridgeError, match="shut/b/store failed"):
        import_archive(tmp_path / "a.tar.gz", "d", "r", cache=shut / "b")


@pytest.mark.fault
def test_places_that_are_files_are_one_sentence(tmp_path):
    _, index, _ = make_store(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PosebridgeError, match="file"):
        export_archive(index, tmp_path / "store", tmp_path / "file" / "a.tar.gz")
    export_archive(index, tmp_path / "store", tmp_path / "a.tar.gz")
    with pytest.raises(PosebridgeError, match="file"):
        import_archive(tmp_path / "a.tar.gz", "d", "r", cache=tmp_path / "file")
    (tmp_path / "b.tar.gz").mkdir()
    for go in (
        lambda path: import_archive(path, "d", "r", cache=tmp_path),
        lambda path: export_archive(index, tmp_path / "store", path),
    ):
        with pytest.raises(PosebridgeError, match="b.tar.gz"):
            go(tmp_path / "b.tar.gz")


@pytest.mark.unit
def test_linked_shards_are_archived_as_files(tmp_path):
    """As DVC links them, where its cache is set to."""
    store, index, _ = make_store(tmp_path)
    for shard in store.folder.glob("*.h5"):
        shard.rename(tmp_path / shard.name)
        shard.symlink_to(tmp_path / shard.name)
    export_archive(index, tmp_path / "store", tmp_path / "a.tar.gz")
    assert import_archive(tmp_path / "a.tar.gz", "d", "r", cache=tmp_path / "b").is_file()


@pytest.mark.unit
def test_the_commands_archive_and_unpack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path)
    (tmp_path / "params.yaml").write_text("{}\n")
    invoke, of = CliRunner().invoke, ["--dataset", "d", "--recipe", "r"]
    assert invoke(main, ["cache", "export", "a.zip", *of, "--cache", ".", "--archive"]).exit_code == 2
    done = invoke(main, ["cache", "export", "a.tar.gz", *of, "--cache", ".", "--archive"])
    assert done.exit_code == 0 and "Wrote a.tar.gz" in done.output, done.output
    done = invoke(main, ["cache", "import", "a.tar.gz", *of, "--cache", "b"])
    assert done.exit_code == 0 and "b/d/r/index.json: unpacked and checked" in done.output, done.output

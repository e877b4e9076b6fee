"""A store in one compressed file, and back."""

from __future__ import annotations

import io
import tarfile

import pytest
from click.testing import CliRunner

from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.interchange.archive import export_archive, import_archive
from stages.cli import main
from tests.test_cache import make_store


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

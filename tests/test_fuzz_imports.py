"""Random pickles, npz and archives for `cache import`: a sentence or a good import, never a traceback, a hang, much
memory, or a file elsewhere.

What is tried: good files with bits turned around, bytes cut off, taken out and put in, also within what is packed; and
files put together from odd values, opcodes, headers and members.
"""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
import shutil
import tarfile
import tracemalloc
import zipfile
from datetime import timedelta
from pathlib import Path

import hostile
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_cache import make_store

from pipeline.errors import PosebridgeError
from pipeline.interchange.archive import export_archive, import_archive
from pipeline.interchange.importing import import_skeletons
from pipeline.manifest.clips import write_classes
from pipeline.recipe import Recipe

pytestmark = pytest.mark.fault
RECIPE = Recipe(backend="import", cues="none", layout="coco17", dimensions=2, persons=1, frames=8)
MOST = 96 << 20  # bytes of memory for any input
BOUNDED = settings(
    max_examples=200,
    deadline=timedelta(seconds=20),
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class World:
    """A folder to import into, watched, and a good file of each kind."""

    def __init__(self, folder: Path):
        self.folder = folder
        _, index, _ = make_store(folder / "origin")
        export_archive(index, folder / "origin" / "store", folder / "a.tar.gz")
        self.whole = {"archive": (folder / "a.tar.gz").read_bytes(), "npz": hostile.npz(),
                      "pickle": pickle.dumps({"annotations": [hostile.record(), hostile.record(frame_dir="b")],
                                              "split": {"train": ["a"], "val": ["b"]}}, 4)}  # fmt: skip
        self.unpacked = {"archive": gzip.decompress(self.whole["archive"])}
        shutil.rmtree(folder / "origin")
        (folder / "a.tar.gz").unlink()

    def take(self, kind: str, content: bytes) -> None:
        """Import a file; what it may not do is looked at afterwards."""
        file = self.folder / {"archive": "odd.tar.gz", "npz": "odd.npz", "pickle": "odd.pkl"}[kind]
        here = self.folder / "here"
        write_classes(here / "manifests/d/classes.csv", ["one", "two"])
        file.write_bytes(content)
        done = False
        tracemalloc.start()
        try:
            if kind == "archive":
                import_archive(file, "d", "r", cache=here / "cache")
            else:
                import_skeletons("d", "r", RECIPE, file, manifests=here / "manifests", cache=here / "cache")
            done = True
        except PosebridgeError as error:
            said = str(error)
            assert file.name in said and said.endswith(".") and "\n" not in said and len(said) < 1500, said
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.clear(done, file)
        assert peak < MOST

    def clear(self, done: bool, file: Path) -> None:
        """Look at what is there, and remove it."""
        here = self.folder / "here"
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        links = [path for path in here.rglob("*") if path.is_symlink() or not (path.is_file() or path.is_dir())]
        shutil.rmtree(here)
        file.unlink()
        assert not links and {name.partition("/")[0] for name in names} == {"here", file.name}
        files = [name for name in names if name.startswith("here/cache/") and "." in name.rpartition("/")[2]]
        drafts = [name for name in names if "/." in name or ".tmp-" in name]
        assert done == bool(files) and not drafts, "whole or not at all"


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """Bytes with some turned around, cut off, taken out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "set", "cut", "take", "put", "repeat")))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and content:
            content[place : place + 8] = draw(st.sampled_from((b"\xff" * 8, bytes(8), b"\x7f\xff\xff", b"99999999")))
        elif kind == "cut":
            del content[place:]
        elif kind == "take":
            del content[place : place + draw(st.integers(1, 200))]
        elif kind == "put":
            content[place:place] = draw(st.binary(max_size=50))
        else:
            content[place:place] = content[place : place + draw(st.integers(1, 600))] * draw(st.integers(1, 4))
    return bytes(content)


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.none(), st.sampled_from((10**400, -1, 2**63, 2**31, float("nan")))
)
TEXT = st.one_of(
    st.text(max_size=10), st.sampled_from(("a", "../../x", "/etc/passwd", "\ud800", "a\nb", "é", "train", ""))
)
ARRAYS = st.one_of(
    arrays.arrays(
        st.sampled_from(("f4", ">f4", "f8", "f2", "i1", "u8", "?", "U3", "S3", "c8", "M8[s]", "f4,i4")),
        arrays.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=4),
        fill=st.nothing(),
    ),
    st.sampled_from((hostile.POSE, hostile.POSE.T, hostile.POSE * np.nan, hostile.POSE[..., 0], np.array(None))),
)
VALUES = st.recursive(
    st.one_of(NUMBERS, TEXT, st.binary(max_size=10), ARRAYS),
    lambda inside: st.one_of(
        st.lists(inside, max_size=4), st.tuples(inside, inside), st.dictionaries(TEXT, inside, max_size=4)
    ),
    max_leaves=10,
)
FIELDS = ("frame_dir", "label", "keypoint", "keypoint_score", "total_frames", "img_shape", "split")
RECORDS = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3).map(lambda changes: hostile.record(**changes))
FILES = st.one_of(
    st.lists(RECORDS, max_size=3),
    st.fixed_dictionaries({"annotations": st.lists(RECORDS, max_size=3)}, optional={"split": VALUES}),
    VALUES,
)
PIECES = [code.code.encode("latin1") for code in pickletools.opcodes]  # alone, and some in use
PIECES += [b"X\x01\x00\x00\x00a", b"K\x02", b"h\x00", b"q\x00", b"r\xff\xff\xff\x7f", b"\x94", b"2\x86",
           b"(h\x00h\x00l", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n",
           b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"cnumpy.core.numeric\n_frombuffer\n",
           b"cos\nsystem\n", b"U\x02f4", b"C\x02ab",
           b"\x8e" + b"\xff" * 7 + b"\x00", b"\x96" + b"\xff" * 5 + bytes(3), b"\x8b\xff\xff\xff\x7f"]  # fmt: skip
PROGRAMS = st.lists(st.sampled_from(PIECES), max_size=60).map(lambda parts: b"\x80\x04" + b"".join(parts) + b".")


@st.composite
def npz(draw) -> bytes:
    """Members of any kind under the names of a good file."""
    changes = draw(st.dictionaries(st.sampled_from(FIELDS), st.one_of(ARRAYS, st.binary(max_size=200)), max_size=3))
    name = draw(st.sampled_from(("frame_dir", "label", "keypoint", "none")))
    if name != "none":
        shape = draw(st.one_of(st.lists(st.integers(-(2**70), 2**70), max_size=5).map(tuple), st.just(()), TEXT))
        descr = draw(st.sampled_from(("<f4", "<U9999999", "O", "|V9", "<M8[s]", "f", "<f99", "<c16", "<i8")))
        text = repr({"descr": descr, "fortran_order": draw(st.booleans()), "shape": shape}) + "\n"
        changes[name] = hostile.header(text.encode("ascii", "replace").decode(), draw(st.binary(max_size=64)))
    members = {f"{key}.npy": hostile.npy(array) for key, array in hostile.GOOD.items()}
    members |= {
        f"{key}.npy": value if isinstance(value, bytes) else hostile.npy(value) for key, value in changes.items()
    }
    return hostile.zipped(members, draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))))


KINDS = [getattr(tarfile, name) for name in dir(tarfile) if name.endswith("TYPE")]
KINDS = [kind for kind in KINDS if isinstance(kind, bytes)]


@st.composite
def tars(draw, whole: bytes) -> bytes:
    """The members of a good archive, some of them changed, in any order, with others among them."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        good = [(member.name, archive.extractfile(member).read()) for member in archive]
    members = draw(st.permutations(good)) if draw(st.booleans()) else list(good)
    out = io.BytesIO()
    for name, content in members[: draw(st.integers(0, len(members)))] if draw(st.booleans()) else members:
        if draw(st.integers(0, 9)) == 0:
            content = draw(damaged(content))
        info = tarfile.TarInfo(name)
        info.size = len(content)
        odd = draw(st.integers(0, 19))
        if odd == 0:
            info.type = draw(st.sampled_from(KINDS))
        elif odd == 1:
            info.name = draw(st.sampled_from(("../x", "/etc/passwd", name, "a/recipe.json", "a/b/c", ".", "x" * 90)))
        elif odd == 2:
            info.size = draw(st.sampled_from((0, 1, 2**40, len(content) + 512, -1)))
        elif odd == 3:
            info.linkname = "/etc/passwd"
            info.type = draw(st.sampled_from((tarfile.SYMTYPE, tarfile.LNKTYPE)))
        out.write(info.tobuf(draw(st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))), "utf-8", "replace"))
        out.write(content + bytes(-len(content) % 512))
    return gzip.compress(out.getvalue() + bytes(1024), 1)


def everything(world: World) -> st.SearchStrategy[tuple[str, bytes]]:
    """A kind of file and its content."""
    whole = world.whole

    def of(kind: str, contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[str, bytes]]:
        return contents.map(lambda content: (kind, content))

    return st.one_of(
        of("pickle", damaged(whole["pickle"])),
        of("pickle", st.builds(pickle.dumps, FILES, st.integers(2, 5))),
        of("pickle", PROGRAMS),
        of("npz", damaged(whole["npz"])),
        of("npz", npz()),
        of("archive", damaged(whole["archive"])),
        of("archive", damaged(world.unpacked["archive"]).map(lambda raw: gzip.compress(raw, 1))),
        of("archive", tars(whole["archive"])),
    )


def run(world: World, config: settings) -> None:
    @config
    @given(everything(world))
    def each(given_file):
        world.take(*given_file)

    each()


@pytest.mark.timeout(120)
def test_whatever_is_imported_is_a_sentence_or_good(world):
    for kind, content in world.whole.items():
        world.take(kind, content)
    run(world, BOUNDED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_is_imported_is_a_sentence_or_good_in_10_000_files(world):
    run(world, settings(BOUNDED, max_examples=10_000))

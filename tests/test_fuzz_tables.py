"""Lists and parameters of any content: an answer or one sentence (PosebridgeError), in bounded time; nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PosebridgeError
from pipeline.ingest.base import Folder
from pipeline.ingest.ingest import ingest
from pipeline.ingest.kinetics import read_kinetics
from pipeline.ingest.pku_mmd import read_parts
from pipeline.manifest.clips import COLUMNS, read_classes, read_clips, write_classes
from pipeline.manifest.texts import read_texts
from pipeline.params import load_params
from pipeline.text.imports import PURLS_SLOTS, import_texts

EXAMPLES = {"few": 200, "many": 10_000}
HEADERS = (
    ",".join(COLUMNS), "path,label,start,end,subject,camera,part,clip_id", "index,name", "index,slot,text",
    ",".join(PURLS_SLOTS), "label,youtube_id,time_start,time_end,split",
)  # fmt: skip
CELLS = st.one_of(
    st.sampled_from(
        ["", "a", "b", "a.mp4", "x/b.mp4", "../a.mp4", "/etc/passwd", "nan", "inf", "-inf", "1e999", "3.0", "1,5",
         "-0", "0", "1", "146.0", "9" * 400, "train", "Test", "val", " ", "\u00a0", "'", '"', '""', "a\nb", "a\rb",
         "é", "e\u0301",
         "\\xff", "\\x00", "=1+1", "x" * 5000, "-x", "12:30 squat.mp4", "²", "٣", "0x10", "1_0"]
    ),
    st.text(max_size=12),
)  # fmt: skip
TABLES = st.tuples(
    st.sampled_from(HEADERS),
    st.lists(st.lists(CELLS, max_size=14), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
)
KEYS = st.sampled_from(
    ["datasets", "recipes", "runs", "synth", "extract", "text", "encode", "train", "a", "..", "a/b", "root", "lr",
     "epochs", "seeds", "blocks", "flags", "recipe", "clips_per_shard", "frames", "anchors", "<<", "1", "no", "null",
     "? x", "é"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "0", "-1", "1", "2e-3", ".5", ".nan", ".inf", "1e999", "010", "1:30", "yes", "~", "[]", "[0, 1]", "{}",
     "&a [x]",
     "*a", "[*a, *a]", "&b {<<: *b}", "!!python/name:os.system x", "!!int x", "2001-01-01", "|", ">", '"', "'",
     "\t", "{", "[", "9" * 400, "minilm@..", "x: y", "[[[[[[[[[[[[[[[[[[[[[[[[", "\x01", "# x", "\ufeff", "%YAML 2"]
)  # fmt: skip
YAML = st.lists(st.tuples(st.integers(0, 4), KEYS, VALUES), max_size=12).map(
    lambda lines: "".join(f"{'  ' * depth}{key}: {value}\n" for depth, key, value in lines).encode()
)


@st.composite
def damaged(draw, contents) -> bytes:
    """Some of it as it is, some with bytes changed, taken out, repeated, or with others put in."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(content)))
        more = draw(st.binary(max_size=4))
        content[place : place + draw(st.sampled_from([0, 0, 1, 2, 50]))] = more * draw(st.sampled_from([1, 1, 1, 3000]))
    return bytes(content)


def text_of(table) -> bytes:
    header, rows, delimiter, end, quoted, encoding = table
    mark = '"' if quoted else ""
    cells = [[f"{mark}{cell.replace(mark, mark * 2) if mark else cell}{mark}" for cell in row] for row in rows]
    lines = [delimiter.join(row) for row in cells]
    return end.join([header.replace(",", delimiter), *lines]).encode(encoding, "replace")


def go_through_tables(content: bytes) -> None:
    """Read it as every list of a data set, and as the labels and the former list of an ingest, whose own list is read
    without fail.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        (folder / "m/mine").mkdir(parents=True)
        (folder / "videos/a.mp4").write_bytes(b"no video")
        path = folder / "any.csv"
        path.write_bytes(content)

        (folder / "m/mine/clips.csv").write_bytes(content)
        write_classes(folder / "m/named/classes.csv", ["a", "b"])
        for read in (
            lambda: read_clips(path),
            lambda: read_classes(path),
            lambda: read_texts(path, ["a", "b"]),
            lambda: read_parts(path),
            lambda: read_kinetics(Folder(folder, ["any.csv"]), ["a", "b"], ""),
            lambda: import_texts("named", "v", path, "lines", manifests=folder / "m"),
            lambda: import_texts("named", "v", path, "purls", manifests=folder / "m"),
        ):
            sentence(read)
        for dataset, labels in (("other", path), ("mine", None)):
            done = sentence(
                lambda dataset=dataset, labels=labels: ingest(
                    dataset, folder / "videos", labels=labels, read_headers=False, manifests=folder / "m"
                )
            )
            if done is not None:
                assert len(read_clips(done.clips_csv)) == done.clips


def go_through_params(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "params.yaml"
        path.write_bytes(content)
        sentence(lambda: load_params(path))


def sentence(read):
    """What it returns; None where it ends in a sentence."""
    try:
        return read()
    except PosebridgeError as error:
        assert str(error).rstrip().endswith((".", "?")) and len(str(error)) < 3000
        return None


def fuzz(examples: int, contents, check) -> None:
    """All of them: a hang is found by the test's own limit."""
    every = settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples <= EXAMPLES["few"],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    every(given(content=contents)(lambda content: check(content)))()


BYTES = st.binary(max_size=200)
KINDS = {
    "tables": (st.one_of(damaged(TABLES.map(text_of)), BYTES), go_through_tables),
    "params": (st.one_of(damaged(YAML), BYTES, st.text(max_size=200).map(str.encode)), go_through_params),
}


@pytest.mark.fault
@pytest.mark.parametrize("kind", list(KINDS))
def test_any_content_is_an_answer_or_a_sentence(kind):
    fuzz(EXAMPLES["few"], *KINDS[kind])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", list(KINDS))
def test_any_content_many_times(kind):
    fuzz(EXAMPLES["many"], *KINDS[kind])

"""Tables as people and spreadsheets save them: one reader, one writer, and what is refused with line and column."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import PosebridgeError
from pipeline.files.tables import LONGEST_CELL, open_table, read_lines, write_table
from pipeline.manifest.clips import COLUMNS, Clip, read_classes, read_clips, write_clips

pytestmark = [pytest.mark.unit, pytest.mark.fault]
FAULTS = Path(__file__).parent.parent.parent / "shared" / "faults" / "tables"
PLAIN = "clip_id,path,part,label,start\ngrün,grün.mp4,train,3,1.5\nb,b.mp4,,,\n"
EXPECTED = [Clip("grün", "grün.mp4", start=1.5, label=3, part="train"), Clip("b", "b.mp4")]


def table(folder: Path, content: str | bytes, name: str = "clips.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("cp1252"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", ";").replace("1.5", "1,5"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("\n", ",,\n"),
        PLAIN.replace("\n", "\n,,,,\n\n"),
        PLAIN.replace("b,b.mp4,,,", "b,b.mp4"),
        PLAIN.replace(",3,", ",3.0,"),
        PLAIN.replace(",3,", ", 3 ,"),
        PLAIN.replace("train", "Train"),
        PLAIN.replace("clip_id,path", "Clip_ID, Path"),
        PLAIN.replace("grün.mp4", '"grün.mp4"'),
    ],
    ids=["mark", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "crlf", "cr", "no last line end", "semicolon", "tab",
         "decimal comma", "sep=", "trailing commas", "blank rows", "short row", "3.0", "blanks", "Train", "headings",
         "quoted"],
)  # fmt: skip
def test_a_list_is_read_as_people_save_it(tmp_path, content):
    assert read_clips(table(tmp_path, content)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clip_id,path,start\na,a.mp4,nan\n", "line 2, column start: 'nan' is not a time in seconds"),
        ("clip_id,path,end\n\na,a.mp4,inf\n", "line 3, column end: 'inf' is not a time"),
        ("clip_id,path,end\na,a.mp4,1e999\n", "line 2, column end: '1e999' is not"),
        ("clip_id,path,start\na,a.mp4,-1\n", "line 2, column start: '-1' is not a time in seconds, 0 or more"),
        ("clip_id,path,start,end\na,a.mp4,2,2\n", "line 2, column end: the segment 2 to 2 is empty"),
        ('clip_id,path,start\na,a.mp4,"1,5"\n', "line 2, column start: '1,5' is not"),
        ("clip_id,path,label\na,a.mp4,3.5\n", "line 2, column label: '3.5' is not the index of a class"),
        ("clip_id,path,label\na,a.mp4,1_0\n", "column label: '1_0' is not"),
        ("clip_id,path,frames\na,a.mp4,-3\n", "column frames: '-3' is not a count of frames"),
        ("clip_id,path,fps\na,a.mp4,²\n", "column fps: '²' is not a frame rate"),
        ("clip_id,path,part\na,a.mp4,val\n", "line 2, column part: 'val' is no part; write train, test, both"),
        ("clip_id,path,sha256\na,a.mp4,12\n", "line 2, column sha256: a sha256 has 64 hex digits"),
        ("clip_id,path\na,../a.mp4\n", "line 2, column path: the path '../a.mp4' lies outside"),
        ("clip_id,path\na,x/../../a.mp4\n", "line 2, column path: .* lies outside"),
        ("clip_id,path\na,/etc/passwd\n", "line 2, column path: the path '/etc/passwd' lies outside"),
        ("clip_id,path\na,\n", "line 2, column path: .* names no file"),
        ("clip_id,path\n ,a.mp4\n", "line 2, column clip_id: the cell is empty"),
        ('clip_id,path\n"a\nb",a.mp4\n\n"a\nb",b.mp4\n', "line 5, column clip_id: .* occurs twice, first on line 2"),
        ("clip_id,path\na,a.mp4,c\n", "line 2, column 3: 'c' stands under no heading"),
        ("clip_id,path,path\na,a.mp4,c\n", "line 1, column 3: 'path' stands there twice"),
        ("id,path\na,a.mp4\n", "lacks the column clip_id; its header should be clip_id,path,start"),
        ("", "lacks the column clip_id"),
        ("\n\n\n", "lacks the column clip_id"),
        (b"clip_id,path\na,a\0.mp4\n", "line 2, character 4: there is a NUL"),
        (b"clip_id,path\ngr\xc3\xbcn,\xff.mp4\n", "line 2, character 6: the byte 0xff is no UTF-8, as the rest is"),
        (b"clip_id,path\na,\x81.mp4\n", "line 2, character 3: the text is neither UTF-8 nor Windows-1252"),
        (PLAIN.encode("utf-16")[:-1], "the text is not UTF-16, as it began"),
        ('clip_id,path\na,a.mp4\nb,"b.mp4\n', "line 3: the quotation marks are odd"),
        ('clip_id,path\na,"a"b.mp4\n', "line 2: the quotation marks are odd"),
        ("clip_id,path\na,a.mp4\nb," + "x" * 10_000_000 + "\n", f"line 3: a cell has more than {LONGEST_CELL} char"),
        ("clip_id,path," + "x," * 10_000 + "\n", "more than 10000 columns|'x' stands there twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, content, message):
    with pytest.raises(PosebridgeError, match=message) as error:
        read_clips(table(tmp_path, content))
    assert len(str(error.value)) < 600 and "\n" not in str(error.value).replace("\\n", "")


def test_a_list_is_no_folder_no_pipe_and_not_too_large(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(PosebridgeError, match="no file"):
        read_clips(tmp_path / "pipe.csv")
    with pytest.raises(PosebridgeError, match="no file"):
        read_clips(tmp_path)
    with pytest.raises(PosebridgeError, match=f"missing; make it with `posebridge ingest --dataset {tmp_path.name}`"):
        read_clips(tmp_path / "none.csv")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PosebridgeError, match="no file of ours"):
        read_clips(tmp_path / "large.csv")


def test_labels_are_classes_that_there_are(tmp_path):
    path = table(tmp_path, "clip_id,path,label\na,a.mp4,5\n")
    assert read_clips(path, classes=6)[0].label == 5
    with pytest.raises(PosebridgeError, match="line 2, column label: '5' is not the index of a class, 0 or more, at m"):
        read_clips(path, classes=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,name\n0,a\n2,b\n", "line 3, column index: index '2' should be 1"),
        ("index,name\n0,a\n1,a\n", "line 3, column name: the class name 'a' occurs twice"),
        ("index,name\n0,\n", "line 2, column name: the cell is empty"),
        ("index,name\nx,a\n", "line 2, column index: 'x' is not a whole number"),
    ],
)
def test_classes_run_from_zero_and_differ(tmp_path, content, message):
    with pytest.raises(PosebridgeError, match=message):
        read_classes(table(tmp_path, content))
    assert read_classes(table(tmp_path, "index;name\r\n0.0;grün\r\n1;\"a;b\"\r\n".encode("cp1252"))) == ["grün", "a;b"]


def test_a_sentence_stays_one_however_long_a_cell_is(tmp_path):
    name = "x" * 100_000
    with pytest.raises(PosebridgeError, match=r"line 3, column name: .* \.\.\. .*occurs twice; make it") as error:
        read_classes(table(tmp_path, f"index,name\n0,{name}\n1,{name}\n"))
    assert len(str(error.value)) < 2000


def test_every_column_of_a_clip_is_read_as_it_was_written(tmp_path):
    whole = Clip("a", "b/a.mp4", 1.5, 2.25, 3, "Ann", "left", "test", "0f" * 32, 29.97, 48, 1080, 1920)
    path = write_clips(tmp_path / "clips.csv", [whole, Clip("empty", "c.mp4")])
    assert path.read_text().splitlines()[1] == f"a,b/a.mp4,1.5,2.25,3,Ann,left,test,{'0f' * 32},29.97,48,1080,1920"
    assert read_clips(path) == [whole, Clip("empty", "c.mp4")]


def test_what_is_written_is_read_again(tmp_path):
    names = ["a,b", 'say "a"', "line\nend", "line\rend", " blank ", "sep=;", "é", "-a", "12:30 squat"]
    path = write_clips(
        tmp_path / "m" / "clips.csv",
        [Clip(name, f"{name}.mp4", start=0.1 + 0.2, label=k) for k, name in enumerate(names)],
        {"a,b": {"note": "one\ntwo"}},
    )
    assert [(c.clip_id, c.path, c.label) for c in read_clips(path)] == [(n, f"{n}.mp4", k) for k, n in enumerate(names)]
    assert next(iter(open_table(path, COLUMNS, ("note",)))).raw("note") == "one\ntwo"
    with pytest.raises(PosebridgeError, match="'x' cannot be listed in .*: the path '../x' lies outside"):
        write_clips(path, [Clip("x", "../x")])
    assert len(read_clips(path)) == len(names), "what is refused writes nothing"


def test_a_table_is_written_whole_or_not_at_all(tmp_path):
    path = write_table(tmp_path / "a.csv", ("a", "b"), [(1, None)])
    assert path.read_bytes() == b"a,b\n1,\n"

    def rows():
        yield (2, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, ("a", "b"), rows())
    assert path.read_bytes() == b"a,b\n1,\n" and list(tmp_path.iterdir()) == [path]
    longest = write_table(tmp_path / ("ü" * 127 + "x"), ("a",), [])
    assert longest.read_bytes() == b"a\n" and len(list(tmp_path.iterdir())) == 2
    (tmp_path / "file").touch()
    with pytest.raises(PosebridgeError, match="cannot be written"):
        write_table(tmp_path / "file" / "a.csv", ("a",), [])


def test_lines_of_a_text_are_those_of_its_line_ends(tmp_path):
    path = table(tmp_path, "a\u2028b\r\nc\rd".encode("utf-16"))
    assert read_lines(path, "write it") == ["a\u2028b", "c", "d"]


@pytest.mark.skipif(not FAULTS.is_dir(), reason=f"the odd tables are not at {FAULTS}")
def test_the_odd_tables_give_the_right_answers():
    assert read_clips(FAULTS / "clips.csv") == [Clip("ok", "ok.mp4")]
    for name in ("bom.csv", "semi.csv", "nl.csv"):
        assert read_clips(FAULTS / name) == [Clip("a", "a.mp4", part="train")], name
    assert read_clips(FAULTS / "float.csv") == [Clip("a", "a.mp4", label=3, frames=60)]
    with pytest.raises(PosebridgeError, match=r"nan.csv, line 2, column start: 'nan' is not a time in seconds"):
        read_clips(FAULTS / "nan.csv")

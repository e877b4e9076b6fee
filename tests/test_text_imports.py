"""Class texts of others: three forms, into a variant of its own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from pipeline.manifest.clips import write_classes
from pipeline.manifest.texts import read_texts, texts_path
from pipeline.text.bank import load_bank, make_bank
from pipeline.text.imports import PURLS_SLOTS, import_texts
from stages.cli import main

pytestmark = pytest.mark.unit
NAMES = ["drink water", "throw", "sit down"]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    write_classes(tmp_path / "d" / "classes.csv", NAMES)
    (tmp_path / "d" / "texts.csv").write_text("index,slot,text\n0,label,ours\n1,label,ours too\n2,label,ours as well\n")
    return tmp_path


def texts_of(manifests: Path, variant: str) -> dict[tuple[int, str], str]:
    return read_texts(texts_path(manifests / "d", variant), NAMES)[1]


def write_rows(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheet programs save it
        csv.writer(file).writerows(rows)
    return path


def purls_rows() -> list[list[str]]:
    header = ["Action", "Head", "Hands", "Torso", "Legs", "Start", "Middle", "End", "Global"]
    return [header, *([name.title(), *(f"{part} of {name}, \"quoted\"" for part in PURLS_SLOTS)] for name in NAMES)]


def test_one_line_a_class(manifests):
    file = manifests / "t.txt"
    file.write_text("raises a cup\nthrows, far\nsits\n\n", encoding="utf-8")
    path = import_texts("d", "theirs", file, "lines", manifests=manifests)
    assert path.name == "texts.theirs.csv" and "ours" in (manifests / "d" / "texts.csv").read_text()
    found = texts_of(manifests, "theirs")
    assert found[1, "one_line"] == "throws, far" and found[1, "label"] == "throw" and len(found) == 6
    file.write_text("raises a cup\n\nsits\n")
    with pytest.raises(PosebridgeError, match="line 2: the text of 'throw' is empty"):
        import_texts("d", "theirs", file, "lines", manifests=manifests)
    file.write_text("raises a cup\n")
    with pytest.raises(PosebridgeError, match="1 lines for 3 classes"):
        import_texts("d", "theirs", file, "lines", manifests=manifests)


def test_the_purls_spreadsheet_in_any_order_of_rows(manifests):
    rows = purls_rows()
    file = write_rows(manifests / "p.csv", [rows[0], rows[2], rows[3], rows[1]])
    import_texts("d", "purls", file, "purls", manifests=manifests)
    found = texts_of(manifests, "purls")
    assert found[0, "hands"] == 'hands of drink water, "quoted"' and len(found) == 3 * 9
    import_texts("d", "purls", write_rows(file, [row[1:] for row in rows]), "purls", manifests=manifests)
    assert texts_of(manifests, "purls") == found, "without names the order of classes.csv"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: [rows[0], *rows[2:]], "no row for the class 'drink water'"),
        (lambda rows: [*rows, rows[1]], "line 5: 'drink water' is there twice"),
        (lambda rows: [rows[0], ["dance", *rows[1][1:]], *rows[2:]], "line 2: 'dance' is not a class"),
        (lambda rows: [row[:-1] for row in rows], "no column for global"),
        (lambda rows: [*rows[:3], [*rows[3][:4], "", *rows[3][5:]]], "line 4: 'sit down' has no text for legs"),
        (lambda rows: [row[1:] for row in rows[:3]], "2 rows for 3 classes and no column `class`"),
    ],
)
def test_a_spreadsheet_that_does_not_fit_is_refused(manifests, change, match):
    file = write_rows(manifests / "p.csv", change(purls_rows()))
    with pytest.raises(PosebridgeError, match=match):
        import_texts("d", "purls", file, "purls", manifests=manifests)
    assert not (manifests / "d" / "texts.purls.csv").exists()


@pytest.mark.parametrize("content", ["", "\n\n", "Head"])
def test_a_spreadsheet_of_nothing_is_refused(manifests, content):
    (manifests / "p.csv").write_text(content)
    with pytest.raises(PosebridgeError, match="p.csv has no column for h"):
        import_texts("d", "purls", manifests / "p.csv", "purls", manifests=manifests)


def test_lines_are_a_slot_that_has_a_name(manifests):
    (manifests / "t.txt").write_text("raises a cup\nthrows\nsits\n")
    import_texts("d", "v", manifests / "t.txt", "lines", slot=" label ", manifests=manifests)
    assert texts_of(manifests, "v") == {(0, "label"): "raises a cup", (1, "label"): "throws", (2, "label"): "sits"}
    with pytest.raises(PosebridgeError, match="name it"):
        import_texts("d", "v", manifests / "t.txt", "lines", slot=" ", manifests=manifests)


def test_csv_by_index_and_slot(manifests):
    rows = [[str(i), "global", f"g{i}"] for i in range(3)]
    file = write_rows(manifests / "c.csv", [["index", "slot", "text"], *rows])
    import_texts("d", "v", file, "csv", manifests=manifests)
    assert texts_of(manifests, "v")[2, "global"] == "g2" and texts_of(manifests, "v")[2, "label"] == "sit down"
    with pytest.raises(PosebridgeError, match="'3' is not an index of classes.csv"):
        write_rows(file, [["index", "slot", "text"], ["3", "global", "x"]])
        import_texts("d", "v", file, "csv", manifests=manifests)
    for bad in ("../x", "a.b", ""):
        with pytest.raises(PosebridgeError, match="letters, digits"):
            import_texts("d", bad, file, "csv", manifests=manifests)
    with pytest.raises(PosebridgeError, match="missing; name a file"):
        import_texts("d", "v", manifests / "none.csv", "lines", manifests=manifests)
    (manifests / "x.xlsx").write_bytes(b"PK\x03\x04\x14\x00")
    with pytest.raises(PosebridgeError, match="a spreadsheet's own file, no text; save the spreadsheet as CSV"):
        import_texts("d", "v", manifests / "x.xlsx", "purls", manifests=manifests)


def test_the_command_imports_and_embeds_under_a_name_of_its_own(manifests, monkeypatch):
    folder = manifests / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "manifests").symlink_to(manifests)
    (folder / "params.yaml").write_text("text: {encoder: minilm}\n")
    (folder / "t.txt").write_text("raises a cup\nthrows it\nsits\n")
    arguments = ["text", "--dataset", "d", "--from", "t.txt", "--form", "lines", "--variant", "theirs"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "cache/text/minilm@theirs/d.h5" in done.output, done.output
    ours = make_bank("d", "minilm")
    assert ours == Path("cache/text/minilm/d.h5")
    bank, other = load_bank("d", "minilm@theirs", NAMES), load_bank("d", "minilm", NAMES)
    assert "one_line" in bank.slots and "one_line" not in other.slots and bank.encoder_sha256 == other.encoder_sha256
    assert CliRunner().invoke(main, arguments[:5]).exit_code == 2, "--from needs --form"


def test_an_at_in_the_path_of_an_encoder_is_no_variant(manifests, monkeypatch):
    monkeypatch.chdir(manifests)
    Path("manifests").symlink_to(manifests)
    monkeypatch.setattr("pipeline.text.bank.make_bank", lambda *about, **more: Path("bank.h5"))
    for encoder in ("/home/me@lab/encoder", "minilm"):
        done = CliRunner().invoke(main, ["text", "--dataset", "d", "--encoder", encoder])
        assert done.exit_code == 0, done.output

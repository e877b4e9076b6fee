"""`posebridge protocol`: unseen classes by lot or by name, and the validation classes that go with them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.manifest.clips import write_classes
from pipeline.protocol.draw import make_protocol
from pipeline.protocol.splits import read_split
from stages.cli import main

pytestmark = pytest.mark.unit
NAMES = ["sit, stand", "wave", "5", "kick", *(f"action {i}" for i in range(20))]


@pytest.fixture
def make(tmp_path: Path):
    write_classes(tmp_path / "mine/classes.csv", NAMES)
    return lambda unseen, **options: make_protocol("mine", unseen, manifests=tmp_path, **options)[1]


def test_a_number_is_drawn_by_the_seed_and_named_after_it(make, tmp_path: Path) -> None:
    split = make("5", seed=3)
    assert split.protocol == "seed3_19_5"
    assert split.unseen == tuple(sorted(random.Random(3).sample(range(24), 5)))
    assert split.validation == tuple(sorted(random.Random(sum(split.unseen)).sample(split.seen, 3)))
    assert read_split(tmp_path / "mine/protocols", "seed3_19_5", NAMES) == split
    assert make("5", seed=4).unseen != split.unseen


def test_names_may_have_commas_and_be_numbers(make) -> None:
    assert make("sit, stand").unseen == (0,)
    assert make('"sit, stand", wave').unseen == (0, 1)
    assert make('"5"', name="five").unseen == (2,) and make("wave,kick", name="two").unseen == (1, 3)


@pytest.mark.parametrize(
    ("unseen", "options", "sentence"),
    [
        ("wafe", {}, "There is no class 'wafe' to be unseen; did you mean 'wave'?"),
        ("", {}, "No class would be unseen"),
        ("0", {}, "No class would be unseen"),
        ("21", {}, "With 21 unseen, 25 classes are needed, 2 of them to choose values on and 2 to train on"),
        ("5", {"name": "../x"}, "cannot be the name of a protocol"),
        ("5", {"name": "mine_20_4"}, "which is not 20 seen and 4 unseen"),
    ],
)
def test_what_cannot_be_leaves_no_file(make, tmp_path: Path, unseen: str, options: dict, sentence: str) -> None:
    with pytest.raises(PosebridgeError, match=sentence.replace("?", r"\?").replace("(", r"\(")):
        make(unseen, **options)
    assert not list(tmp_path.rglob("*.txt"))


def test_one_that_cannot_be_written_whole_leaves_no_file(make, tmp_path: Path, monkeypatch) -> None:
    written = []

    def full(path: Path, content: bytes) -> None:
        if written:
            raise PosebridgeError("No space left.")
        write_for_people(path, content)
        written.append(path.name)

    monkeypatch.setattr("pipeline.protocol.draw.write_for_people", full)
    with pytest.raises(PosebridgeError, match="No space left"):
        make("2", name="first")
    assert written == ["first.val.txt"], "by itself it is no protocol yet, should we be killed here"
    assert not list(tmp_path.rglob("*.txt"))


def test_a_protocol_that_is_there_stays(make, tmp_path: Path) -> None:
    make("2", name="first")
    before = (tmp_path / "mine/protocols/first.txt").read_bytes()
    with pytest.raises(PosebridgeError, match=r"first\.txt is there already; choose another name with --name"):
        make("3", name="first")
    assert (tmp_path / "mine/protocols/first.txt").read_bytes() == before


def test_the_command_tells_what_is_unseen(make, tmp_path: Path) -> None:
    words = ["protocol", "--dataset", "mine", "--unseen", "kick, wave", "--manifests", str(tmp_path), "--json"]
    told = json.loads(CliRunner().invoke(main, words).stdout)
    assert told["protocol"] == "chosen_22_2" and told["unseen"] == ["wave", "kick"] and len(told["validation"]) == 3 - 1

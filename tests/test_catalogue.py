"""The committed manifests of skelgap say what the catalogue says, and their texts are worth reading."""

from __future__ import annotations

import csv
import difflib
import itertools
from pathlib import Path

import pytest

from pipeline.manifest.clips import read_classes
from pipeline.protocol.ceiling import read_attributes
from pipeline.synth.catalogue import DATASETS, PROTOCOLS

pytestmark = pytest.mark.unit
MANIFESTS = Path(__file__).parent.parent / "manifests"
DESCRIPTIONS = ("head", "hands", "torso", "legs", "start", "middle", "end", "global")
SLOTS = ("label", "one_line", *DESCRIPTIONS, "environment", "used_object", "target_object", "key_parts")
BODY_PARTS = {"head", "hands", "arms", "torso", "legs", "hips", "feet"}
EACH_DATASET = pytest.mark.parametrize("dataset", list(DATASETS))
EACH_PROTOCOL = pytest.mark.parametrize(
    ("dataset", "protocol"), [(dataset, name) for dataset, named in PROTOCOLS.items() for name in named]
)


def read_texts(dataset: str) -> list[dict[str, str]]:
    """One dict slot -> text per class, in the order of the file."""
    with (MANIFESTS / dataset / "texts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    grouped = [list(group) for _, group in itertools.groupby(rows, key=lambda row: int(row["index"]))]
    assert [int(group[0]["index"]) for group in grouped] == list(range(len(grouped)))
    assert all(tuple(row["slot"] for row in group) == SLOTS for group in grouped)
    return [{row["slot"]: row["text"] for row in group} for group in grouped]


def read_listed(path: Path) -> list[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    for title in ("# Source:", "# Validates:"):
        assert any(line.startswith(title) for line in lines), f"{path} lacks its line {title}"
    pairs = (line.split(" ", 1) for line in lines if line and not line.startswith("#"))
    return [(int(index), name) for index, name in pairs]


@EACH_DATASET
def test_classes_and_attributes_are_the_catalogue(dataset: str) -> None:
    actions = DATASETS[dataset]
    assert read_classes(MANIFESTS / dataset / "classes.csv") == [action.name for action in actions]
    expected = {index: (action.motion, action.object) for index, action in enumerate(actions)}
    assert read_attributes(MANIFESTS / dataset / "attributes.csv") == expected


def test_sizes() -> None:
    assert (len(DATASETS["skelgap"]), len(DATASETS["skelgap-mini"])) == (40, 24)
    assert len({action.motion for action in DATASETS["skelgap"]}) >= 10
    assert len({action.object for action in DATASETS["skelgap"]} - {"none"}) >= 12


@EACH_PROTOCOL
def test_protocol_files_are_the_definitions(dataset: str, protocol: str) -> None:
    names, split = [action.name for action in DATASETS[dataset]], PROTOCOLS[dataset][protocol]
    folder = MANIFESTS / dataset / "protocols"
    assert read_listed(folder / f"{protocol}.txt") == [(names.index(name), name) for name in split.unseen]
    assert read_listed(folder / f"{protocol}.val.txt") == [(names.index(name), name) for name in split.validation]
    assert not set(split.unseen) & set(split.validation)


@EACH_PROTOCOL
def test_held_out_classes_recombine_what_the_protocol_says(dataset: str, protocol: str) -> None:
    """Motions of unseen classes are always seen. Their objects are seen, but never with that motion; in a novel-object
    protocol never at all. The same holds of the validation classes among the other seen ones.
    """
    split, actions = PROTOCOLS[dataset][protocol], DATASETS[dataset]
    for held_out in (set(split.unseen), set(split.unseen) | set(split.validation)):
        kept = [action for action in actions if action.name not in held_out]
        for action in (action for action in actions if action.name in held_out):
            assert action.object != "none"
            assert action.motion in {other.motion for other in kept}
            assert (action.object in {other.object for other in kept}) != protocol.startswith("novel_object")
            assert (action.motion, action.object) not in {(other.motion, other.object) for other in kept}


def test_in_motion_only_the_held_out_classes_differ_in_motion() -> None:
    split, actions = PROTOCOLS["skelgap"]["motion_only"], {action.name: action for action in DATASETS["skelgap"]}
    for held_out in (split.unseen, split.validation):
        assert len({actions[name].object for name in held_out}) == 1
        assert len({actions[name].motion for name in held_out}) == len(held_out)


@EACH_DATASET
def test_texts_fill_every_slot(dataset: str) -> None:
    texts = read_texts(dataset)
    assert len(texts) == len(DATASETS[dataset])
    for action, slots in zip(DATASETS[dataset], texts, strict=True):
        assert all(text.strip() == text and text for text in slots.values()), action.name
        for slot in DESCRIPTIONS:
            assert 5 <= len(slots[slot].split()) <= 25, (action.name, slot)
        assert len(slots["one_line"].split()) >= 5
        assert set(slots["key_parts"].split(";")) <= BODY_PARTS, action.name
        assert len(slots["environment"].split()) == 1, "one word, so that a language model can be asked for it"
        assert slots["used_object"] == action.object
        if action.object != "none":
            spoken = ("label", "one_line", "hands", "start", "global")
            assert sum(action.object in slots[slot] for slot in spoken) >= 4, f"{action.name}: name the object"


@EACH_DATASET
def test_slots_of_a_class_differ(dataset: str) -> None:
    for action, slots in zip(DATASETS[dataset], read_texts(dataset), strict=True):
        for one, other in itertools.combinations(("one_line", *DESCRIPTIONS), 2):
            alike = difflib.SequenceMatcher(None, slots[one], slots[other]).ratio()
            assert alike < 0.9, (action.name, one, other)


@EACH_DATASET
def test_descriptions_are_no_template(dataset: str) -> None:
    """With the object's name taken out, no two classes have the same text, in any of the eight slots."""
    actions, texts = DATASETS[dataset], read_texts(dataset)
    for slot in DESCRIPTIONS:
        bare = [text[slot].replace(action.object, "") for action, text in zip(actions, texts, strict=True)]
        for (one, text_one), (other, text_other) in itertools.combinations(enumerate(bare), 2):
            matcher = difflib.SequenceMatcher(None, text_one, text_other)
            if matcher.real_quick_ratio() > 0.92 and matcher.quick_ratio() > 0.92:
                assert matcher.ratio() <= 0.92, (slot, actions[one].name, actions[other].name, text_one, text_other)


def test_both_sizes_have_the_same_words() -> None:
    big, mini = read_texts("skelgap"), read_texts("skelgap-mini")
    assert mini == [big[DATASETS["skelgap"].index(action)] for action in DATASETS["skelgap-mini"]]

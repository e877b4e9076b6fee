"""The committed manifests of the published data sets: classes, protocols with their sources, and texts."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

import pytest

from pipeline.manifest.check_texts import SLOTS, check_texts
from pipeline.manifest.clips import read_classes, write_classes
from pipeline.manifest.texts import read_texts
from pipeline.protocol.across import SAME_NAMES, merge_classes, plain, read_same_names
from pipeline.protocol.draw import make_across
from pipeline.protocol.splits import Split, read_split

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent
MANIFESTS = ROOT / "manifests"
PUBLISHED = ROOT.parent / "shared" / "protocols"

CLASS_COUNTS = {
    "ntu60": 60,
    "ntu120": 120,
    "pku_mmd": 51,
    "kinetics200": 200,
    "kinetics400": 400,
    "nw_ucla": 10,
    "utd_mhad": 27,
    "uwa3dii": 30,
    "ut_interaction": 6,
}
CLASS_NAMES = {dataset: read_classes(MANIFESTS / dataset / "classes.csv") for dataset in CLASS_COUNTS}
PROTOCOLS = [
    (dataset, path.stem)
    for dataset in CLASS_COUNTS
    for path in sorted((MANIFESTS / dataset / "protocols").glob("*.txt"))
    if not path.stem.endswith(".val")
]
# skelgap's texts differ by one word on purpose; tests/test_catalogue.py checks them.
TEXTS = [dataset for dataset in CLASS_COUNTS if (MANIFESTS / dataset / "texts.csv").is_file()]
NEEDS_PUBLISHED = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published lists are not at {PUBLISHED}")
EACH_PROTOCOL = pytest.mark.parametrize(("dataset", "protocol"), PROTOCOLS)


ACROSS = [("ntu120", "from_ntu60", 60), ("nw_ucla", "from_ntu60", 5), ("pku_mmd", "from_ntu60", 3)]


def split_of(dataset: str, protocol: str) -> Split:
    return read_split(MANIFESTS / dataset / "protocols", protocol, CLASS_NAMES[dataset])


def head_of(dataset: str, file: str) -> str:
    """The `#` lines of a protocol file."""
    lines = (MANIFESTS / dataset / "protocols" / file).read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if line.startswith("#"))


def texts_of(dataset: str) -> dict[tuple[int, str], str]:
    folder = MANIFESTS / dataset
    return read_texts(folder / "texts.csv", read_classes(folder / "classes.csv"))[1]


# Classes


def test_class_counts() -> None:
    assert {dataset: len(names) for dataset, names in CLASS_NAMES.items()} == CLASS_COUNTS


@pytest.mark.parametrize(("part", "whole"), [("ntu60", "ntu120"), ("kinetics200", "kinetics400")])
def test_a_part_has_the_first_classes_of_the_whole(part: str, whole: str) -> None:
    count = CLASS_COUNTS[part]
    assert CLASS_NAMES[part] == CLASS_NAMES[whole][:count]
    if part in TEXTS and whole in TEXTS:
        assert texts_of(part) == {key: text for key, text in texts_of(whole).items() if key[0] < count}


# Protocols


def test_every_published_split_is_there() -> None:
    assert len([1 for dataset, _ in PROTOCOLS if dataset == "ut_interaction"]) == 15 + 1
    assert {dataset for dataset, protocol in PROTOCOLS if protocol == "all_seen"} == set(CLASS_COUNTS)
    assert len(PROTOCOLS) == 71 + len(ACROSS)


@EACH_PROTOCOL
def test_protocol_is_complete(dataset: str, protocol: str) -> None:
    """read_split has checked: 0-based, names as in classes.csv, nothing twice, validation inside the seen classes."""
    split = split_of(dataset, protocol)
    assert sorted(split.seen + split.unseen) == list(range(len(split.class_names)))
    assert split.class_names[: CLASS_COUNTS[dataset]] == tuple(CLASS_NAMES[dataset])
    assert set(split.validation) <= set(split.seen)

    head = head_of(dataset, f"{protocol}.txt")
    assert f"# Counts: {len(split.seen)} seen, {len(split.unseen)} unseen." in head.splitlines()
    assert head.startswith(f"# {dataset}, ") and "\n# Source: " in head and "\n# Validates: " in head
    if named := re.fullmatch(r"[a-z]+_(\d+)_(\d+)", protocol):
        assert (len(split.seen), len(split.unseen)) == (int(named[1]), int(named[2]))


@EACH_PROTOCOL
def test_validation_classes_are_the_published_or_the_drawn_ones(dataset: str, protocol: str) -> None:
    split, head = split_of(dataset, protocol), head_of(dataset, f"{protocol}.val.txt")
    if "# Source: published;" in head:
        assert protocol.startswith("synse_") and len(split.validation) == len(split.unseen)
        return
    sixth = len(split.seen) // 6
    seed, count = sum(split.unseen), max(2, min(len(split.unseen) or sixth, sixth))
    assert f"random.Random({seed}).sample(seen, {count})" in head
    assert list(split.validation) == sorted(random.Random(seed).sample(split.seen, count))


@pytest.mark.parametrize(("dataset", "protocol", "count"), ACROSS)
def test_across_data_sets_no_unseen_class_has_a_name_or_a_description_that_is_trained_on(
    dataset: str, protocol: str, count: int, tmp_path: Path
) -> None:
    split = split_of(dataset, protocol)
    assert len(split.unseen) == count and split.trains_on == "ntu60" and split.merged
    assert set(split.seen) == set(split.merged.of_training)
    own, trained = texts_of(dataset), texts_of(split.trains_on)
    for slot in ("label", "one_line", "global"):
        known = {text for (_, each), text in trained.items() if each == slot}
        assert not known & {own[index, slot] for index in split.unseen}
    folder = tmp_path / "manifests"
    for name in (dataset, "ntu60"):
        write_classes(folder / name / "classes.csv", CLASS_NAMES[name])
    (folder / SAME_NAMES).write_bytes((MANIFESTS / SAME_NAMES).read_bytes())
    path, _ = make_across(dataset, "ntu60", manifests=folder)
    for suffix in (".txt", ".val.txt"):
        committed = MANIFESTS / dataset / "protocols" / f"{protocol}{suffix}"
        assert path.with_suffix(suffix).read_text() == committed.read_text(), "as `posebridge protocol` draws it"


def test_every_name_that_stands_for_another_is_a_class() -> None:
    known = {plain(name) for names in CLASS_NAMES.values() for name in names}
    same = read_same_names(MANIFESTS / SAME_NAMES)
    assert set(same) <= known and set(same.values()) <= known


def test_these_actions_are_one_by_their_words() -> None:
    """All that are, in all pairs of data sets: as many by an earlier rule of our own."""
    same, found = read_same_names(MANIFESTS / SAME_NAMES), set()
    key = lambda name: same.get(plain(name), plain(name))  # noqa: E731
    names = {folder.name: read_classes(folder / "classes.csv") for folder in MANIFESTS.iterdir() if folder.is_dir()}
    for (one, tested), (other, trained) in itertools.combinations(sorted(names.items()), 2):
        merged = merge_classes(one, tested, other, trained, same)
        found |= {
            f"{tested[place]} = {merged.training_names[merged.trained(place)]}"
            for place in merged.shared
            if key(tested[place]) != key(merged.training_names[merged.trained(place)])
        }
    assert found == {
        "Rope Climb = climbing a rope", "Walk = walking", "blowing nose = blow nose", "folding paper = fold paper",
        "finger snapping = snapping fingers", "jogging = Jog", "jump = jumping", "kick = kicking", "walk = walking",
        "opening bottle = open bottle", "pushing = Push", "shaking hands = hand shaking", "shaking head = shake head",
        "shooting basketball = Basketball shoot", "throwing ball = throw a ball", "tossing coin = toss a coin",
        "yawning = yawn",
    }  # fmt: skip


def test_ut_interaction_holds_out_every_pair() -> None:
    unseen = [split_of("ut_interaction", name).unseen for dataset, name in PROTOCOLS if dataset == "ut_interaction"]
    assert sorted(unseen) == [(), *((i, j) for i in range(6) for j in range(i + 1, 6))]


@pytest.mark.parametrize(
    ("one", "other"), [("star_46_5", "smie_1"), ("star_neuron_1", "smie_2"), ("star_neuron_2", "smie_3")]
)
def test_sources_that_share_a_list_agree(one: str, other: str) -> None:
    one_split, other_split = split_of("pku_mmd", one), split_of("pku_mmd", other)
    assert (one_split.unseen, one_split.validation) == (other_split.unseen, other_split.validation)


def published_lists() -> dict[tuple[str, str], list[int]]:
    """(dataset, file stem) -> class indices, from the lists that the protocols were transcribed from."""
    lists = json.loads((PUBLISHED / "unseen_splits.json").read_text(encoding="utf-8"))
    full = {"k200": "kinetics200", "k400": "kinetics400", "pku": "pku_mmd"}
    found: dict[tuple[str, str], list[int]] = {}
    for source, named in (("synse", "synse"), ("purls", "purls"), ("star", "star_pku")):
        for key, unseen in lists[named].items():
            dataset, counts = key.split("_", 1)
            found[full.get(dataset, dataset), f"{source}_{counts}"] = unseen
    for key, validation in lists["synse_val_pseudo_unseen"].items():
        dataset, counts = key.split("_", 1)
        found[dataset, f"synse_{counts}.val"] = validation
    for source, named in (("smie", "smie"), ("sa_dvae", "sa_dvae_random")):
        for dataset, splits in lists[named].items():
            found |= {(full.get(dataset, dataset), f"{source}_{k}"): split for k, split in enumerate(splits, start=1)}
    for k, unseen in enumerate(lists["star_neuron_random_pku"], start=1):
        found["pku_mmd", f"star_neuron_{k}"] = unseen
    for key, splits in lists["purls_small"].items():
        dataset = key.replace("-", "_")
        for count, unseen in splits.items():
            found[dataset, f"purls_{CLASS_COUNTS[dataset] - int(count)}_{count}"] = unseen
    return found


@NEEDS_PUBLISHED
def test_protocols_are_the_published_lists() -> None:
    published = published_lists()
    own = {"all_seen", *(protocol for _, protocol, _ in ACROSS)}
    ours = {(dataset, name) for dataset, name in PROTOCOLS if dataset != "ut_interaction" and name not in own}
    assert {key for key in published if not key[1].endswith(".val")} == ours
    for (dataset, name), indices in published.items():
        split = split_of(dataset, name.removesuffix(".val"))
        assert (split.validation if name.endswith(".val") else split.unseen) == tuple(sorted(indices)), (dataset, name)


@NEEDS_PUBLISHED
@pytest.mark.parametrize("dataset", ["ntu120", "pku_mmd", "kinetics400", "nw_ucla", "utd_mhad", "uwa3dii"])
def test_names_are_the_published_ones(dataset: str) -> None:
    file = {"pku_mmd": "pku51"}.get(dataset, dataset)
    names = (PUBLISHED / "class_names" / f"{file}.txt").read_text(encoding="utf-8").splitlines()
    if dataset == "uwa3dii":  # published twice as "sitting down"; names must differ
        names[27] += " (chair)"
    assert CLASS_NAMES[dataset] == names


# Texts


@pytest.mark.parametrize("dataset", TEXTS)
def test_texts_are_worth_training_on(dataset: str) -> None:
    names = read_classes(MANIFESTS / dataset / "classes.csv")
    assert check_texts(texts_of(dataset), names) == []


@pytest.mark.parametrize(
    ("dataset", "count"), [("ntu60", 60), ("pku_mmd", 48), ("nw_ucla", 5), ("utd_mhad", 9), ("uwa3dii", 10)]
)
def test_an_action_of_ntu_has_the_same_words_elsewhere(dataset: str, count: int) -> None:
    def by_label(dataset: str) -> dict[str, list[str]]:
        texts = texts_of(dataset)
        return {texts[i, "label"]: [texts[i, slot] for slot in SLOTS] for i in range(CLASS_COUNTS[dataset])}

    here, ntu = by_label(dataset), by_label("ntu120")
    shared = here.keys() & ntu.keys()
    assert len(shared) == count
    assert all(here[label] == ntu[label] for label in shared)


GOOD = {
    "label": "waving a flag",
    "one_line": "A person swings a flag to and fro above the head.",
    "head": "The chin is lifted and the eyes follow the cloth.",
    "hands": "One fist grips a pole and sweeps it sideways.",
    "torso": "The trunk leans against every swing of the pole.",
    "legs": "Feet are planted wide apart and knees give.",
    "start": "The pole stands upright beside the shoulder at first.",
    "middle": "Wide arcs lead from left to right and back.",
    "end": "The cloth sinks and hangs down to the ground.",
    "global": "Long slow arcs of a raised arm over a firm stance.",
    "environment": "stadium",
    "used_object": "flag",
    "target_object": "none",
    "key_parts": "arms;hands",
}
OTHER = {slot: " ".join(f"{word}_{slot}" for word in ("one", "two", "three", "four", "five")) for slot in SLOTS} | {
    "environment": "none",
    "used_object": "none",
    "target_object": "none",
    "key_parts": "head",
}


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, None),
        ({"legs": ""}, "'other' has no text in the slot 'legs'."),
        ({"legs": "Feet stand still."}, "'other', legs: 3 words, not 5 to 25."),
        ({"environment": "a very big and loud stadium"}, "'other', environment: 6 words, not 1 to 5."),
        ({"key_parts": "arms;tail"}, "'other', key_parts: 'arms;tail' is not"),
        ({"start": OTHER["end"]}, "'other': the slots start and end say the same."),
        ({"head": GOOD["head"] + " Slowly."}, "'flag' and 'other' say the same in the slot head."),
        ({"label": GOOD["label"]}, "'flag' and 'other' have the same label."),
        ({"mood": "joyful"}, "Class 1, slot 'mood': there is no such class or slot."),
    ],
)
def test_the_checker_finds_a_fault(change: dict[str, str], finding: str | None) -> None:
    classes = [GOOD, OTHER | change]
    texts = {(index, slot): text for index, slots in enumerate(classes) for slot, text in slots.items()}
    found = check_texts(texts, ["flag", "other"])
    assert [sentence[: len(finding or "")] for sentence in found if finding] == ([finding] if finding else [])
    assert bool(found) == bool(finding)


def test_the_checker_sees_through_a_template() -> None:
    names = ["drumming", "juggling"]
    texts = {(index, "head"): f"While {name} the head is held high." for index, name in enumerate(names)}
    assert "'drumming' and 'juggling' say the same in the slot head." in check_texts(texts, names)

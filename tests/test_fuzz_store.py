"""Random damage to a store and its index: a sentence or the true result, never a traceback, a hang or a wrong result.

What is tried: bits turned around, bytes cut off, taken out and put in, in every file of a store, read as `train`,
`evaluate`, `extract` and `cache verify`, `ls`, `stats` and `gc` do; and odd values in files that are sealed again.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cache import make_store

from pipeline.cache.garbage import find_garbage
from pipeline.cache.inventory import statistics, summary
from pipeline.cache.reader import CacheReader
from pipeline.cache.sealed import canonical_json, seal
from pipeline.cache.store import open_store
from pipeline.cache.verify import verify_index, verify_store
from pipeline.errors import PosebridgeError

pytestmark = pytest.mark.fault
FILES = ("index", "layout", "recipe", "receipt", "shard")
BOUNDED = settings(
    max_examples=200,
    deadline=timedelta(seconds=10),
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class World:
    """A store, its index, and what is in it."""

    def __init__(self, folder: Path):
        self.root = folder
        self.store, self.index, self.rows = make_store(folder)
        shard = json.loads(self.index.read_bytes())["shards"][0]["file"]
        self.paths = {
            "index": self.index,
            "layout": self.store.folder / "layout.json",
            "recipe": self.store.folder / "recipe.json",
            "receipt": self.store.stem(0).with_suffix(".json"),
            "shard": self.store.folder / shard,
        }
        self.whole = {kind: path.read_bytes() for kind, path in self.paths.items()}

    def damage(self, kind: str, content: bytes) -> None:
        """Put a file's damaged content in the place of the true one, and all others' true ones."""
        for each, path in self.paths.items():
            if path.read_bytes() != (wanted := content if each == kind else self.whole[each]):
                path.write_bytes(wanted)

    def read(self, names: tuple[str, ...]) -> None:
        """Read all clips as stage two does. Raises PosebridgeError, or makes sure that what comes is true."""
        with CacheReader(self.index) as reader:
            assert sorted(reader.clip_ids) == sorted(self.rows)
            batch = reader.read(sorted(self.rows), names)
        for i, clip_id in enumerate(sorted(self.rows)):
            for name in names:
                true = np.asarray(self.rows[clip_id][name]).astype(batch[name].dtype)
                assert np.array_equal(batch[name][i], true), f"{name} of {clip_id} is wrong, and nobody says so"

    def look(self, kind: str, changed: bool) -> None:
        """Everything else that reads a store; whoever looks for damage finds it."""
        found = [*verify_store(self.store.folder), *verify_index(self.index, self.root / "store")]
        assert bool(found) == changed and all(problem.reason.endswith(".") for problem in found)
        for ask in (
            lambda: summary(self.store.folder),
            lambda: find_garbage(self.root / "store", self.root, []),
            lambda: self.store.receipt(0),
            lambda: open_store(self.store.folder).create(6, 3, 17, 5),
            lambda: statistics(CacheReader(self.index)),
        ):
            try:
                ask()
            except PosebridgeError:
                assert changed


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzz"))


@st.composite
def damages(draw) -> tuple[str, list[tuple[str, float, int, int]]]:
    """A kind of file and some (what, where as a share of the file, byte, length)."""
    one = st.tuples(
        st.sampled_from(["flip", "set", "cut", "take", "put"]), st.floats(0, 1), st.integers(0, 255), st.integers(1, 40)
    )
    return draw(st.sampled_from(FILES)), draw(st.lists(one, min_size=1, max_size=3))


def apply(content: bytes, changes: list[tuple[str, float, int, int]]) -> bytes:
    """The content after these changes."""
    data = bytearray(content)
    for what, share, value, length in changes:
        place = min(int(share * len(data)), max(len(data) - 1, 0))
        if what == "cut":
            del data[place:]
        elif what == "take":
            del data[place : place + length]
        elif what == "put":
            data[place:place] = bytes([value]) * length
        elif data:
            data[place] = data[place] ^ (1 << value % 8) if what == "flip" else value
    return bytes(data)


def differs(content: bytes, whole: bytes) -> bool:
    """Whether a file says something else; one more blank in JSON does not."""
    try:
        return content != whole and json.loads(content) != json.loads(whole)
    except (ValueError, RecursionError):
        return True


def try_damage(world: World, kind: str, changes: list[tuple[str, float, int, int]], names: tuple[str, ...]) -> None:
    content = apply(world.whole[kind], changes)
    world.damage(kind, content)
    changed = differs(content, world.whole[kind])
    try:
        world.read(names)
    except PosebridgeError as error:
        assert changed and str(error).endswith(".") and "\n" not in str(error)
    world.look(kind, changed)


NAMES = st.sampled_from(
    [("keypoints", "scores", "person_valid"), ("cues", "cue_scores"), ("boxes", "timestamp", "video_fps")]
)


@BOUNDED
@given(damages(), NAMES)
def test_damage_is_a_sentence_or_does_no_harm(world, damage, names):
    try_damage(world, *damage, names)


@pytest.mark.slow
@settings(BOUNDED, max_examples=10_000)
@given(damages(), NAMES)
def test_damage_is_a_sentence_or_does_no_harm_10000(world, damage, names):
    try_damage(world, *damage, names)


PLACES = st.lists(st.integers(0, 40), max_size=5)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12),
    st.sampled_from(["../../x", "/etc/passwd", "", ".", "..", "\x00", 10**30, -1, [], {}, [[]], [{}], {"": None}]),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)  # fmt: skip


def put(values: object, places: list[int], value: object) -> object:
    """`values` with one of its parts, which the places lead to, replaced; or taken away, where `value` says so."""
    if not places or not isinstance(values, dict | list) or not values:
        return value
    keys = sorted(values) if isinstance(values, dict) else range(len(values))
    key = keys[places[0] % len(keys)]
    copy = values.copy()
    copy[key] = put(values[key], places[1:], value)
    return copy


def try_odd(world: World, kind: str, places: list[int], value: object, names: tuple[str, ...]) -> None:
    true = {key: part for key, part in json.loads(world.whole[kind]).items() if key != "self_sha256"}
    values = put(true, places, value)
    try:
        content = canonical_json(seal(values) if isinstance(values, dict) else values)
    except ValueError:  # half a surrogate pair
        return
    world.damage(kind, content)
    try:
        with CacheReader(world.index) as reader:
            reader.read(sorted(world.rows), names)
    except PosebridgeError as error:
        assert kind == "index" and "\n" not in str(error)
    verify_store(world.store.folder), verify_index(world.index, world.root / "store")
    for ask in (
        lambda: summary(world.store.folder),
        lambda: find_garbage(world.root / "store", world.root, []),
        lambda: open_store(world.store.folder).create(6, 3, 17, 5),
    ):
        try:
            ask()
        except PosebridgeError as error:
            assert "\n" not in str(error)


SEALED = st.sampled_from(FILES[:4])


@BOUNDED
@given(SEALED, PLACES, VALUES, NAMES)
def test_odd_values_in_sealed_files_are_a_sentence(world, kind, places, value, names):
    try_odd(world, kind, places, value, names)


@pytest.mark.slow
@settings(BOUNDED, max_examples=10_000)
@given(SEALED, PLACES, VALUES, NAMES)
def test_odd_values_in_sealed_files_are_a_sentence_10000(world, kind, places, value, names):
    try_odd(world, kind, places, value, names)

"""The rooms of pipeline/ stand in an order, and each imports only rooms before it: data goes through them one way."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
PIPELINE = Path(__file__).parent.parent / "pipeline"
ORDER = (
    "errors", "files", "recipe", "params", "executors", "manifest",
    "video", "cache", "ingest", "skeleton", "hpe", "tracking", "extract",
    "text", "protocol", "interchange", "methods", "learn", "report",
    "synth", "tune", "predict", "search", "gap", "doctor", "project", "bench",
)  # fmt: skip
FRONT_DOOR = {"__init__", "doctor", "errors", "params", "recipe"}  # files that lie in no folder


def room(module: str) -> str:
    """`hpe` of `pipeline.hpe.model`, `dataset` of `pipeline.learn.dataset`."""
    return module.split(".")[1]


def imported(source: str) -> set[str]:
    """The modules of pipeline/ that a file names in any import, late ones and those for types included."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "pipeline":
            found |= {f"pipeline.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline."):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pipeline.")}
    return found


def rooms() -> dict[str, set[str]]:
    """Room -> rooms that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PIPELINE.rglob("*.py"):
        here = path.relative_to(PIPELINE).with_suffix("").parts[0]
        found[here] |= {room(name) for name in imported(path.read_text(encoding="utf-8"))} - {here}
    return dict(found)


def out_of_order(needs: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(room, room that it imports and that does not stand before it)."""
    place = {name: number for number, name in enumerate(ORDER)}
    return [(name, other) for name, needed in needs.items() for other in sorted(needed) if place[other] >= place[name]]


def test_rooms_import_only_rooms_before_them():
    needs = rooms()
    del needs["__init__"]  # what a person's notebook imports: any room may be behind it
    assert sorted(needs) == sorted(ORDER)
    assert not out_of_order(needs)


def test_only_its_own_command_imports_what_measures():
    stages = {path.stem: path.read_text(encoding="utf-8") for path in (PIPELINE.parent / "stages").glob("*.py")}
    measuring = {name for name, text in stages.items() if "bench" in map(room, imported(text))}
    assert measuring == {"bench", "bench_accuracy", "bench_extraction", "bench_parts", "bench_taps"}


def test_no_room_knows_the_command_line():
    for path in PIPELINE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"stages", "click", "tqdm", "tests"}, path
            assert not (isinstance(node, ast.Name) and node.id == "print"), path


def test_only_the_front_door_lies_in_no_room():
    assert {path.stem for path in PIPELINE.glob("*.py")} == FRONT_DOOR


def test_a_step_back_is_found():
    assert out_of_order({"cache": {"learn", "files"}, "learn": {"cache"}}) == [("cache", "learn")]
    assert imported("def f():\n    from pipeline.hpe.model import x\n    import pipeline.cache.reader") == {
        "pipeline.hpe.model", "pipeline.cache.reader"
    }  # fmt: skip

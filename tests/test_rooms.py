"""The rooms of pipeline/ stand in an order, and each imports only rooms before it: data goes through them one way."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
PIPELINE = Path(__file__).parent.parent / "pipeline"
LAST = "benchmarks"  # measures all others, and so may be imported by none


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


def in_order(needs: dict[str, set[str]]) -> list[str]:
    """The rooms, each after all that it imports. Fails on a ring of rooms, naming it."""
    order: list[str] = []
    while left := {name: needed - set(order) for name, needed in needs.items() if name not in order}:
        ready = sorted(name for name, missing in left.items() if not missing)
        assert ready, f"these rooms import one another: {left}"
        order += ready
    return order


def test_rooms_import_only_rooms_before_them():
    needs = rooms()
    assert in_order(needs)[-1] == LAST and len(needs) > 30
    assert not [name for name, needed in needs.items() if LAST in needed]


def test_a_ring_is_found():
    with pytest.raises(AssertionError, match="import one another"):
        in_order({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert imported("def f():\n    from pipeline.hpe.model import x\n    import pipeline.cache.reader") == {
        "pipeline.hpe.model", "pipeline.cache.reader"
    }  # fmt: skip

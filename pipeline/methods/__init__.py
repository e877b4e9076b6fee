"""The methods of stage two, by name. A new method is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.methods.base import Method, Shapes
from pipeline.methods.posebridge import PoseBridge, Skeleton

METHODS: dict[str, type[PoseBridge]] = {"posebridge": PoseBridge, "skeleton": Skeleton}


def build_method(name: str, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> Method:
    """A method for `classes` training classes. Raises PosebridgeError for an unknown name or flag."""
    if name not in METHODS:
        raise PosebridgeError(f"There is no method named {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name](shapes, classes, flags)

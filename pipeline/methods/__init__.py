"""The methods of stage two, by name. A new method is one file and one line here."""

from __future__ import annotations

from pipeline.errors import PosebridgeError
from pipeline.methods.posebridge import PoseBridge, Skeleton

METHODS: dict[str, type[PoseBridge]] = {"posebridge": PoseBridge, "skeleton": Skeleton}


def find_method(name: str) -> type[PoseBridge]:
    """The class of a method; it is built with (shapes, number of training classes, flags)."""
    if name not in METHODS:
        raise PosebridgeError(f"There is no method named {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]

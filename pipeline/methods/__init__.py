"""The methods of stage two and the adaptations at test time, by name. A new one is one file and one line here."""

from __future__ import annotations

from pipeline.errors import PosebridgeError
from pipeline.methods.adaptation import Adaptation, PrototypeAlignment
from pipeline.methods.base import Method
from pipeline.methods.dynapurls import DynaPurls
from pipeline.methods.pgfa import PGFA
from pipeline.methods.posebridge import PoseBridge, Skeleton
from pipeline.methods.purls import Purls, PurlsMatched
from pipeline.methods.skeletoncontext import SkeletonContext

METHODS: dict[str, type[Method]] = {
    "posebridge": PoseBridge,
    "skeleton": Skeleton,
    "pgfa": PGFA,
    "purls": Purls,
    "purls_matched": PurlsMatched,
    "skeletoncontext": SkeletonContext,
}
ADAPTATIONS: dict[str, type[Adaptation]] = {"pgfa": PrototypeAlignment, "dynapurls": DynaPurls}


def find_method(name: str) -> type[Method]:
    """The class of a method; it is built with (shapes, number of training classes, flags)."""
    if name not in METHODS:
        raise PosebridgeError(f"There is no method named {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]


def find_adaptation(name: str) -> type[Adaptation]:
    """The class of an adaptation; it is built with a trained method."""
    if name not in ADAPTATIONS:
        raise PosebridgeError(f"There is no adaptation named {name!r}; there are {', '.join(ADAPTATIONS)}.")
    return ADAPTATIONS[name]

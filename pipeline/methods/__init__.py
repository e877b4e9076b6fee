"""The methods of stage two and the adaptations at test time, by name. A new one is one file and one line here.

Importing this loads no method and no PyTorch: what a line says can be asked without them, as the report does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import PosebridgeError

if TYPE_CHECKING:
    from pipeline.methods.adaptation import Adaptation
    from pipeline.methods.base import Method


class Known(NamedTuple):
    """A method: `module:class`; what its flag `cues` is by default, None for one that is never shown cues; and the
    least that it reads: pooled `features` of an encoder, its `map` over frames and joints, or `joints` themselves.
    """

    place: str
    cues: bool | None
    reads: str = "features"


METHODS = {
    "posebridge": Known("pipeline.methods.posebridge:PoseBridge", cues=True),
    "skeleton": Known("pipeline.methods.posebridge:Skeleton", cues=None),
    "cca": Known("pipeline.methods.cca:CCA", cues=True, reads="joints"),
    "pgfa": Known("pipeline.methods.pgfa:PGFA", cues=False, reads="joints"),
    "pgfa_frozen": Known("pipeline.methods.pgfa_frozen:PGFAFrozen", cues=None),
    "purls": Known("pipeline.methods.purls:Purls", cues=False, reads="map"),
    "purls_matched": Known("pipeline.methods.purls:PurlsMatched", cues=False, reads="map"),
    "skeletoncontext": Known("pipeline.methods.skeletoncontext:SkeletonContext", cues=False, reads="map"),
    "image_text": Known("pipeline.methods.image_text:ImageText", cues=True, reads="joints"),
}
ADAPTATIONS = {
    "pgfa": "pipeline.methods.adaptation:PrototypeAlignment",
    "dynapurls": "pipeline.methods.dynapurls:DynaPurls",
    "dynapurls_alternating": "pipeline.methods.dynapurls:DynaPurlsAlternating",
    "dynapurls_old_losses": "pipeline.methods.dynapurls:DynaPurlsOldLosses",
    "dynapurls_released": "pipeline.methods.dynapurls:DynaPurlsReleased",
}


def find_method(name: str) -> type[Method]:
    """The class of a method; it is built with (shapes, number of training classes, flags)."""
    return resolve_name(_known(name).place)


def takes_cues(name: str, flags: Mapping[str, Any]) -> bool:
    """Whether the method with these flags is shown cues at all; where not, none are read."""
    default = _known(name).cues
    return default is not None and bool(flags.get("cues", default))


def what_it_reads(name: str, flags: Mapping[str, Any]) -> str:
    """The least that the method with these flags reads; see `Known`. Without the skeleton any features will do."""
    return "features" if flags.get("skeleton") is False else _known(name).reads


def find_adaptation(name: str) -> type[Adaptation]:
    """The class of an adaptation; it is built with a trained method."""
    if name not in ADAPTATIONS:
        raise PosebridgeError(f"There is no adaptation named {name!r}; there are {', '.join(ADAPTATIONS)}.")
    return resolve_name(ADAPTATIONS[name])


def _known(name: str) -> Known:
    if name not in METHODS:
        raise PosebridgeError(f"There is no method named {name!r}; there are {', '.join(METHODS)}.")
    return METHODS[name]

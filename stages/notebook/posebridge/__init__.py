"""posebridge in a notebook, in the project's folder: tables are DataFrames, arrays are tensors (docs/notebook.md).

    import posebridge
    posebridge.results()  # every figure of every run
    posebridge.open_cache("mine", "tinypose")  # skeletons and cues of all clips
    posebridge.predict("clip.mp4", labels=["waving", "throwing"])
    posebridge.search("a person lifts a barbell")

Installed under the project's own name (pyproject.toml); what does the work is in `pipeline`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from posebridge.ours import require_ours

if TYPE_CHECKING:
    from pipeline.errors import PosebridgeError
    from pipeline.report.results import results
    from posebridge.cache import open_cache
    from posebridge.questions import predict, search

_PLACES = {
    "PosebridgeError": "pipeline.errors",
    "open_cache": "posebridge.cache",
    "predict": "posebridge.questions",
    "results": "pipeline.report.results",
    "search": "posebridge.questions",
}
__all__ = ["PosebridgeError", "open_cache", "predict", "results", "search"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and nothing before: torch alone takes seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module 'posebridge' has no attribute {name!r}")
    require_ours()
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

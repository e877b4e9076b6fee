"""Whether Python finds our packages `pipeline` and `stages`, whose names others use, too."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SIGNS = {"pipeline": "recipe.py", "stages": "shell.py"}  # a file that only ours has


def require_ours() -> None:
    """Raise ImportError, with the place and the remedy, where Python finds a package of that name that is another."""
    for name, sign in SIGNS.items():
        try:
            spec = find_spec(name)
        except ValueError:  # it is imported and has no spec
            spec = None
        places = list(spec.submodule_search_locations or [spec.origin]) if spec else []
        if not any(place and (Path(place) / sign).is_file() for place in places):
            found = f"finds another one at {places[0]}" if places else "finds none"
            raise ImportError(
                f"posebridge needs its own package `{name}`, but Python {found}; start Python in another folder, take "
                "that one off PYTHONPATH, or install posebridge into an environment of its own."
            )

"""posebridge in a notebook: `import posebridge; posebridge.results()`, in the project's folder.

Installed under the project's own name (pyproject.toml).
"""

from pipeline.report.results import results

__all__ = ["results"]

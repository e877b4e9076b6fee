"""What a person says to `init`, and what of it counts again when the folder is looked at once more.

Writes and reads manifests/<name>/init.csv (`option,value`), which is there where anything of it was said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.files.names import is_file, name_of, text_of
from pipeline.files.tables import open_table, write_table

INIT_CSV = "init.csv"


@dataclass(frozen=True)
class Asked:
    """What a person may say. Empty: `unseen` a fifth of the classes, by lot; `split_by` what the clips tell; `recipe`
    tinypose; `weights` and `detector` those of the recipe; `texts` all are drafts.
    """

    unseen: str = ""
    seed: int = 0
    labels: Path | None = None
    pattern: str = ""
    split_by: str = ""
    texts: Path | None = None
    recipe: str = ""
    weights: str = ""
    detector: str = ""
    image_fps: float | None = None


def write_asked(folder: Path, asked: Asked) -> None:
    """Keep how a folder of videos is listed and dealt; nothing is written where nothing is said of it."""
    labels = str(asked.labels.resolve()) if asked.labels else ""
    said = {"--labels": labels, "--pattern": asked.pattern, "--split-by": asked.split_by}
    rows = [(option, text_of(value)) for option, value in said.items() if value]
    if rows:
        write_table(folder / INIT_CSV, ("option", "value"), rows)


def as_before(asked: Asked, folder: Path) -> tuple[Asked, dict[str, str]]:
    """`asked` with what was said before and is not now, and that alone: option -> value. `--labels` and `--pattern` are
    two ways of one thing, so either counts over both.
    """
    before: dict[str, str] = {}
    if is_file(folder / INIT_CSV):
        table = open_table(folder / INIT_CSV, ("option", "value"))
        before = {row.needed("option"): name_of(row.raw("value")) for row in table}
    kept: dict[str, str] = {}
    if not (asked.labels or asked.pattern):
        kept = {option: before[option] for option in ("--labels", "--pattern") if option in before}
    if not asked.split_by and "--split-by" in before:
        kept["--split-by"] = before["--split-by"]
    labels = Path(kept["--labels"]) if "--labels" in kept else asked.labels
    now = replace(
        asked, labels=labels, pattern=kept.get("--pattern", asked.pattern),
        split_by=kept.get("--split-by", asked.split_by),
    )  # fmt: skip
    return now, kept

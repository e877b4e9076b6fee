"""What a seed said of each unseen test clip: predictions.csv, as `evaluate` wrote it beside metrics.json."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import Row, open_table
from pipeline.manifest.clips import MOST_CLASSES

COLUMNS = {"clip_id": str, "label": int, "predicted": int, "tuple": str, "rank": int}
NEEDED = list(COLUMNS)[:4]
NOTHING = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS).set_index("clip_id")


def read_answers(path: Path) -> pd.DataFrame:
    """By clip_id its `label`, the class `predicted`, the `tuple` that it shares with its twins, empty for a clip
    without, and the `rank` of its class: 1 where it is right, 0 where an earlier version did not tell. No rows where
    there is no such file.

    Raises PosebridgeError for a file of another form.
    """
    if not path.is_file():
        return NOTHING
    rows: dict[str, tuple[int, int, str, int]] = {}
    try:
        for row in open_table(path, NEEDED, ("rank",)):
            if row.raw("clip_id") in rows:
                raise row.wrong("clip_id", "the clip is there twice")
            rank = row.whole("rank", 0, MOST_CLASSES) or 0
            rows[row.raw("clip_id")] = _index(row, "label"), _index(row, "predicted"), row.raw("tuple"), rank
        return pd.DataFrame.from_dict(rows, "index", columns=list(NOTHING)).rename_axis("clip_id")
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None


def _index(row: Row, column: str) -> int:
    row.needed(column)
    return int(row.whole(column, 0, MOST_CLASSES) or 0)

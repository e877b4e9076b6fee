"""What a seed said of each unseen test clip: predictions.csv, as `evaluate` wrote it beside metrics.json."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.errors import PosebridgeError, reason_of
from pipeline.files.tables import Row, open_table
from pipeline.manifest.clips import MOST_CLASSES

COLUMNS = {"clip_id": str, "label": int, "predicted": int, "tuple": str}
NOTHING = pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS).set_index("clip_id")


def read_answers(path: Path) -> pd.DataFrame:
    """By clip_id its `label`, the class `predicted`, and the `tuple` that it shares with its twins, empty for a clip
    without. No rows where there is no such file.

    Raises PosebridgeError for a file of another form.
    """
    if not path.is_file():
        return NOTHING
    rows: dict[str, tuple[int, int, str]] = {}
    try:
        for row in open_table(path, list(COLUMNS)):
            if row.raw("clip_id") in rows:
                raise row.wrong("clip_id", "the clip is there twice")
            rows[row.raw("clip_id")] = _index(row, "label"), _index(row, "predicted"), row.raw("tuple")
        return pd.DataFrame.from_dict(rows, "index", columns=list(NOTHING)).rename_axis("clip_id")
    except PosebridgeError as error:
        why = reason_of(error, path)
        raise PosebridgeError(f"{path} is not as `posebridge evaluate` writes it ({why}); run it again.") from None


def _index(row: Row, column: str) -> int:
    row.needed(column)
    return int(row.whole(column, 0, MOST_CLASSES) or 0)

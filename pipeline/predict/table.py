"""The answers about many videos as one table that grows: a row as each video is done, or a row for each stretch of it.

Whoever is killed goes on where the table ends. Its last column tells what was asked, so that answers to two questions
never mix. Writes the table.
    posebridge predict folder/ --labels "pushing, hugging" --table answers.csv
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.files.durable import write_for_people, writing
from pipeline.files.tables import MOST_BYTES, open_table, table_line, write_table
from pipeline.predict.answers import Answered
from pipeline.predict.predict import told_shares
from pipeline.predict.timeline import HEADER
from pipeline.predict.timeline import cells as cells_of

COLUMNS = (*HEADER, "shares", "asked")


class AnswerTable:
    """Opens a table or begins one. `done` are the videos that stand in it; `anew` tells that it was begun anew, since
    what stood in it were answers to another question.

    Raises PosebridgeError for a file that is no such table: nobody's data is written over.
    """

    def __init__(self, path: Path, asked: str):
        self.path, self._asked = path, asked[:12]
        self.done: set[str] = set()
        self.anew = False
        if path.exists() and path.stat().st_size:
            self._read()
        if not self.done:
            write_for_people(path, table_line(COLUMNS))

    def _read(self) -> None:
        """What stands there. Where a crash has cut the last row short, it is taken away, with its video's others."""
        torn = self._torn()
        rows = [(row.raw("video"), row.text("asked"), row.cells) for row in open_table(self.path, COLUMNS)]
        if any(asked != self._asked for _, asked, _ in rows):
            self.anew = True
            return
        if torn:
            rows = [each for each in rows if each[0] != rows[-1][0]]
            write_table(self.path, COLUMNS, (cells for _, _, cells in rows))
        self.done = {video for video, _, _ in rows}

    def _torn(self) -> bool:
        """Whether the table did not end with a line; the rest of one is cut off then. One too large is read by nobody.
        """
        content = self.path.read_bytes() if self.path.is_file() and self.path.stat().st_size <= MOST_BYTES else b"\n"
        if content.endswith(b"\n"):
            return False
        if COLUMNS[-1].encode() in content.partition(b"\n")[0]:  # else it is somebody's own file
            write_for_people(self.path, content[: content.rfind(b"\n") + 1])
        return True

    def add(self, answered: Answered) -> None:
        """Append a video, whole."""
        alone = told_shares(answered.predictions[0]) if len(answered.predictions) == 1 else ()
        lines = [table_line((*cells_of(each), ", ".join(alone), self._asked)) for each in answered.stretches]
        with writing(self.path), self.path.open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        self.done.add(answered.video)

"""The answers about many videos as one table that grows: a row as each video is done, or a row for each stretch of it.

Whoever is killed goes on where the table ends. Its last column tells what was asked, so that answers to two questions
never mix. Writes the table.
    posebridge predict folder/ --labels "pushing, hugging" --table answers.csv
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import os
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_durably, writing
from pipeline.files.names import is_file
from pipeline.files.tables import MOST_BYTES, table_line
from pipeline.predict.answers import Answered
from pipeline.predict.predict import told_shares
from pipeline.predict.timeline import HEADER
from pipeline.predict.timeline import cells as cells_of

COLUMNS = (*HEADER, "shares", "asked")


class AnswerTable:
    """Opens a table or begins one. `done` are the videos that stand in it; where what stood in it were answers to
    another question, it is begun anew, and those are `kept` in a file beside it.

    Raises PosebridgeError for a file that is no such table, since nobody's data is written over, and while another
    process has it open.
    """

    def __init__(self, path: Path, asked: str):
        self.path, self._asked = path, asked[:12]
        self.done: set[str] = set()
        self.kept: Path | None = None
        if path.exists() and not is_file(path):
            raise PosebridgeError(f"{path} is a folder or a device, no file; name another table.")
        make_folder(path.parent)
        with writing(path):
            self._lock = path.open("ab")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise PosebridgeError(f"Another process writes {path}; wait for it, or name another table.") from None
        try:
            self._read()
            if not self.done:  # in the file itself, which is the one that is locked
                os.truncate(path, 0)
                self._append(table_line(COLUMNS))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others write."""
        self._lock.close()

    def _read(self) -> None:
        """What stands there. Where a crash has cut the last row short, it is taken away in one step with the others of
        its video.
        """
        size = self.path.stat().st_size
        if size > MOST_BYTES:
            raise PosebridgeError(f"{self.path} has {size} bytes, more than {MOST_BYTES}; name another table.")
        content = self.path.read_bytes()
        if table_line(COLUMNS).startswith(content):  # empty, or cut short at once
            return
        whole = content[: content.rfind(b"\n") + 1]
        try:
            header, *rows = filter(None, csv.reader(io.StringIO(whole.decode("utf-8-sig"), newline=""), strict=True))
        except (ValueError, csv.Error):
            header, rows = [], []
        if header != list(COLUMNS) or any(len(row) != len(COLUMNS) for row in rows):
            raise PosebridgeError(
                f"{self.path} is no table of answers, or another program has saved it otherwise than with "
                f"{','.join(COLUMNS)} in UTF-8; name another one."
            )
        if any(row[-1] != self._asked for row in rows):
            self.kept = self.path.with_name(f"{self.path.stem}-{hashlib.sha256(content).hexdigest()[:8]}.csv")
            write_durably(self.kept, content)
            return
        if whole != content and rows:
            cut = rows[-1][0]
            whole = whole.removesuffix(b"".join(table_line(row) for row in rows if row[0] == cut))
            rows = [row for row in rows if row[0] != cut]
            with writing(self.path):
                os.truncate(self.path, len(whole))
        self.done = {row[0] for row in rows}

    def add(self, answered: Answered) -> None:
        """Append a video, whole."""
        alone = told_shares(answered.predictions[0]) if len(answered.predictions) == 1 else ()
        lines = [table_line((*cells_of(each), ", ".join(alone), self._asked)) for each in answered.stretches]
        self._append(b"".join(lines))
        self.done.add(answered.video)

    def _append(self, lines: bytes) -> None:
        with writing(self.path), self.path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

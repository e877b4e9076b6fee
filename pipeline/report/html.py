"""The pieces that the page is put together from: tables, and pictures inside the text. Writes nothing itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from pipeline.report.leaderboard import NONE


def table(
    header: Sequence[str], body: Sequence[Sequence[str]], numbers_from: int, kind: str = "", whole: bool = False
) -> str:
    """An HTML table; columns from `numbers_from` on are aligned to the right, empty ones left out unless `whole`."""
    kept = [i for i in range(len(header)) if whole or any(row[i] != NONE for row in body)]

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (f"<{tag}{' class=n' if i >= numbers_from else ''}>{escape(cells[i])}</{tag}>" for i in kept)
        return f"<tr>{''.join(marked)}</tr>"

    head, rows = line(header, "th"), "\n".join(line(row, "td") for row in body)
    return f"<div class='scroll'><table class='{kind}'><thead>{head}</thead><tbody>\n{rows}\n</tbody></table></div>"


def image(path: Path, alternative: str) -> str:
    """A picture whose bytes are in the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img alt='{escape(alternative)}' src='data:image/png;base64,{data}'>"

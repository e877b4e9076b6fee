"""A table of the page as LaTeX, to be pasted into a paper: a plain `tabular`, with nothing but what every LaTeX has."""

from __future__ import annotations

import pandas as pd

MOST_ROWS = 60  # of more, nobody prints a table
SIGNS = {"±": r"$\pm$", "−": "$-$", "–": "--", "✓": r"$\checkmark$", "≤": r"$\leq$", "≥": r"$\geq$", "×": r"$\times$",
         "◂": r"$\triangleleft$"}  # fmt: skip


def latex(table: pd.DataFrame, numbers: pd.Index | None = None) -> str:
    """The first `MOST_ROWS` rows; columns in `numbers` are set to the right. Every sign of LaTeX in a cell is escaped.
    """
    right = () if numbers is None else numbers
    shown = table.head(MOST_ROWS).astype(str).map(_one_line)
    columns = "".join("r" if title in right else "l" for title in shown)
    text = shown.to_latex(index=False, escape=True, column_format=columns).rstrip("\n")
    for sign, command in SIGNS.items():
        text = text.replace(sign, command)
    more = len(table) - len(shown)
    return f"{text}\n% {more} more rows" if more else text


def _one_line(cell: str) -> str:
    return " ".join(cell.split())

"""`predict` and `search` for a notebook: the commands of these names, asked in this process, their answers as tables.

They choose, warn and answer as on the command line, by the same code; warnings and progress go to stderr.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pandas as pd

from pipeline.errors import PosebridgeError
from stages.predict import TABLES


def predict(
    video: str | Path, labels: Sequence[str] | Mapping[str, str] | str | None = None, *,
    examples: str | Path | None = None, project: str | Path = ".", **options: Any,
) -> pd.DataFrame:  # fmt: skip
    """Name the action in a video, in a folder of videos, or in the windows of a long one.

    Args:
        video: a video, a folder of images, or a folder of videos.
        labels: what it may be, e.g. `["waving", "throwing a ball"]`; or with words for each, `{"waving": "a hand goes
            to and fro"}`; or text as --labels has it.
        examples: instead of labels, a folder with a sub-folder of clips for every action; needs no training.
        project: the folder of params.yaml and cache/.
        options: any other option of `posebridge predict`, e.g. `run="mine"`, `window=3`, `top=5`, `device="cuda"`.

    Returns:
        A row for each label that is told of each video or window, the best first: `video`, `start` and `end` in
        seconds, `rank` from 1, `label`, `confidence` (a share of 1), `score`, `reason` and what else the command tells
        of it. Where nobody is seen, one row of rank 0 has no label, and `reason` says why. `attrs` has all the rest:
        the run that answered, its recipe, warnings, seconds.

    Raises:
        PosebridgeError: as the command ends in a sentence: no run that fits, no such video, options that cannot be.
    """
    told = asked("predict", project, str(_place(video)), labels=_labels(labels), examples=examples, **options)
    rows = []
    for each in told.pop("predictions", []):  # none where `table=` takes them
        ranking = each.pop("ranking") or [{"label": "", "confidence": float("nan"), "score": float("nan")}]
        last = [{key: each.pop(key)} for key in ("reason",) if key in each]
        for rank, ranked in enumerate(ranking, start=1):
            rows.append({**each, "rank": rank if ranked["label"] else 0, **ranked, **(last[0] if last else {})})
    return _frame(rows, ("video", "start", "end", "rank", "label", "confidence", "score", "reason"), told)


def search(
    query: str | None = None, *, like: str | Path | Sequence[str | Path] = (), project: str | Path = ".", **options: Any
) -> pd.DataFrame:
    """Find clips in all of the cache that a sentence describes, or that are like an example.

    Args:
        query: e.g. `"a person lifts a barbell"`; a trained run compares it with the clips.
        like: instead of a query, one video or several; needs no training.
        project: the folder of params.yaml and cache/.
        options: any other option of `posebridge search`, e.g. `run="mine"`, `top=50`; data sets to search in are
            `names=["ntu60", "mine"]`, since `in` is a word of Python.

    Returns:
        A row for each clip, the most alike first: `dataset`, `clip_id`, `path`, `start`, `end`, `score` (a cosine).
        `attrs` has the rest: how many clips were searched, of which data sets, by which run, warnings.

    Raises:
        PosebridgeError: as the command ends in a sentence.
    """
    videos = [like] if isinstance(like, str | Path) else list(like)
    told = asked("search", project, *([] if query is None else [query]), like=videos, **options)
    return _frame(told.pop("hits"), ("dataset", "clip_id", "path", "start", "end", "score"), told)


def asked(name: str, project: str | Path, *words: str, **options: Any) -> dict[str, Any]:
    """What the command `name` answers with --json, for words and options as Python has them. Raises PosebridgeError."""
    command: click.Command = import_module(f"stages.{name}").command
    flags = {parameter.name: parameter for parameter in command.params if isinstance(parameter, click.Option)}
    flags |= {flag.lstrip("-").replace("-", "_"): each for each in list(flags.values()) for flag in each.opts}
    line = list(words)
    for key, value in options.items():
        if key not in flags or key == "json":
            raise PosebridgeError(f"`posebridge {name}` has no option {key!r}; see `posebridge {name} --help`.")
        line += _spelt(flags[key], value)
    try:
        with (
            chdir(project), command.make_context(name, [*line, "--json"]) as context,
            redirect_stdout(io.StringIO()) as out,
        ):  # fmt: skip
            context.invoke(command.callback.__wrapped__, **context.params)  # type: ignore[union-attr]
    except click.ClickException as error:
        raise PosebridgeError(error.format_message()) from None
    return json.loads(out.getvalue())


def _labels(labels: Sequence[str] | Mapping[str, str] | str | None) -> str | None:
    """Labels as --labels has them. Raises PosebridgeError for marks that would divide them otherwise."""
    if isinstance(labels, str) and labels.strip().lower().endswith(TABLES):
        return str(_place(labels))
    if labels is None or isinstance(labels, str):
        return labels
    pairs = [(label, f"{words}") for label, words in labels.items()] if isinstance(labels, Mapping) else []
    if odd := next((text for text in [*labels, *(w for _, w in pairs)] if ";" in text or ":" in text), None):
        raise PosebridgeError(f"{odd!r} has a colon or a semicolon, which divide labels from words; leave it out.")
    if pairs:
        return "; ".join(map(": ".join, pairs))
    line = io.StringIO()
    csv.writer(line).writerow(labels)  # a comma of its own in quotation marks
    return line.getvalue().strip()


def _spelt(option: click.Option, value: Any) -> list[str]:
    """An option as it is typed."""
    if option.is_flag:
        return [option.opts[0]] if value else list(option.secondary_opts) if option.secondary_opts else []
    values = value if option.multiple and isinstance(value, list | tuple) else [] if value is None else [value]
    if isinstance(option.type, click.Path) and option.name != "params_path":
        values = map(_place, values)
    return [word for each in values for word in (option.opts[0], str(each))]


def _place(path: str | Path) -> Path:
    """A path as it is meant: from the folder of the notebook, whatever the project."""
    return Path(path).absolute()


def _frame(rows: list[dict[str, Any]], first: Sequence[str], attrs: dict[str, Any]) -> pd.DataFrame:
    """Rows as a table that has the columns `first` at least; the rest of the answer in its attrs."""
    table = pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *(rows[0] if rows else ())])))
    table.attrs = attrs
    return table

"""The leaderboard in three forms: CSV for programs, Markdown for a repository, plain text for a terminal.

Writes `cache/results/leaderboard.csv` (fractions 0..1) and `cache/report/leaderboard.md` (percent).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.tables import write_table
from pipeline.files.yaml_file import read_yaml
from pipeline.report.results import Run, Spread, group_by_protocol

# section and key of metrics.json -> the title of its column, in percent
MEASURES = {
    ("zsl", "top1"): "ZSL top-1",
    ("zsl", "macro"): "ZSL macro",
    ("gzsl", "seen"): "S",
    ("gzsl", "unseen"): "U",
    ("gzsl", "harmonic"): "H",
    ("gzsl", "ausuc"): "AUSUC",
    ("adapted", "top1"): "adapted top-1",
}
NONE = "–"
LEGEND = "Percent; mean ± standard deviation over seeds. The 95 % interval is the exact binomial one of the mean."


def percent(spread: Spread | None) -> str:
    """`62.3 ± 1.2`, or `62.3` for a single run (the table names it so)."""
    if spread is None:
        return NONE
    return f"{100 * spread.mean:.1f}" + ("" if spread.std is None else f" ± {100 * spread.std:.1f}")


def interval(run: Run) -> str:
    """The exact 95 % interval of the mean, in percent."""
    low, high = run.ci95() or (0.0, 1.0)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points(difference: float | None) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return NONE if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def seeds(run: Run) -> str:
    return "single run" if run.single else str(len(run.seeds))


def setting(run: Run) -> str:
    """The method with its flags and test variant, in one phrase."""
    flags = [f"{name}={value}" if value is not True else name for name, value in run.first.flags.items()]
    return ", ".join([run.first.method, *flags, *([run.first.test_variant] if run.first.test_variant else [])])


def rows(runs: Sequence[Run]) -> list[dict[str, str]]:
    """One row of printable cells for each run: title -> cell."""
    table = []
    for run in runs:
        first = run.first
        cells = {"run": first.run, "skeletons": first.skeletons, "HPE text": first.hpe_text, "seeds": seeds(run)}
        cells |= {title: percent(run.spread(*key)) for key, title in MEASURES.items()}
        cells["95 % interval"] = interval(run)
        cells["vs ceiling"] = points(run.above_ceiling)
        table.append(cells)
    return table


def write_csv(path: Path, runs: Sequence[Run], chances: Mapping[tuple[str, str], float]) -> Path:
    """Write one line a run; fractions with 6 digits, empty where unknown. `chances`: (dataset, protocol) -> chance.

    `settings` are the resolved sections `encode` and `train` of params.yaml, as JSON.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for run in runs:
        first = run.first
        record = {"dataset": first.dataset, "protocol": first.protocol, "run": first.run, "method": first.method,
                  "flags": json.dumps(first.flags, sort_keys=True), "recipe": first.recipe, "text": first.text,
                  "hpe_text": first.hpe_text, "skeletons": first.skeletons, "test_variant": first.test_variant,
                  "adapt": first.selection.get("adapt", {}).get("by", ""), "seeds": len(run.seeds),
                  "n": first.zsl["n"]}  # fmt: skip
        for section, key in MEASURES:
            spread = run.spread(section, key)
            record[f"{section}_{key}_mean"] = _number(spread.mean if spread else None)
            record[f"{section}_{key}_std"] = _number(spread.std if spread else None)
        record["ci95_low"], record["ci95_high"] = map(_number, run.ci95() or (None, None))
        ceiling = first.ceiling or {}
        record |= {f"ceiling_{kind}": _number(ceiling.get(kind)) for kind in ("skeleton", "cue")}
        record["twin_hits_max"] = "" if run.twin_hits_max is None else run.twin_hits_max
        record["chance"] = _number(chances.get((first.dataset, first.protocol)))
        record |= {name: _number(run.mean(name)) for name in ("params", "gflops", "seconds")}
        record["training_seconds"] = _number(run.training_seconds)
        record["settings"] = _settings(first.folder / "params.yaml")
        records.append(record)
    return write_table(path, list(records[0]), (record.values() for record in records))


def _settings(path: Path) -> str:
    """How encoder and method were trained, by the parameters beside a result; empty where they cannot be read."""
    try:
        resolved = read_yaml(path, "run `posebridge evaluate`")
        return json.dumps({name: resolved[name] for name in ("encode", "train")}, sort_keys=True)
    except (PosebridgeError, KeyError, TypeError):
        return ""


def text_table(runs: Sequence[Run]) -> str:
    """The table for a terminal: one block a protocol, aligned columns, empty columns left out."""
    return "\n\n".join(f"{title}\n{aligned(_without_empty(rows(group)))}" for title, group in _titled(runs))


def write_markdown(path: Path, runs: Sequence[Run]) -> Path:
    """Write the same tables as Markdown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["# Leaderboard", LEGEND]
    for title, group in _titled(runs):
        table = _without_empty(rows(group))
        lines = ["| " + " | ".join(table[0]) + " |", "|" + " --- |" * len(table[0])]
        lines += ["| " + " | ".join(row.values()) + " |" for row in table]
        blocks += [f"## {title}", "\n".join(lines)]
    write_for_people(path, ("\n\n".join(blocks) + "\n").encode())
    return path


def _titled(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    titled = []
    for (dataset, protocol), group in group_by_protocol(runs).items():
        title = f"{dataset}, {protocol}: {group[0].first.zsl['n']} unseen test clips"
        if ceiling := group[0].first.ceiling:
            skeleton, cue = 100 * ceiling["skeleton"], 100 * ceiling["cue"]
            title += f"; skeleton-only ceiling {skeleton:.1f}, cue-only ceiling {cue:.1f}"
        titled.append((title, group))
    return titled


def _without_empty(table: list[dict[str, str]]) -> list[dict[str, str]]:
    kept = [title for title in table[0] if any(row[title] != NONE for row in table)]
    return [{title: row[title] for title in kept} for row in table]


def aligned(table: list[dict[str, str]]) -> str:
    """Columns of equal width, for a terminal."""
    widths = {title: max(len(title), *(len(row[title]) for row in table)) for title in table[0]}
    lines = ["  ".join(title.ljust(width) for title, width in widths.items())]
    lines += ["  ".join(row[title].ljust(width) for title, width in widths.items()) for row in table]
    return "\n".join(line.rstrip() for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

"""The leaderboard in three forms: CSV for programs, Markdown for a repository, plain text for a terminal.

Writes `cache/results/leaderboard.csv` (fractions 0..1) and `cache/report/leaderboard.md` (percent).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files.durable import write_for_people
from pipeline.protocol.spread import Spread
from pipeline.report.runs import Run, chosen_before_test, group_by_protocol

# section and key of metrics.json -> the title of its column, in percent
MEASURES = {
    ("zsl", "top1"): "ZSL top-1",
    ("zsl", "top5"): "ZSL top-5",
    ("zsl", "macro"): "ZSL macro",
    ("gzsl", "seen"): "S",
    ("gzsl", "unseen"): "U",
    ("gzsl", "harmonic"): "H",
    ("gzsl", "ausuc"): "AUSUC",
    ("adapted", "top1"): "adapted top-1",
}
NONE = "–"
UNKNOWN = "unknown"
DIGITS = 8  # of a hash, for people
IMPORTED = (
    "Features imported: those of skeletons, or the cues, are of a network of others. A skeleton encoder of others has "
    "learnt the pseudo-unseen classes of the selection phase, too; values like gamma are chosen on easier ground than "
    "with an encoder of ours."
)
REFERENCES = (
    "A reference is no part of posebridge but what a user might take instead. It is told beside it and not ranked with "
    "it: its cues are of a network that has learnt to name things in pictures."
)
PHASE_ONE = (
    "Phase one: AUSUC of the selection phase, on pseudo-unseen classes (zero-shot top-1 where a class has one clip). "
    "Its best row has the mark ◂: whoever quotes one row of several takes that one, since to take the one that tests "
    "best is to choose on test clips."
)
LEGEND = (
    "Percent; mean ± standard deviation over seeds. The 95 % interval of the mean is exact; of twins, over tuples. "
    "Boxes: where the pose model was told that persons are; `true` ones are the generator's, which no detector finds. "
    "Text: its encoder, and the first digits of the hash of that encoder's weights and the descriptions. "
    + PHASE_ONE
)
CHOSEN = " ◂"


def percent(spread: Spread | None) -> str:
    """As it says itself, or a dash where there is no such figure."""
    return NONE if spread is None else spread.percent


def share(fraction: float) -> str:
    """In percent, without the sign."""
    return f"{100 * fraction:.1f}"


def between(bounds: tuple[float, float] | None) -> str:
    """An interval, in percent."""
    return f"{share(bounds[0])} to {share(bounds[1])}" if bounds else NONE


def points(difference: float | None) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return NONE if difference is None else f"{100 * difference:+.1f}".replace("-", "−")


def seeds(run: Run) -> str:
    return "single run" if run.single else str(len(run.seeds))


def phase_one(run: Run) -> str:
    """In percent, or a dash."""
    return NONE if run.phase_one is None else share(run.phase_one)


def boxes(run: Run) -> str:
    """Where persons were known from: "true", "jittered, IoU 0.80", "detector", ...; a dash where nobody says."""
    told, iou = run.first.boxes, run.first.box_iou
    return (told if iou is None else f"{told}, IoU {iou:.2f}") or NONE


def text(run: Run) -> str:
    """Who made the text, and by what its descriptions are told from others: `minilm 0f3a19c2`."""
    return f"{run.first.text} {run.text_sha256[:DIGITS]}".rstrip()


def failed(run: Run) -> str:
    """How many test clips have failed, and of how many classes none is left."""
    gone = len(run.classes_without_clips)
    return f"{run.most('missing')}" + (f", all of {gone} {'class' if gone == 1 else 'classes'}" if gone else "")


def repeated(run: Run) -> str:
    """How many test clips repeat a train clip, as far as somebody has looked."""
    count = run.most("repeated")
    return UNKNOWN if count is None else str(count)


def setting(run: Run) -> str:
    """The method with its flags and test variant, in one phrase."""
    flags = [f"{name}={value}" if value is not True else name for name, value in run.first.flags.items()]
    return ", ".join([run.first.method, *flags, *([run.first.test_variant] if run.first.test_variant else [])])


def rows(runs: Sequence[Run], among: Sequence[Run] = ()) -> pd.DataFrame:
    """One row of printable cells for each run; what is chosen before testing is so `among` more runs, where given."""
    chosen = chosen_before_test(among or runs)
    return pd.DataFrame({
        "run": [run.first.run for run in runs],
        "skeletons": [run.first.skeletons for run in runs],
        "boxes": [boxes(run) for run in runs],
        "features": ["imported" if run.first.features == "imported" else NONE for run in runs],
        "reference": [run.first.reference or NONE for run in runs],
        "HPE text": [run.first.hpe_text for run in runs],
        "text": [text(run) for run in runs],
        "seeds": [seeds(run) for run in runs],
        "phase one": [phase_one(run) + CHOSEN * (run in chosen) for run in runs],
        **{title: [percent(run.spread(*key)) for run in runs] for key, title in MEASURES.items()},
        "95 % interval": [between(run.ci95()) for run in runs],
        "vs ceiling": [points(run.above_ceiling) for run in runs],
        "failed clips": [failed(run) for run in runs],
        "repeated clips": [repeated(run) for run in runs],
    })  # fmt: skip


def board(runs: Sequence[Run], chances: Mapping[tuple[str, str], float]) -> pd.DataFrame:
    """One row a run; fractions, empty where unknown. `chances`: (dataset, protocol) -> chance.

    `settings` are the resolved sections `encode` and `train` of params.yaml, as JSON, and so is
    `classes_without_clips`, a list of names.
    """
    records, chosen = [], chosen_before_test(runs)
    for run in runs:
        first = run.first
        record = {"dataset": first.dataset, "protocol": first.protocol, "run": first.run, "method": first.method,
                  "flags": json.dumps(first.flags, sort_keys=True), "recipe": first.recipe, "text": first.text,
                  "text_sha256": run.text_sha256, "hpe_text": first.hpe_text,
                  "skeletons": first.skeletons, "boxes": first.boxes, "box_iou": first.box_iou,
                  "features": first.features, "test_variant": first.test_variant,
                  "cues_from": first.cues_from, "web_data": first.web_data,
                  "adapt": first.selection.get("adapt", {}).get("by", ""), "seeds": len(run.seeds),
                  "n": first.test_clips, "phase_one_mean": run.phase_one,
                  "chosen_before_test": run in chosen}  # fmt: skip
        for section, key in MEASURES:
            spread = run.spread(section, key) or Spread(math.nan, None)
            record |= {f"{section}_{key}_mean": spread.mean, f"{section}_{key}_std": spread.std}
        record["ci95_low"], record["ci95_high"] = run.ci95() or (None, None)
        record["ceiling_skeleton"], record["ceiling_cue"] = first.ceilings or (None, None)
        record |= {"missing": run.most("missing"), "repeated": run.most("repeated")}
        record |= {"classes_without_clips": json.dumps(run.classes_without_clips) if run.classes_without_clips else ""}
        record |= {"twin_hits_max": run.twin_hits_max, "chance": chances.get((first.dataset, first.protocol))}
        record |= {name: run.mean(name) for name in ("params", "gflops", "seconds")}
        record |= {"training_seconds": run.training_seconds, "settings": _settings(first.trained)}
        records.append(record)
    return pd.DataFrame(records).astype({"twin_hits_max": "Int64", "repeated": "Int64"})


def write_csv(path: Path, runs: Sequence[Run], chances: Mapping[tuple[str, str], float]) -> Path:
    """Write the board, fractions with 6 digits."""
    table = board(runs, chances).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_for_people(path, table.encode("utf-8", "backslashreplace"))
    return path


def text_table(runs: Sequence[Run]) -> str:
    """The table for a terminal: one block a protocol, aligned columns, empty columns left out."""
    return "\n\n".join(f"{title}\n{aligned(filled(rows(group)))}" for title, group in _titled(runs))


def write_markdown(path: Path, runs: Sequence[Run]) -> Path:
    """Write the same tables as Markdown."""
    blocks = ["# Leaderboard", LEGEND]
    if any(run.first.features == "imported" for run in runs):
        blocks.append(IMPORTED)
    if any(run.first.reference for run in runs):
        blocks.append(REFERENCES)
    for title, group in _titled(runs):
        table = filled(rows(group))
        lines = [table.columns, ["---"] * len(table.columns), *table.to_numpy()]
        blocks += [f"## {title}", "\n".join(f"| {' | '.join(cells)} |" for cells in lines)]
    write_for_people(path, ("\n\n".join(blocks) + "\n").encode())
    return path


def _titled(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    titled = []
    for (dataset, protocol), group in group_by_protocol(runs).items():
        title = f"{dataset}, {protocol}: {group[0].first.test_clips} unseen test clips"
        if training := group[0].first.training_dataset:
            title += f"; trained on {training}"
        if ceilings := group[0].first.ceilings:
            title += f"; skeleton-only ceiling {share(ceilings[0])}, cue-only ceiling {share(ceilings[1])}"
        titled.append((title, group))
    return titled


def filled(table: pd.DataFrame) -> pd.DataFrame:
    """Without the columns that have a dash in every cell."""
    return table.loc[:, (table != NONE).any()]


def aligned(table: pd.DataFrame) -> str:
    """Columns of equal width, for a terminal."""
    padded = [[title, *table[title]] for title in table]
    widths = [max(map(len, cells)) for cells in padded]
    lines = ("  ".join(map(str.ljust, cells, widths)) for cells in zip(*padded, strict=True))
    return "\n".join(line.rstrip() for line in lines)


def _settings(trained: dict[str, Any]) -> str:
    return json.dumps(trained, sort_keys=True) if trained else ""

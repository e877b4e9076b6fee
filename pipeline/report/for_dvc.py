"""What DVC shows of the runs: `dvc metrics show` and `dvc plots show`, where dvc.yaml declares these folders.

Writes <report>/metrics/<dataset>/<protocol>/<run>.json and <report>/plots/{classes,confusion,epochs}/<dataset>/
<protocol>/<run>.csv. DVC makes a line or a plot of each file, and compares it with that of another commit or
experiment, so a file holds few and plain values. Runs on variants of the test clips are in the report alone.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import PosebridgeError
from pipeline.files.durable import write_for_people
from pipeline.files.tables import write_table
from pipeline.report.runs import Run, read_confusion

# section and key of metrics.json; a metric is named as the column of `posebridge.results()` is
SHOWN = (("zsl", "top1"), ("gzsl", "seen"), ("gzsl", "unseen"), ("gzsl", "harmonic"), ("adapted", "top1"))
SPREAD = ("zsl_top1", "gzsl_harmonic")  # these with their standard deviation over the seeds
OF_A_CLASS = 100  # so many answers stand for all of a class in a confusion plot, whatever the number of its clips


def write_for_dvc(out: Path, runs: Sequence[Run]) -> None:
    """Write the figures of all runs into the folder of a report."""
    for run in runs:
        if run.first.test_variant:
            continue
        name = Path(run.first.dataset, run.first.protocol, run.first.run)
        path = out / "metrics" / name.with_name(f"{name.name}.json")
        write_for_people(path, json.dumps(figures(run), indent=1).encode() + b"\n")
        _write_plots(out / "plots", name.with_name(f"{name.name}.csv"), run)


def written_for_dvc(out: Path) -> Iterator[Path]:
    """What an earlier report has written so."""
    return itertools.chain(out.glob("metrics/*/*/*.json"), out.glob("plots/*/*/*/*.csv"))


def figures(run: Run) -> dict[str, float | int]:
    """The run's means over its seeds, fractions of 6 digits; what the run does not have is not there."""
    found: dict[str, float | int] = {"seeds": len(run.seeds)}
    for section, key in SHOWN:
        if spread := run.spread(section, key):
            name = f"{section}_{key}"
            found[name] = round(spread.mean, 6)
            if name in SPREAD and spread.std is not None:
                found[f"{name}_std"] = round(spread.std, 6)
    return found


def _write_plots(folder: Path, name: Path, run: Run) -> None:
    """Of unseen classes the accuracy and the confusion, over all seeds; of the selection phase, the score by epoch."""
    try:
        counts = read_confusion(run)
    except PosebridgeError:  # the report has told
        counts = None
    if counts is not None:
        shares = counts.to_numpy() / np.maximum(1, counts.to_numpy().sum(1, keepdims=True))  # [U, U], rows true
        answers, names = np.rint(OF_A_CLASS * shares).astype(int), list(map(str, counts))
        right = zip(names, np.diag(shares).round(6), strict=True)
        given = ([names[i], names[j]] for i, j in np.argwhere(answers) for _ in range(answers[i, j]))
        write_table(folder / "classes" / name, ["class", "accuracy"], right)
        write_table(folder / "confusion" / name, ["actual", "predicted"], given)
    scores = [result.selection.get("scores_by_epoch", []) for result in run.results]
    if any(scores):  # a seed whose selection ended early has fewer epochs than another
        by_epoch = ([score for score in some if score is not None] for some in itertools.zip_longest(*scores))
        means = ([epoch, round(statistics.fmean(some), 6)] for epoch, some in enumerate(by_epoch, 1))
        write_table(folder / "epochs" / name, ["epoch", "score"], means)

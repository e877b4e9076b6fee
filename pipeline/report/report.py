"""The report from end to end.

Reads `cache/results/**/{metrics.json, confusion.csv, predictions.csv}`, `cache/leaks/`, the duplicates noted in
`cache/<dataset>/<recipe>/` and `manifests/`. Writes `cache/results/leaderboard.csv` and
`cache/report/{leaderboard.md, index.html, figures/<dataset>/<protocol>/*.png}` and what DVC shows, see for_dvc.py; the
report of one table has its leaderboard.csv beside its page. Command: posebridge report
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from pipeline.errors import PosebridgeError
from pipeline.files.durable import make_folder, write_for_people
from pipeline.files.names import check_name
from pipeline.files.shipped import dataset_folder
from pipeline.manifest.clips import read_classes
from pipeline.params import Params
from pipeline.protocol.ceiling import read_attributes
from pipeline.protocol.halves import Attributes
from pipeline.protocol.splits import read_split
from pipeline.report import figures, leaderboard
from pipeline.report.clip_frames import FramesOf
from pipeline.report.controlled import analyse
from pipeline.report.cost import recipes_of
from pipeline.report.extraction import draw_extraction, read_extractions, seconds_a_clip
from pipeline.report.failed import failed_cards, refused
from pipeline.report.for_dvc import write_for_dvc, written_for_dvc
from pipeline.report.kinds import base_name, sort_out
from pipeline.report.look import look_into
from pipeline.report.page import Data, Section, page
from pipeline.report.prices import read_prices
from pipeline.report.published import Comparison, compare
from pipeline.report.repeated import read_repeated
from pipeline.report.runs import Run, group_by_protocol, read_confusion, read_runs
from pipeline.report.together import kept_together


@dataclass(frozen=True)
class Report:
    """What was written, the runs in it (best first), and one sentence for each result that was left out."""

    csv: Path
    markdown: Path
    html: Path
    runs: tuple[Run, ...]
    complaints: tuple[str, ...]
    comparisons: tuple[Comparison, ...]  # with published figures


def make_report(
    results: Path, out: Path, manifests: Path, only: Params | None = None, frames_of: FramesOf = lambda *_: {},
    store_root: Path | None = None, datasets: Sequence[str] = (),
) -> Report:  # fmt: skip
    """Write the report anew, of all results or of `only` the data sets and runs in these parameters, or of `datasets`.

    `frames_of` gives frames of clips for pictures; without it there are none of clips. `store_root` is where the stores
    of extractions are, `store` in the cache folder by default.
    Raises PosebridgeError if there is no readable result at all.
    """
    asked = [check_name(dataset, "data set") for dataset in dict.fromkeys(datasets)] or (only.datasets if only else ())
    folders = [results / dataset for dataset in asked] if only or datasets else [results]
    runs, complaints = [], []
    for folder in folders:
        found, left_out = read_runs(folder)
        runs += [run for run in found if only is None or base_name(run) in only.runs]
        complaints += left_out
    if not runs:
        reason = f" ({complaints[0]})" if complaints else ""
        place = folders[0] if len(folders) == 1 else results
        raise PosebridgeError(f"{place} has no readable metrics.json{reason}; run `posebridge evaluate` first.")
    make_folder(out)
    if (out / "leaderboard.md").is_file():  # an earlier report, whose files on runs that are gone must not stay
        pictures = (picture for end in ("png", "jpg") for picture in out.glob(f"figures/*/*/*.{end}"))
        for old in (*pictures, *written_for_dvc(out)):
            old.unlink()
    sections: list[Section] = []
    for group in group_by_protocol(runs).values():
        section, left_out = _section(group, results, out, manifests, frames_of, store_root)
        sections.append(section)
        complaints += left_out
    data = [_data(dataset, sections, results, out, manifests, frames_of, store_root, complaints)
            for dataset in dict.fromkeys(section.dataset for section in sections)]  # fmt: skip
    chances = {(s.dataset, s.protocol): s.chance for s in sections if s.chance is not None}
    html = out / "index.html"
    comparisons = compare(runs, manifests)
    write_for_dvc(out, runs)
    write_for_people(html, page(sections, complaints, comparisons, data).encode("utf-8", "backslashreplace"))
    return Report(
        csv=leaderboard.write_csv((out if only or datasets else results) / "leaderboard.csv", runs, chances),
        markdown=leaderboard.write_markdown(out / "leaderboard.md", runs),
        html=html,
        runs=tuple(runs),
        complaints=tuple(complaints),
        comparisons=tuple(comparisons),
    )


def _section(
    group: list[Run], results: Path, out: Path, manifests: Path, frames_of: FramesOf, store_root: Path | None
) -> tuple[Section, list[str]]:
    """All that is known of the runs of one protocol, with its pictures; and one sentence for each file left out."""
    dataset, protocol = group[0].first.dataset, group[0].first.protocol
    folder, cache = out / "figures" / dataset / protocol, results.parent
    confusions, complaints, counts = [], [], {}
    try:
        names, unseen, attributes = _from_manifests(dataset_folder(manifests, dataset), protocol)
    except PosebridgeError as error:  # no chance line, no boxes
        names, unseen, attributes = [], [], {}
        complaints.append(str(error))
    chance = 1 / len(unseen) if unseen else None
    motions = {names[index]: motion for index, (motion, _) in attributes.items()}
    kinds = sort_out(group)
    for run in kinds.methods:
        try:
            if (found := read_confusion(run)) is not None:
                counts[run.first.run] = found
                confusions.append(_confusion(run, found, motions, folder))
        except PosebridgeError as error:
            complaints.append(str(error))
    complaints += [result.unanswered for run in group for result in run.results if result.unanswered]
    leaks, unpriced = read_prices(cache / "leaks" / dataset / protocol, group)
    repeated, unpictured = read_repeated(cache, store_root, manifests, group, names, folder)
    extraction = seconds_a_clip(cache, store_root, dataset, sorted(set().union(*map(recipes_of, kinds.methods))))
    look, unread = look_into(kinds.methods, counts, names, unseen, folder, frames_of, extraction)
    together = None
    try:
        table = dataset_folder(manifests, dataset) / "attributes.csv"
        together = kept_together(group[0], table, unseen, names, folder, frames_of)
    except PosebridgeError as error:
        complaints.append(str(error))
    section = Section(
        dataset,
        protocol,
        runs=kinds.methods,
        everyone=tuple(run for run in group if not run.first.test_variant or run in kinds.methods),
        bars=figures.save(figures.bars(kinds.methods, chance), folder / "top1.png"),
        confusions=tuple(confusions),
        chance=chance,
        analysis=analyse(kinds, folder, chance, names, frames_of),
        leaks=leaks,
        repeated=tuple(repeated),
        look=look,
        together=together,
    )
    return section, [*complaints, *unpriced, *unpictured, *unread]


def _data(
    dataset: str, sections: Sequence[Section], results: Path, out: Path, manifests: Path, frames_of: FramesOf,
    store_root: Path | None, complaints: list[str],
) -> Data:  # fmt: skip
    """What was extracted of a data set, for all its protocols; a sentence for each extraction that is damaged."""
    own = [section for section in sections if section.dataset == dataset]
    runs = [run.first for section in own for run in section.everyone]
    pairs: dict[str, int | None] = dict.fromkeys(name for run in runs for name in (run.recipe, run.joints) if name)
    pairs |= {r.recipe: None if r.pairs is None else len(r.pairs) for section in own for r in section.repeated}
    found, damaged = read_extractions(results.parent, store_root, dataset, pairs)
    complaints += damaged
    folder = out / "figures" / dataset / "extraction"
    picture = draw_extraction(found)
    return Data(
        dataset,
        tuple(found),
        figures.save(picture, folder / "seen.png") if picture else None,
        failed_cards(found, folder, frames_of),
        *refused(dataset_folder(manifests, dataset)),
    )


def _from_manifests(folder: Path, protocol: str) -> tuple[list[str], list[int], Attributes]:
    """Names of the classes, unseen classes of the protocol, attributes of the classes; empty where nothing tells.

    Raises PosebridgeError for a file with an error.
    """
    if not (folder / "classes.csv").is_file():  # results of a data set whose manifests are elsewhere
        return [], [], {}
    names = read_classes(folder / "classes.csv")
    unseen = read_split(folder / "protocols", protocol, names).unseen
    path = folder / "attributes.csv"
    attributes = read_attributes(path) if path.is_file() else {}
    if unknown := [index for index in attributes if index >= len(names)]:
        raise PosebridgeError(f"{path} has the class {unknown[0]}, and classes.csv has not; correct it.")
    return names, list(unseen), attributes


def _confusion(run: Run, found: DataFrame, motions: dict[str, str], folder: Path) -> Path:
    """The picture of a run's confusion."""
    over = "single run" if run.single else f"{len(run.seeds)} seeds"
    boxes = motions and run.first.ceilings  # of real people no motion is certain
    groups = [motions.get(name, name) for name in map(str, found)] if boxes else None
    figure = figures.confusion(found, f"{run.first.run} ({over})", groups)
    return figures.save(figure, folder / f"{run.first.run}-confusion.png")

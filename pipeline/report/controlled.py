"""What a controlled benchmark can tell beyond a table of methods: ablations, true against estimated skeletons, harder
tests, and the counterfactual swap.

Draws its pictures into a folder of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.manifest.variants import strength
from pipeline.report import figures, helped, parts
from pipeline.report.cards import Card, save_cards
from pipeline.report.clip_frames import FramesOf
from pipeline.report.curves import curves, draw_curves
from pipeline.report.kinds import Difference, Kinds, changes, difference, true_and_estimated, with_cues
from pipeline.report.leaderboard import NONE, between, percent, points, seeds, share
from pipeline.report.parts import parts_of
from pipeline.report.runs import Run
from pipeline.report.swap import Rate, TwinSwap, twin_swap, variant_swap
from pipeline.report.swap_pictures import twin_rows, variant_rows

Pictures = tuple[str, tuple[tuple[Card, ...], ...]]  # what is shown, rows of clips


@dataclass(frozen=True)
class Analysis:
    """What was found and drawn for one protocol: printable tables, without rows where its runs do not tell."""

    cue_gains: pd.DataFrame
    ablations: dict[str, tuple[pd.DataFrame, Path]]  # name of the full run -> the table and the bars of its ablations
    parts: pd.DataFrame
    sources: pd.DataFrame
    curves: Path | None
    gains: pd.DataFrame
    twins: pd.DataFrame
    stability: pd.DataFrame
    pictures: tuple[Pictures, ...]
    helped: tuple[tuple[str, pd.DataFrame, tuple[Pictures, ...]], ...]  # two runs, classes, clips


def analyse(
    kinds: Kinds, folder: Path, chance: float | None, names: Sequence[str], frames_of: FramesOf
) -> Analysis:
    """Find all there is to find, and draw it into `folder`. `names` are the data set's classes."""
    everyone = [*kinds.methods, *(run for group in kinds.ablations.values() for run in group[1:])]
    plain = [run for i, run in enumerate(everyone) if run not in everyone[:i] and not run.first.test_variant]
    ablations = {
        name: (_ablations(group), figures.save(figures.bars(group, chance), folder / f"{name}-ablations.png"))
        for name, group in kinds.ablations.items()
    }
    picture, ceilings = None, plain[0].first.ceilings if plain else None
    if found := curves(plain, kinds.variants):
        picture = figures.save(draw_curves(found, ceilings[0] if ceilings else None), folder / "degradation.png")
    twins = [(run, swap) for run in plain if (swap := twin_swap(run))]
    stability = [
        (run, variant, tested, rate)
        for run in plain
        for variant, tested in sorted(kinds.variants.get(run.first.run, {}).items())
        if not strength(variant)[1] and (rate := variant_swap(run, tested))
    ]
    return Analysis(
        cue_gains=_cue_gains(with_cues(kinds.methods)),
        ablations=ablations,
        parts=parts.table([(run, each) for run in plain if (each := parts_of([run]))]),
        sources=_sources(true_and_estimated(kinds.methods)),
        curves=picture,
        gains=_gains(kinds) if picture else pd.DataFrame(),
        twins=_twins(twins),
        stability=_stability(stability),
        pictures=_pictures(kinds, [run for run, _ in twins], folder, names, frames_of),
        helped=_helped(with_cues(kinds.methods), folder, names, frames_of),
    )


def _helped(
    pairs: Sequence[tuple[Run, Run]], folder: Path, names: Sequence[str], frames_of: FramesOf
) -> tuple[tuple[str, pd.DataFrame, tuple[Pictures, ...]], ...]:
    """The classes and clips that cues help and hurt most, of every pair of runs that tells them."""
    found = []
    for pair in pairs:
        table, name = helped.helped(*pair, names), pair[1].first.run
        if table.empty:
            continue
        made: list[Pictures] = []
        for kind, part in zip(("helped", "hurt"), helped.ends(helped.helped_clips(*pair, names)), strict=True):
            if shown := helped.pictures(part, pair, names, frames_of):
                made.append((f"Clips most {kind} by cues", save_cards([shown], folder, f"{name}-{kind}")))
        found.append((f"{pair[0].first.run} and {name}", helped.printable(table), tuple(made)))
    return tuple(found)


def _pictures(
    kinds: Kinds, runs: Sequence[Run], folder: Path, names: Sequence[str], frames_of: FramesOf
) -> tuple[Pictures, ...]:
    """Twins side by side with the answers of `skeleton` and `posebridge`, and clips of which something else changed."""
    shown = [run for run in runs if run.first.run in ("posebridge", "skeleton")]
    shown.sort(key=lambda run: run.first.run, reverse=True)
    made: list[Pictures] = []
    if shown and (rows := twin_rows(shown, names, frames_of)):
        made.append(("Only the held object differs", save_cards(rows, folder, "twins")))
    for run in shown:
        others = {v: r for v, r in kinds.variants.get(run.first.run, {}).items() if not strength(v)[1]}
        if others and (rows := variant_rows(run, others, names, frames_of)):
            cards = save_cards(rows, folder, f"{run.first.run}-counterfactual")
            made.append((f"Something else differs: the answers of {run.first.run}", cards))
    return tuple(made)


def _ablations(group: Sequence[Run]) -> pd.DataFrame:
    full, *others = group
    rows = []
    for run in (full, *others):
        gap = None if run is full else difference(run, full)
        harmonic = None if run is full else difference(run, full, "gzsl", "harmonic")
        rows.append({
            "run": run.first.run,
            "changed": "the full run" if run is full else changes(run, full),
            "seeds": seeds(run),
            "top-1": percent(run.spread("zsl", "top1")),
            "difference": points(_mean(gap)),
            "95 % interval": _interval(gap),
            "H": percent(run.spread("gzsl", "harmonic")),
            "difference of H": points(_mean(harmonic)),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _cue_gains(pairs: Sequence[tuple[Run, Run]]) -> pd.DataFrame:
    rows = []
    for plain, cued in pairs:
        gap = difference(cued, plain)
        rows.append({
            "without cues": plain.first.run,
            "with them": cued.first.run,
            "top-1 without": percent(plain.spread("zsl", "top1")),
            "top-1 with": percent(cued.spread("zsl", "top1")),
            "gain": points(_mean(gap)),
            "95 % interval": _interval(gap),
            "adapted without": percent(plain.spread("adapted", "top1")),
            "adapted with": percent(cued.spread("adapted", "top1")),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _sources(pairs: Sequence[tuple[Run, Run]]) -> pd.DataFrame:
    rows = []
    for truth, estimated in pairs:
        gap = difference(estimated, truth)
        rows.append({
            "run": f"{estimated.first.run} / {truth.first.run}",
            "true skeletons": percent(truth.spread("zsl", "top1")),
            "estimated": percent(estimated.spread("zsl", "top1")),
            "estimated − true": points(_mean(gap)),
            "95 % interval": _interval(gap),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _gains(kinds: Kinds) -> pd.DataFrame:
    """Under every disturbance: top-1 of each run, and the full run's lead over each ablation, paired by seed."""
    levels = sorted({v for tested in kinds.variants.values() for v in tested if strength(v)[1]})
    tested = [name for name in kinds.variants if any(strength(v)[1] for v in kinds.variants[name])]
    leads = [(full.first.run, other.first.run) for full, *others in kinds.ablations.values() for other in others
             if {full.first.run, other.first.run} <= set(tested)]  # fmt: skip
    rows = []
    for level in levels:
        of = {name: kinds.variants[name].get(level) for name in tested}
        row = {"disturbance": level.replace("_", " ").replace("-", ", strength ")}
        row |= {name: percent(run.spread("zsl", "top1")) if run else NONE for name, run in of.items()}
        for full, other in leads:
            ours, theirs = of[full], of[other]
            gap = difference(ours, theirs) if ours and theirs else None
            within = f" ({_interval(gap)})" if gap and gap.interval else ""
            row[f"{full} − {other} (95 %)"] = points(_mean(gap)) + within
        rows.append(row)
    return pd.DataFrame(rows)


def _twins(twins: Sequence[tuple[Run, TwinSwap]]) -> pd.DataFrame:
    rows = [
        [run.first.run, run.first.skeletons, *_rate(swap.changes), *_rate(swap.to_right), str(swap.changes.n),
         str(swap.changes.groups)]
        for run, swap in twins
    ]  # fmt: skip
    header = ["run", "skeletons", "answer changes", "95 % interval", "and is right", "95 % interval", "swaps", "tuples"]
    return pd.DataFrame(rows, columns=header)


def _stability(found: Sequence[tuple[Run, str, Run, Rate]]) -> pd.DataFrame:
    rows = [
        [run.first.run, variant, *_rate(rate), str(rate.n), str(rate.groups), percent(tested.spread("zsl", "top1"))]
        for run, variant, tested, rate in found
    ]
    header = ["run", "what changes", "answer changes", "95 % interval", "clips", "tuples", "top-1 then"]
    return pd.DataFrame(rows, columns=header)


def _rate(rate: Rate) -> tuple[str, str]:
    return share(rate.value), between((rate.low, rate.high))


def _mean(gap: Difference | None) -> float | None:
    return gap.mean if gap else None


def _interval(gap: Difference | None) -> str:
    if gap is None or gap.interval is None:
        return NONE
    return f"{points(gap.interval[0])} to {points(gap.interval[1])}"

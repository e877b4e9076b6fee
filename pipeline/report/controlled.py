"""What a controlled benchmark can tell beyond a table of methods: ablations, true against estimated skeletons, harder
tests, and the counterfactual swap.

Draws its pictures into a folder of the report; `sections` are the parts of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pipeline.manifest.variants import strength
from pipeline.report import figures
from pipeline.report.curves import curves, draw_curves
from pipeline.report.html import image, table
from pipeline.report.kinds import Difference, Kinds, changes, difference, true_and_estimated, with_cues
from pipeline.report.leaderboard import NONE, percent, points, seeds
from pipeline.report.parts import Attributes, Parts, parts_of, parts_section
from pipeline.report.results import Run
from pipeline.report.swap import Rate, TwinSwap, twin_swap, variant_swap
from pipeline.report.swap_pictures import FramesOf, draw_rows, twin_rows, variant_rows

ABLATIONS = """<p>One thing changed at a time; everything else, the choosing of values included, as in the full run. The
difference is to the full run on the same seeds; its 95 % interval (Student's t) tells how far seeds carry it.</p>"""

CUES = """<p>The same method, and the same with the bridge's cues, on the same skeletons; the interval of the gain is
paired by seed (Student's t).</p>"""

SOURCES = """<p>The same run on the generator's exact skeletons and on those that the pose model estimated from the
video: what pose estimation costs, or lets through of the object.</p>"""

CURVES = """<p>Test clips rendered again, harder each time; the models and all chosen values are those of the
undisturbed run. A bar is one standard deviation over seeds; <i>none</i> is the accuracy on the same clips,
undisturbed.</p>"""

TWINS = """<p>Twins are clips equal in everything but the held object. Going from one to another, in both directions,
the answer should change, and to the right class. Rates are over all seeds; intervals are a bootstrap over tuples of
twins, since clips of one tuple hang together (where all agree, each tuple is one trial of the exact interval).</p>"""

STABLE = """<p>The same clips rendered again with other distractors, another background or another person, and nothing
else: here the answer should stay.</p>"""

PICTURES = """<p>The first tuple of every motion, whatever was answered; the answers are those of the first seed.</p>"""


@dataclass(frozen=True)
class Analysis:
    """What was found and drawn for one protocol; empty where its runs do not tell."""

    kinds: Kinds
    ablation_bars: dict[str, Path]  # name of the full run -> its bars and those of its ablations
    curves_picture: Path | None
    twins: tuple[tuple[Run, TwinSwap], ...]
    stability: tuple[tuple[Run, str, Rate], ...]  # run, variant without strength, how often its answers change
    parts: tuple[Parts, ...]
    pictures: tuple[tuple[str, Path], ...]  # what it shows, the picture


def analyse(
    kinds: Kinds, folder: Path, chance: float | None, names: Sequence[str], attributes: Attributes, frames_of: FramesOf
) -> Analysis:
    """Find all there is to find, and draw it into `folder`. `names` are the data set's classes, `attributes` theirs."""
    everyone = [*kinds.methods, *(run for group in kinds.ablations.values() for run in group[1:])]
    plain = [run for i, run in enumerate(everyone) if run not in everyone[:i] and not run.first.test_variant]
    bars = {
        name: figures.save(figures.bars(group, chance), folder / f"{name}-ablations.png")
        for name, group in kinds.ablations.items()
    }
    found = curves(plain, kinds.variants)
    ceiling = plain[0].first.ceiling if plain else None
    picture = None
    if found:
        drawn = draw_curves(found, ceiling["skeleton"] if ceiling else None)
        picture = figures.save(drawn, folder / "degradation.png")
    twins = [(run, swap) for run in plain if (swap := twin_swap(run))]
    stability = [
        (run, variant, rate)
        for run in plain
        for variant, tested in sorted(kinds.variants.get(run.first.run, {}).items())
        if not strength(variant)[1] and (rate := variant_swap(run, tested))
    ]
    parts = tuple(each for run in plain if (each := parts_of(run, attributes)))
    pictures = _pictures(kinds, twins, folder, names, frames_of)
    return Analysis(kinds, bars, picture, tuple(twins), tuple(stability), parts, pictures)


def _pictures(
    kinds: Kinds, twins: Sequence[tuple[Run, TwinSwap]], folder: Path, names: Sequence[str], frames_of: FramesOf
) -> tuple[tuple[str, Path], ...]:
    """Twins side by side with the answers of `skeleton` and `posebridge`, and clips of which something else changed."""
    shown = [run for run, _ in twins if run.first.run in ("posebridge", "skeleton")]
    shown.sort(key=lambda run: run.first.run, reverse=True)
    made = []
    if shown and (rows := twin_rows(shown, names, frames_of)):
        made.append(("Only the held object differs", figures.save(draw_rows(rows), folder / "twins.png")))
    for run in shown:
        others = {v: r for v, r in kinds.variants.get(run.first.run, {}).items() if not strength(v)[1]}
        if others and (rows := variant_rows(run, others, names, frames_of)):
            path = figures.save(draw_rows(rows), folder / f"{run.first.run}-counterfactual.png")
            made.append((f"Something else differs: the answers of {run.first.run}", path))
    return tuple(made)


def sections(analysis: Analysis) -> list[str]:
    """The parts of the page, in order; none where nothing was found."""
    parts = []
    if pairs := with_cues(analysis.kinds.methods):
        parts += ["<h3>What cues add</h3>", CUES, _cue_gains(pairs)]
    for name, group in analysis.kinds.ablations.items():
        parts += [f"<h3>Ablations of {escape(name)}</h3>", ABLATIONS, _ablations(group)]
        picture = image(analysis.ablation_bars[name], f"Zero-shot top-1 of {name} and its ablations")
        parts += [f"<div class='scroll'>{picture}</div>"]
    parts += parts_section(analysis.parts)
    if pairs := true_and_estimated(analysis.kinds.methods):
        parts += ["<h3>True and estimated skeletons</h3>", SOURCES, _sources(pairs)]
    if analysis.curves_picture:
        parts += ["<h3>As tests get harder</h3>", CURVES, image(analysis.curves_picture, "Accuracy against strength")]
        parts += [_gains(analysis.kinds)]
    if analysis.twins:
        parts += ["<h3>Counterfactual: only the held object changes</h3>", TWINS, _twins(analysis.twins)]
    if analysis.stability:
        parts += ["<h3>Counterfactual: something else changes</h3>", STABLE, _stability(analysis)]
    if analysis.pictures:
        parts.append(PICTURES)
    for what, path in analysis.pictures:
        parts += [f"<p><b>{escape(what)}</b></p>", f"<div class='scroll'>{image(path, what)}</div>"]
    return parts


def _ablations(group: Sequence[Run]) -> str:
    full, *others = group
    header = ["run", "changed", "seeds", "top-1", "difference", "95 % interval", "H", "difference of H"]
    body = []
    for run in (full, *others):
        gap = None if run is full else difference(run, full)
        harmonic = None if run is full else difference(run, full, "gzsl", "harmonic")
        changed = "the full run" if run is full else changes(run, full)
        body.append([run.first.run, changed, seeds(run), percent(run.spread("zsl", "top1")), points(_mean(gap)),
                     _interval(gap), percent(run.spread("gzsl", "harmonic")), points(_mean(harmonic))])  # fmt: skip
    return table(header, body, numbers_from=3, kind="ablations")


def _cue_gains(pairs: Sequence[tuple[Run, Run]]) -> str:
    header = ["without cues", "with them", "top-1 without", "top-1 with", "gain", "95 % interval",
              "adapted without", "adapted with"]  # fmt: skip
    body = []
    for plain, cued in pairs:
        gap = difference(cued, plain)
        top1 = [percent(run.spread("zsl", "top1")) for run in (plain, cued)]
        adapted = [percent(run.spread("adapted", "top1")) for run in (plain, cued)]
        body.append([plain.first.run, cued.first.run, *top1, points(_mean(gap)), _interval(gap), *adapted])
    return table(header, body, numbers_from=2)


def _sources(pairs: Sequence[tuple[Run, Run]]) -> str:
    header = ["run", "true skeletons", "estimated", "estimated − true", "95 % interval"]
    body = []
    for truth, estimated in pairs:
        gap = difference(estimated, truth)
        body.append([f"{estimated.first.run} / {truth.first.run}", percent(truth.spread("zsl", "top1")),
                     percent(estimated.spread("zsl", "top1")), points(_mean(gap)), _interval(gap)])  # fmt: skip
    return table(header, body, numbers_from=1)


def _gains(kinds: Kinds) -> str:
    """Under every disturbance: top-1 of each run, and the full run's lead over each ablation, paired by seed."""
    levels = sorted({v for tested in kinds.variants.values() for v in tested if strength(v)[1]})
    tested = [name for name in kinds.variants if any(strength(v)[1] for v in kinds.variants[name])]
    leads = [(full.first.run, other.first.run) for full, *others in kinds.ablations.values() for other in others
             if {full.first.run, other.first.run} <= set(tested)]  # fmt: skip
    body = []
    for level in levels:
        of = {name: kinds.variants[name].get(level) for name in tested}
        cells = [level.replace("_", " ").replace("-", ", strength ")]
        cells += [percent(run.spread("zsl", "top1")) if run else NONE for run in of.values()]
        for full, other in leads:
            ours, theirs = of[full], of[other]
            gap = difference(ours, theirs) if ours and theirs else None
            cells.append(f"{points(_mean(gap))} ({_interval(gap)})" if gap and gap.interval else points(_mean(gap)))
        body.append(cells)
    header = ["disturbance", *tested, *(f"{full} − {other} (95 %)" for full, other in leads)]
    return table(header, body, numbers_from=1)


def _twins(twins: Sequence[tuple[Run, TwinSwap]]) -> str:
    header = ["run", "skeletons", "answer changes", "95 % interval", "and is right", "95 % interval", "swaps", "tuples"]
    body = []
    for run, swap in twins:
        body.append([run.first.run, run.first.skeletons, *_rate(swap.changes), *_rate(swap.to_right),
                     str(swap.changes.n), str(swap.changes.groups)])  # fmt: skip
    return table(header, body, numbers_from=2)


def _stability(analysis: Analysis) -> str:
    header = ["run", "what changes", "answer changes", "95 % interval", "clips", "tuples", "top-1 then"]
    body = []
    for run, variant, rate in analysis.stability:
        then = analysis.kinds.variants[run.first.run][variant].spread("zsl", "top1")
        body.append([run.first.run, variant, *_rate(rate), str(rate.n), str(rate.groups), percent(then)])
    return table(header, body, numbers_from=2)


def _rate(rate: Rate) -> tuple[str, str]:
    return f"{100 * rate.value:.1f}", f"{100 * rate.low:.1f} to {100 * rate.high:.1f}"


def _mean(gap: Difference | None) -> float | None:
    return gap.mean if gap else None


def _interval(gap: Difference | None) -> str:
    if gap is None or gap.interval is None:
        return NONE
    return f"{points(gap.interval[0])} to {points(gap.interval[1])}"

"""The report as one HTML page that needs nothing else: styles and pictures are inside.

Writes nothing itself; `page` returns the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from pipeline.report.controlled import Analysis, sections
from pipeline.report.families import Family, families
from pipeline.report.html import image, table
from pipeline.report.leaderboard import MEASURES, NONE, interval, percent, points, seeds, setting
from pipeline.report.prices import Price
from pipeline.report.prices import section as price_section
from pipeline.report.published import REMARK, Comparison, defects
from pipeline.report.results import Run


@dataclass(frozen=True)
class Section:
    """One protocol of one dataset: its methods (best first), their pictures, its chance level, and what else was found.

    `everyone` are all runs but those on variants: ablations too.
    """

    dataset: str
    protocol: str
    runs: tuple[Run, ...]
    everyone: tuple[Run, ...]
    bars: Path
    confusions: tuple[Path, ...]
    chance: float | None
    analysis: Analysis
    prices: tuple[Price, ...] = ()
    repeated: tuple[str, ...] = ()  # HTML of the part on duplicates


STYLE = """
:root { --ink:#22303c; --faint:#66737e; --line:#dfe4e8; --soft:#f5f7f9; --red:#b3261e; --amber:#b26a00 }
* { box-sizing:border-box }
body { margin:0; background:white; color:var(--ink); font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif }
main { max-width:1120px; margin:0 auto; padding:40px 28px 80px }
h1 { font-size:30px; margin:0 0 4px; letter-spacing:-.01em }
h2 { font-size:21px; margin:52px 0 6px; padding-top:20px; border-top:2px solid var(--ink) }
h2 small { font-weight:400; color:var(--faint); font-size:16px }
h3 { font-size:16px; margin:30px 0 6px }
p { max-width:76ch; margin:8px 0 }
ul { max-width:76ch; margin:10px 0; padding-left:20px }
li { margin:4px 0 }
img { max-width:100%; height:auto; display:block }
table { border-collapse:collapse; font-size:14px; margin:8px 0; font-variant-numeric:tabular-nums; white-space:nowrap }
th { text-align:left; font-weight:600; color:var(--faint); border-bottom:2px solid var(--ink); padding:5px 15px 5px 0 }
td { border-bottom:1px solid var(--line); padding:6px 15px 6px 0; vertical-align:top }
td:first-child { font-weight:600 }
td:last-child, th:last-child { padding-right:0 }
td.n, th.n { text-align:right }
footer { margin-top:56px; padding-top:14px; border-top:1px solid var(--line); color:var(--faint); font-size:14px }
.lead { color:var(--faint); margin-top:0 }
.scroll { overflow-x:auto }
.scroll img { min-width:680px }
.grid { display:flex; flex-wrap:wrap; gap:18px 26px }
.grid img { width:490px }
figure { margin:0 }
figcaption { color:var(--faint); font-size:14px; overflow-wrap:anywhere }
.ablations td:nth-child(2), .settings td:nth-child(2), .settings td:nth-child(5) { white-space:normal; min-width:18ch }
p > .red, p > .amber { white-space:nowrap }
.left-out { background:var(--soft); border-left:3px solid var(--red); padding:8px 16px; font-size:14px; margin:14px 0 }
.red { color:var(--red); font-weight:600 }
.amber { color:var(--amber); font-weight:600 }
"""

NOT_CHOSEN = ("seconds", "trained_on")  # of selection.json: what it cost, and the hash of what was learnt from

COST = """<p>Of stage two, means of one seed: skeleton encoder and method together, GFLOP for one clip; training of
the method, both phases, in CPU seconds of all threads; test on all test clips, in seconds of wall time.</p>"""

OVER_SPLITS = """<p>Each split counts with its mean over seeds. The interval is the exact binomial one of these
means over the clips of all splits; splits share clips, so it is narrower than it should be.</p>"""

HOW_TO_READ = """<h2>How to read this</h2>
<ul>
<li><b>±</b> is the sample standard deviation over seeds. One seed is called a <i>single run</i> and has none.</li>
<li>The <b>95 % interval</b> is the exact binomial (Clopper-Pearson) interval of the mean top-1: how far a test set of
this size can mislead. It is not the spread over seeds, and more seeds make it no narrower.</li>
<li><b>top-1</b> counts clips, <b>macro</b> is the mean over classes. <b>S</b>, <b>U</b>, <b>H</b>: accuracy on seen and
on unseen test clips with all classes as candidates, and their harmonic mean; <b>AUSUC</b> is the area under the
seen-unseen curve.</li>
<li>The <b>skeleton-only ceiling</b> is exact for true skeletons: unseen test clips come as twins that differ in nothing
but the held object, and <b>twins right</b> is the most that any set of them had right. Estimated skeletons may carry a
trace of the object; the excess is called <b>HPE leakage</b> and proves nothing by itself.</li>
<li>The <b>cue-only ceiling</b> is what an oracle reaches that knows the object and not the motion. Only both together
pass both.</li>
<li><b>HPE text</b> tells whether the pose model was tuned with captions: <i>none</i>, <i>captions</i>, or
<i>captions-strict</i> (without the objects that are held back). It never saw an action label.</li>
<li><b>adapted</b> is after test-time adaptation: it sees test clips of several classes at once and never replaces
the first number.</li>
</ul>"""


def page(protocols: Sequence[Section], complaints: Sequence[str], comparisons: Sequence[Comparison] = ()) -> str:
    """The whole page. `complaints`: sentences on results that were left out; `comparisons` are shown first."""
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>posebridge: results</title><style>{STYLE}</style></head><body><main>",
        "<h1>Results</h1>",
        "<p class='lead'>Zero-shot action recognition from poses and pose-anchored cues. Every figure was measured by "
        "<code>posebridge evaluate</code> on test clips that nothing was chosen on.</p>",
    ]
    if complaints:
        items = "".join(f"<li>{escape(complaint)}</li>" for complaint in complaints)
        parts.append(f"<div class='left-out'><b>Left out of this report</b><ul>{items}</ul></div>")
    if comparisons:
        parts += _published(comparisons)
    if repeated := families([run for section in protocols for run in section.runs]):
        parts += _families(repeated)
    for section in protocols:
        parts += _section(section)
    parts += [HOW_TO_READ, "<footer>Made by <code>posebridge report</code>.</footer></main></body></html>\n"]
    return "\n".join(parts)


def _published(comparisons: Sequence[Comparison]) -> list[str]:
    """Published figures beside ours, with their sources and known defects."""
    rows = [comparison.cells() for comparison in comparisons]
    figures = table(list(rows[0]), [list(row.values()) for row in rows], numbers_from=4, kind="published", whole=True)
    known = "".join(f"<li>{escape(sentence)}</li>" for sentence in defects(comparisons))
    return ["<h2>Published figures <small>beside ours</small></h2>", f"<p>{escape(REMARK)}</p>", figures,
            f"<ul>{known}</ul>"]  # fmt: skip


def _families(found: Sequence[Family]) -> list[str]:
    """Means over splits that repeat one another."""
    header = ["data set", "splits", "run", "number", "top-1", "least to most", "95 % interval", "H"]
    body = []
    for each in found:
        cells = [each.dataset, each.name, each.run, str(each.splits), percent(each.top1)]
        cells += [f"{100 * each.low:.1f} to {100 * each.high:.1f}"]
        cells += [f"{100 * each.ci95[0]:.1f} to {100 * each.ci95[1]:.1f}", percent(each.harmonic)]
        body.append(cells)
    return ["<h2>Over splits <small>mean ± standard deviation over splits</small></h2>", OVER_SPLITS,
            table(header, body, numbers_from=3)]  # fmt: skip


def _section(section: Section) -> list[str]:
    first = section.runs[0].first
    parts = [f"<h2>{escape(section.dataset)} <small>{escape(section.protocol)}</small></h2>", _setup(section)]
    parts += [f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in findings(section.runs))}</ul>"]
    picture = image(section.bars, f"Zero-shot top-1 on {section.protocol}, as in the table below")
    parts += [f"<div class='scroll'>{picture}</div>"]
    parts += ["<h3>Zero-shot: only unseen classes are candidates</h3>", _zero_shot(section.runs)]
    if any(run.first.gzsl for run in section.runs):
        parts += ["<h3>Generalised: seen and unseen classes are candidates</h3>", _generalised(section.runs)]
    parts += sections(section.analysis)
    parts += price_section(section.prices)
    parts += section.repeated
    if section.confusions:
        boxes = " Red boxes hold the classes that share a motion." if first.ceiling else ""
        parts += [f"<h3>Which unseen classes are mistaken for which</h3><p>Clips, added up over the seeds.{boxes}</p>"]
        images = "".join(image(path, f"Confusion: {path.stem}") for path in section.confusions)
        parts += [f"<div class='grid'>{images}</div>"]
    parts += ["<h3>Settings and cost</h3>", COST, _settings(section.everyone)]
    return parts


def _setup(section: Section) -> str:
    first = section.runs[0].first
    text = f"<p>{first.zsl['n']} test clips of unseen classes."
    if first.ceiling:
        skeleton, cue = 100 * first.ceiling["skeleton"], 100 * first.ceiling["cue"]
        text += f" Whoever sees the skeleton only can reach <span class='red'>{skeleton:.1f} %</span>;"
        text += f" whoever sees the object only, <span class='amber'>{cue:.1f} %</span>."
    if section.chance is not None:
        text += f" Chance is {100 * section.chance:.1f} %."
    if missing := max(run.first.missing for run in section.runs):
        text += f" <span class='red'>{missing} test clips are missing</span>, since their extraction failed."
    return text + "</p>"


def findings(runs: Sequence[Run]) -> list[str]:
    """What the figures say about the ceilings, one HTML sentence each; silent where no ceiling is known."""
    sentences = []
    for run in runs:
        ceiling, name, top1 = run.first.ceiling, escape(run.first.run), run.spread("zsl", "top1")
        if not ceiling or run.above_ceiling is None or top1 is None:
            continue
        over = "a single run" if run.single else f"mean of {len(run.seeds)} seeds"
        if run.leakage:
            excess, low, high = run.leakage
            reads = "which includes 0" if low <= 0 <= high else "which does not include 0"
            sentences.append(
                f"<b>HPE leakage</b> ({name}: skeleton only, estimated skeletons): {percent(top1)} %, {over}, is "
                f"{_beside(excess)} the skeleton-only ceiling; the exact 95 % interval is "
                f"{points(low)} to {points(high)}, {reads}."
            )
        elif not run.takes_cues:
            sentences.append(f"<b>{name}</b> (skeleton only, true skeletons): {percent(top1)} %, {over}.{_twins(run)}")
        else:
            sentences.append(
                f"<b>{name}</b>: {percent(top1)} %, {over}: {_beside(run.above_ceiling)} the skeleton-only ceiling, "
                f"{_beside(top1.mean - ceiling['cue'])} the cue-only ceiling."
            )
    return sentences


def _twins(run: Run) -> str:
    """The verdict of the twins on a skeleton-only run with true skeletons."""
    if run.twin_hits_max is None:
        return ""
    if run.twin_hits_max > 1:
        return f" <span class='red'>{run.twin_hits_max} twins of one set are right: something leaks.</span>"
    return " At most one of each set of twins is right, as must be."


def _beside(difference: float) -> str:
    if abs(difference) < 0.0005:
        return "level with"
    return f"{100 * abs(difference):.1f} points {'above' if difference > 0 else 'below'}"


def _zero_shot(runs: Sequence[Run]) -> str:
    header = ["run", "skeletons", "HPE text", "seeds", "top-1", "macro",
              "95 % interval", "vs ceiling", "adapted", "twins right"]  # fmt: skip
    body = []
    for run in runs:
        cells = [run.first.run, run.first.skeletons, run.first.hpe_text, seeds(run)]
        cells += [percent(run.spread("zsl", "top1")), percent(run.spread("zsl", "macro")), interval(run)]
        cells += [points(run.above_ceiling), percent(run.spread("adapted", "top1"))]
        cells += [NONE if run.twin_hits_max is None else str(run.twin_hits_max)]
        body.append(cells)
    return table(header, body, numbers_from=4)


def _generalised(runs: Sequence[Run]) -> str:
    measures = {key: title for key, title in MEASURES.items() if key[0] == "gzsl"}
    body = [[run.first.run, seeds(run), *(percent(run.spread(*key)) for key in measures)] for run in runs]
    return table(["run", "seeds", *measures.values()], body, numbers_from=2)


def _settings(runs: Sequence[Run]) -> str:
    header = ["run", "method, flags", "recipe", "text", "chosen on validation classes",
              "parameters", "GFLOP", "training, CPU s", "test, s"]  # fmt: skip
    body = []
    for run in runs:
        params, gflops, seconds = (run.mean(name) for name in ("params", "gflops", "seconds"))
        training = run.training_seconds
        body.append([run.first.run, setting(run), recipes(run), run.first.text, _chosen(run),
                     NONE if params is None else f"{params / 1e6:.2f} M", NONE if gflops is None else f"{gflops:.3g}",
                     NONE if training is None else f"{training:.0f}",
                     NONE if seconds is None else f"{seconds:.1f}"])  # fmt: skip
    return table(header, body, numbers_from=5, kind="settings")


def recipes(run: Run) -> str:
    """The extractions that a run reads: `gt` for true skeletons alone, `gt, cues refined` where cues are of another."""
    first = run.first
    if first.skeletons == "estimated":
        return first.recipe
    return f"{first.skeletons}, cues {first.recipe}" if run.takes_cues else first.skeletons


def _chosen(run: Run) -> str:
    """The values that validation chose: `alpha 0.5 / 0.2 / 0.5` in the order of seeds, once where all are equal."""
    chosen = []
    for name, first in run.first.selection.items():
        if not isinstance(first, int | float | str) or name in NOT_CHOSEN or name.startswith(("zsl_", "gzsl_")):
            continue  # the scores that the choice was made by are for metrics.json
        values = [result.selection.get(name, NONE) for result in run.results]
        shown = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
        chosen.append(f"{name} {' / '.join(shown[:1] if len(set(shown)) == 1 else shown)}")
    return ", ".join(chosen) or NONE

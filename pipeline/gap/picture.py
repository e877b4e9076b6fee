"""The picture of a gap: what each look knows of the attribute, as bars with their intervals, and chance."""

from __future__ import annotations

from matplotlib.figure import Figure

from pipeline.gap.gap import Gap
from pipeline.gap.known import BOTH, CUES, SKELETON
from pipeline.recipe import BACKGROUND
from pipeline.report.figures import BASELINE, COLOURS, FAINT, INK, lettering


def draw_gap(found: Gap) -> Figure:
    """The skeleton grey, all cues and both dark, levels and anchors light; the control striped."""
    height = 1.6 + 0.36 * len(found.knows)
    figure = Figure(figsize=(8.4, height), facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.235, right=0.95, top=1 - 0.75 / height, bottom=0.6 / height)
    for row, each in enumerate(found.knows):
        low, high = (100 * bound for bound in each.ci95)
        value = 100 * each.accuracy
        main, control = each.what in (CUES, BOTH), each.what.endswith(BACKGROUND)
        colour = BASELINE if each.what == SKELETON or control else COLOURS[0]
        axes.barh(row, value, height=0.62, color=colour, alpha=1.0 if main or colour == BASELINE else 0.45,
                  hatch="////" if control else None, edgecolor="white", linewidth=0, zorder=2)  # fmt: skip
        axes.plot([low, high], [row, row], color=INK, linewidth=1, marker="|", markersize=6, zorder=4)
        axes.text(max(high, value) + 1.2, row, f"{value:.1f}", va="center", color=INK, fontsize=9.5,
                  fontweight="bold" if main or each.what == SKELETON else "normal", zorder=5)  # fmt: skip
    axes.axvline(100 * found.chance, color=FAINT, linestyle="--", linewidth=1, zorder=3)
    axes.text(100 * found.chance, -0.75, "chance", color=FAINT, fontsize=8.5, ha="center", va="bottom")
    axes.set_yticks(range(len(found.knows)), [each.what for each in found.knows], fontsize=9.5, color=INK)
    axes.set_ylim(len(found.knows) - 0.4, -0.8)
    axes.set_xlim(0, min(108, max(100 * each.ci95[1] for each in found.knows) + 9))
    by = lettering(found.grouped_by)
    axes.set_xlabel(f"% right, mean over {len(found.values)} values; folds and 95 % by groups of {by}", fontsize=9,
                    color=FAINT)  # fmt: skip
    axes.tick_params(length=0, colors=FAINT)
    axes.tick_params(axis="y", colors=INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    low, high = (100 * bound for bound in found.gap_ci95)
    title = f"{found.dataset}: what is known of {lettering(found.attribute, 40)}"
    figure.text(0.02, 1 - 0.14 / height, title, va="top", fontsize=12, fontweight="bold", color=INK)
    figure.text(0.02, 1 - 0.42 / height,
                f"skeletons alone lose {100 * found.gap:.1f} points ({low:.1f} to {high:.1f}); {found.clips} clips, "
                f"{found.groups} groups, recipe {found.recipe}", va="top", fontsize=9.5, color=FAINT)  # fmt: skip
    return figure

"""`posebridge cache stats`: one extraction, in a table.

Reads cache/<dataset>/<recipe>/index.json and the shards that it names; writes nothing.
Command: posebridge cache stats --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stages.shell import answer, cache_option, dataset_option, json_option, plain_errors, recipe_option, root_option

# of the seconds; side by side, so that they are no sum
PARTS = (("decode", "decoding"), ("boxes", "finding persons"), ("pose", "pose model and cues"))
LARGEST = 6  # datasets whose sizes are shown; --json has all


@click.command("stats")
@dataset_option
@recipe_option
@cache_option
@root_option
@json_option
@plain_errors
def stats(dataset: str, recipe_name: str, cache: Path, cache_root: Path | None, as_json: bool) -> None:
    """Describe one extraction: bytes a clip, seconds, how much was seen, what was odd about its videos, failures.

    \b
    Example: posebridge cache stats --dataset skelgap-mini --recipe refined
    """
    from pipeline.cache.index import index_path
    from pipeline.cache.inventory import statistics
    from pipeline.cache.reader import CacheReader

    with CacheReader(index_path(cache, dataset, recipe_name), cache_root) as reader:
        values = statistics(reader)
    answer(values, table(values), as_json)


def table(values: dict[str, Any]) -> str:
    """The statistics as a table for people; what no clip has is left out."""
    videos = values["videos"]
    rows: list[tuple[str, str]] = [
        ("clips", f"{values['clips']:,}"),
        ("shards", f"{values['shards']:,}"),
        ("size", f"{megabytes(values['bytes'])}, {values['bytes_per_clip'] / 1e3:,.1f} kB a clip"),
        *((f"  {name}", megabytes(size)) for name, size in largest(values["bytes_by_dataset"])[:LARGEST]),
        *took(values["extraction"]),
        ("first person seen", share(values["first_person_seen"])),
        ("anchors seen", share(values["anchors_seen"])),
        ("mean score of a joint", "-" if values["mean_score"] is None else f"{values['mean_score']:.3f}"),
        ("clips made from videos", f"{videos['clips_of_videos']:,}"),
        *((f"  {name}", f"{count:,}") for name, count in odd_videos(videos)),
        ("failures", f"{sum(values['failures'].values()):,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in largest(values["failures"])),
    ]
    width = min(max(len(name) for name, _ in rows), 60)
    lines = [f"{name:{width}}  {value}" for name, value in rows]
    if videos["few_frames"]:
        first = ", ".join(map(repr, videos["few_frames_first"]))
        lines.append(f"Warning: clips that show few different frames: {videos['few_frames']}, first {first}.")
    return "\n".join(lines)


def took(extraction: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What the extraction took, as far as receipts tell."""
    if extraction is None:
        return []
    seconds, clips = extraction["seconds"], extraction["estimated"]
    parts = [(title, seconds[name]) for name, title in PARTS if name in seconds]
    return [
        ("estimated in", f"{seconds['wall']:,.1f} s of a worker, {seconds['cpu']:,.1f} s of CPU, {clips:,} clips"),
        *((f"  {title}", f"{each:,.1f} s, {1e3 * each / clips:,.0f} ms a clip") for title, each in parts),
    ]


def odd_videos(videos: dict[str, Any]) -> list[tuple[str, int]]:
    """What some clips' videos are, and how many; nothing that none is."""
    named = [
        *videos["containers"].items(),
        ("of a file with several tracks", videos["several_tracks"]),
        *((f"laid down by its display matrix: {name}", count) for name, count in videos["orientations"].items()),
        ("pixels not square", videos["pixels_not_square"]),
        ("size changes in mid-stream", videos["size_changes"]),
        ("packets lost", videos["packets_lost"]),
        *((f"time stamps {name}", count) for name, count in videos["timing"].items()),
        *((f"HDR mapped to SDR: {name}", count) for name, count in videos["tone"].items()),
        ("transparent, composed on black", videos["transparent"]),
        ("interlaced", videos["interlaced"]),
        ("joints without a finite number", videos["joints_without_numbers"]),
        ("cues without a finite number", videos["cues_without_numbers"]),
        ("few different frames", videos["few_frames"]),
    ]
    return [(name, count) for name, count in named if count]


def largest(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The largest first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def share(value: float | None) -> str:
    """98.5 %, or a dash where there was nothing to count."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def megabytes(size: int) -> str:
    """A size in MB."""
    return f"{size / 1e6:,.2f} MB"

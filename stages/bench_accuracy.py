"""`posebridge bench examples | cues | leaks`: how right answers are, not how fast; and what leaks would add to them.

Reads the cache and trained runs; writes nothing but for the leaks (cache/leaks/).
Command: posebridge bench leaks --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
"""

from __future__ import annotations

import dataclasses
from math import nan
from pathlib import Path

import click

from pipeline.params import choose, load_params
from pipeline.recipe import Recipe
from stages.bars import epochs, progress
from stages.shell import (
    answer,
    dataset_option,
    jobs_option,
    json_option,
    params_option,
    plain_errors,
    protocol_option,
    root_option,
    say,
    seeds_option,
)


@click.command("examples")
@click.option("--dataset", required=True)
@click.option("--recipe", "recipe_name", required=True)
@root_option
@json_option
@plain_errors
def examples(dataset: str, recipe_name: str, cache_root: Path | None, as_json: bool) -> None:
    """How often `predict --examples` would be right: one subject left out at a time, all others as examples.

    \b
    Example: posebridge bench examples --dataset ut_interaction --recipe tinypose
    """
    from pipeline.bench.examples import bench_examples
    from pipeline.learn.dataset import open_dataset

    result = bench_examples(open_dataset(dataset, store_root=cache_root), recipe_name)
    lines = [f"{result.clips} clips in {result.groups} groups, chance {result.chance:.3f}, {result.missing} missing:"]
    lines += [
        f"  {name:28} {value:.3f}  (95 % {result.ci95[name][0]:.3f} to {result.ci95[name][1]:.3f})"
        for name, value in result.accuracy.items()
    ]
    answer(dataclasses.asdict(result), "\n".join(lines), as_json)


@click.command("cues")
@click.option("--weights", required=True, help="Weights of an mmpose model: a shipped name, a path or `auto`.")
@click.option("--config", default=Recipe.config, show_default=True, help="The mmpose config of the weights.")
@click.option("--stills", "count", type=click.IntRange(1), default=1000, show_default=True,
              help="Held-out stills; the probes learn from three times as many others.")  # fmt: skip
@json_option
@plain_errors
def cues(weights: str, config: str, count: int, as_json: bool) -> None:
    """What a pose model knows of the held object, at the hands and elsewhere, and how good its keypoints are.

    On rendered stills, made on the fly, with other objects lying about.

    \b
    Example: posebridge bench cues --weights skelgap-sem
    """
    import torch

    from pipeline.synth.objects import OBJECTS
    from pipeline.synth.stills import every_caption
    from pipeline.text.encoder import SentenceEncoder

    sentences = every_caption(tuple(OBJECTS))
    say(f"Embedding {len(sentences)} captions.")
    vectors = torch.from_numpy(SentenceEncoder().encode(sentences))
    from pipeline.bench.cues import PLACES, probe_cues  # after the sentence encoder: it loads mmpose

    result = probe_cues(
        Recipe(weights=weights, config=config),
        3 * count,
        count,
        dict(zip(sentences, vectors, strict=True)),
        lambda source: progress(source, 4 * count, "still", "bench cues"),
    )
    quality = result.quality
    lines = [
        f"{weights} ({result.hpe_text}) on {count} held-out stills: PCK@0.1 {quality['pck']:.3f}, wrists "
        f"{quality['pck_wrists']:.3f}, OKS-AP {quality['oks_ap']:.3f}, {result.seconds:.0f} s.",
        f"The held object by a linear probe, {result.answers} answers, chance {result.chance:.3f} (95 % interval); the "
        f"caption among 100 by the body's cue, {result.captions_asked} asked:",
        f"{'':11}" + "".join(f"{place:22}" for place in PLACES) + "caption",
    ]
    for name in dict.fromkeys(reading.map for reading in result.readings):
        cells = [f"{r.accuracy:.3f} ({r.ci95[0]:.3f}-{r.ci95[1]:.3f})" for r in result.readings if r.map == name]
        lines.append(f"{name:11}" + "".join(f"{c:22}" for c in cells) + f"{result.caption_r1.get(name, nan):.3f}")
    answer(dataclasses.asdict(result), "\n".join(lines), as_json)


@click.command("leaks")
@dataset_option
@protocol_option
@click.option("--run", "run_names", required=True, multiple=True, help="A trained run; may be repeated.")
@seeds_option
@jobs_option
@root_option
@params_option
@json_option
@plain_errors
def leaks(
    dataset: str, protocol: str, run_names: tuple[str, ...], seeds: tuple[int, ...], jobs: int,
    cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """The price of each leak: what a run's figures would be with the mistakes of released evaluations.

    No figure of `evaluate` comes from here. Writes cache/leaks/<dataset>/<protocol>/<run>.csv, which `report` shows.

    \b
    Example: posebridge bench leaks --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from pipeline.bench.leaks import price_run
    from pipeline.learn.dataset import open_dataset

    params, opened = load_params(params_path).only(seeds), open_dataset(dataset, store_root=cache_root)
    tables = {}
    for name in run_names:
        run = choose(params.runs, name, "run").of(protocol)
        with epochs(f"bench leaks {name}", len(params.seeds(run))) as on_epoch:
            tables[name] = price_run(opened, protocol, name, run, params, on_epoch, jobs)
    answer({"tables": tables}, "\n".join(f"Wrote {path}." for path in tables.values()), as_json)

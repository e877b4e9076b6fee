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
    device_option,
    devices_of,
    given,
    jobs_option,
    json_option,
    params_option,
    plain_errors,
    protocol_option,
    root_option,
    say,
    seeds_option,
)

OF_STILLS = ("config", "count")  # options of `bench cues` that say nothing of the other kind of pictures
OF_CLIPS = (
    "recipe_name", "attribute", "grouped_by", "values", "taps", "most", "seed", "protocols", "choosing", "device",
)  # fmt: skip


@click.command("confidence")
@dataset_option
@protocol_option
@click.option("--run", "run_name", required=True, help="A name under `runs` in params.yaml.")
@seeds_option
@root_option
@params_option
@json_option
@plain_errors
def confidence(
    dataset: str, protocol: str, run_name: str, seeds: tuple[int, ...], cache_root: Path | None, params_path: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """How far the shares of `predict` can be believed, and how often `none of these` is told, on test clips of a run,
    of which nothing was learnt.

    \b
    Example: posebridge bench confidence --dataset skelgap-mini --protocol compositional_18_6 --run posebridge
    """
    from pipeline.bench.confidence import bench_confidence
    from pipeline.learn.dataset import open_dataset
    from pipeline.params import RunParams

    params = load_params(params_path)
    run: RunParams = choose(params.runs, run_name, "run")
    opened = open_dataset(dataset, store_root=cache_root, strict=False)  # bench_confidence tells what is missing
    found = bench_confidence(opened, protocol, run_name, run, seeds or params.seeds(run))
    lines = []
    for each in found:
        told = "" if each.told is None else f"; none of these told {each.told:.2f}, wrongly said {each.lost:.2f}"
        lines.append(f"{each.scope}, {each.labels} labels: {each.clips} clips, right {each.accuracy:.2f}; calibration "
                     f"error {each.ece_before:.2f} before, {each.ece:.2f} now{told}")  # fmt: skip
    answer({"confidence": [dataclasses.asdict(each) for each in found]}, "\n".join(lines), as_json)


@click.command("examples")
@dataset_option
@click.option("--recipe", "recipe_name", required=True,
              help="The recipe of the extraction: a name under `recipes` in params.yaml.")  # fmt: skip
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
@click.option("--weights", help="Weights of an mmpose model: a shipped name, a path or `auto`.")
@click.option("--config", default=Recipe.config, show_default=True, help="The mmpose config of the weights.")
@click.option("--stills", "count", type=click.IntRange(1), default=1000, show_default=True,
              help="Held-out stills; the probes learn from three times as many others.")  # fmt: skip
@click.option("--dataset", help="Instead of --weights: clips of this data set, with the next options.")
@click.option("--recipe", "recipe_name", default="",
              help="With --dataset: the recipe of its extraction, whose pose model is looked into.")  # fmt: skip
@click.option("--attribute", default="class", show_default=True, help="A column of attributes.csv or clips.csv.")
@click.option("--groups", "grouped_by", default="",
              help="The column by which clips are held out together.  [default: subject, else path, the source "
              "video]")  # fmt: skip
@click.option("--values", default="", help="Only these values of the attribute, parted by commas.  [default: all]")
@click.option("--taps", default="all", show_default=True,
              help="Names, parted by commas; all: every convolution, sum, join and ReLU of an ONNX file at the strides "
              "4 to 32, and of mmpose the backbone's stages.")  # fmt: skip
@click.option("--clips", "most", type=click.IntRange(10, 3000), default=1000, show_default=True,
              help="The most clips; memory grows with their square.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another number draws other clips.")
@click.option("--protocol", "protocols", multiple=True,
              help="May be repeated: its unseen classes are a fold.  [default: five folds of groups]")  # fmt: skip
@click.option("--choose-on", "choosing", multiple=True,
              help="Those of the protocols whose unseen classes choose taps.  [default: three folds]")  # fmt: skip
@device_option
@root_option
@params_option
@json_option
@plain_errors
def cues(
    weights: str | None, config: str, count: int, dataset: str | None, recipe_name: str, attribute: str,
    grouped_by: str, values: str, taps: str, most: int, seed: int, protocols: tuple[str, ...],
    choosing: tuple[str, ...], device: str, cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """What a pose model knows of the held object, at the hands and elsewhere, and how good its keypoints are.

    On rendered stills, made on the fly, with other objects lying about. Or, with --dataset, what each of its inner maps
    knows of an attribute of real clips, beside the controls background and raw colours, and which taps a recipe should
    name.

    \b
    Examples:
      posebridge bench cues --weights skelgap-sem
      posebridge bench cues --dataset gym --recipe tinypose --attribute equipment --groups shoot
        --params params/gym.yaml
    """
    if (weights is None) == (dataset is None) or dataset is not None and not recipe_name:
        raise click.UsageError("Give --weights, or --dataset and --recipe.")
    if option := given(OF_STILLS if dataset is not None else OF_CLIPS):
        raise click.UsageError(f"{option} goes with {'--weights' if dataset is not None else '--dataset'} only.")
    if dataset is not None:
        from stages.bench_taps import probe_dataset

        chosen = tuple(filter(None, map(str.strip, values.split(","))))
        result, lines = probe_dataset(
            dataset, recipe_name, attribute, grouped_by, chosen, taps, most, seed, protocols, choosing, params_path,
            cache_root, devices_of(device)[0],
        )  # fmt: skip
        answer(result, lines, as_json)
    else:
        _on_stills(str(weights), config, count, as_json)


def _on_stills(weights: str, config: str, count: int, as_json: bool) -> None:
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

    params = load_params(params_path).only(seeds)
    opened = open_dataset(dataset, store_root=cache_root, strict=False)  # price_run tells what is missing
    tables = {}
    for name in run_names:
        run = choose(params.runs, name, "run").of(protocol)
        with epochs(f"bench leaks {name}", len(params.seeds(run))) as on_epoch:
            tables[name] = price_run(opened, protocol, name, run, params, on_epoch, jobs)
    answer({"tables": tables}, "\n".join(f"Wrote {path}." for path in tables.values()), as_json)

"""`posebridge search`: which clips of the cache show this?

Reads the cache and a trained run; writes cache/search/, and a page where one is asked for.
Command: posebridge search "a person lifts a barbell"
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.errors import PosebridgeError
from pipeline.params import Params, load_params
from stages.bars import Bar
from stages.predict import CACHE, open_poses
from stages.shell import (
    Place,
    answer,
    device_option,
    devices_of,
    json_option,
    params_option,
    plain_errors,
    root_option,
    say,
    seed_option,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.search.embedders import Embedder, Trained
    from pipeline.search.search import Hit

CLASSES_SHOWN = 8
OTHERWISE = "train one of posebridge or skeleton, or give --like with a video, which needs no training"


@click.command()
@click.argument("query", required=False)
@click.option("--like", type=Place(exists=True), multiple=True, help="Instead of a query: a video "
              "of what is looked for; may be repeated.")  # fmt: skip
@click.option("--run", "run_name", help="A trained run named in params.yaml.  [default: the best one for a query; none "
              "for --like, which compares skeletons]")  # fmt: skip
@click.option("--dataset", help="The data set that the run is trained on.  [default: the only one]")
@click.option("--protocol", help="The protocol that it is trained with.  [default: all_seen, else the only one]")
@seed_option
@click.option("--recipe", "recipe_name", default="tinypose", show_default=True, help="For --like without --run: whose "
              "extractions are searched.")  # fmt: skip
@click.option("--in", "names", multiple=True, metavar="DATASET", help="Search only this data set; may be repeated.  "
              "[default: all that the recipe has extracted]")  # fmt: skip
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many clips to tell.")
@click.option("--html", type=Place(dir_okay=False), help="A page to write: frames of each clip "
              "with joints and times.")  # fmt: skip
@device_option
@root_option
@params_option
@json_option
@plain_errors
def command(
    query: str | None, like: tuple[Path, ...], run_name: str | None, dataset: str | None, protocol: str | None,
    seed: int, recipe_name: str, names: tuple[str, ...], top: int, html: Path | None, device: str,
    cache_root: Path | None, params_path: Path, as_json: bool,
) -> None:  # fmt: skip
    """Find clips in all of the cache that a sentence describes, or that are like an example.

    A trained run puts clips and the sentence into one space; the sentence takes the place of all descriptions of a
    class. Scores are cosines: they rank clips of one question, and are no probabilities. Clips that are not embedded
    yet are embedded first, once a run; the vectors stay in cache/search/.

    \b
    Examples:
      posebridge search "a person lifts a barbell" --html found.html
      posebridge search "throwing" --run posebridge --in skelgap-mini --top 20
      posebridge search --like clip.mp4
    """
    if (query is None) == (not like):
        raise click.UsageError('Give a query, such as "a person lifts a barbell", or --like with a video.')
    begun = time.perf_counter()
    from pipeline.search.embedders import Trained, check_query
    from pipeline.search.nearest import load_faiss
    from pipeline.search.search import Search

    load_faiss()
    words = check_query(query) if query is not None else ""
    params, (place,), warnings = load_params(params_path), devices_of(device), []
    embedder: Embedder
    if words or run_name is not None:
        embedder = open_run_for(params, words, run_name, dataset, protocol, seed, cache_root, place)
        if not like:
            asked, warnings = embedder.say(words)
    if like:
        embedder, asked = see(like, params, embedder if run_name is not None else None, recipe_name, device, warnings)
    names = tuple(bring_up_to_date(embedder, names, cache_root, warnings))
    search = Search(embedder, names, CACHE, place)
    ready = time.perf_counter()
    hits = search.find(asked, top)
    seconds = time.perf_counter() - ready
    for each in warnings:
        say(f"Warning: {each}")
    facts = {"query": words or None, "like": [str(path) for path in like], "datasets": names, "clips": search.clips}
    if isinstance(embedder, Trained):
        told = f"by the run {' '.join(embedder.place)}, trained on {len(embedder.seen)} classes: {shown(embedder.seen)}"
        facts |= dict(zip(("dataset", "protocol", "run"), embedder.place, strict=False))
        facts |= {"seed": seed, "trained_on": embedder.seen}
    else:
        told = f"by skeletons of the recipe {embedder.recipe}, nothing trained"
    told = f"{search.clips} clips of {', '.join(names)}, {told}."
    result = facts | {"hits": [dataclasses.asdict(hit) for hit in hits], "warnings": warnings,
                      "seconds": round(seconds, 4), "load_seconds": round(ready - begun, 3)}  # fmt: skip
    lines = [told, *table(hits)]
    if html is not None:
        write_sheet(html, words or f"like {', '.join(map(str, like))}", told, warnings, hits, embedder.recipe, params,
                    cache_root)  # fmt: skip
        result["html"] = str(html)
        lines.append(f"The page: {html}")
    answer(result, "\n".join(lines), as_json)


def open_run_for(
    params: Params, words: str, run_name: str | None, dataset: str | None, protocol: str | None, seed: int,
    cache_root: Path | None, place: torch.device,
) -> Trained:  # fmt: skip
    """The run that is named, or the best one of those that give a clip a vector."""
    from pipeline.methods import find_method
    from pipeline.methods.base import EmbeddingMethod
    from pipeline.params import choose
    from pipeline.predict.choose import best_run
    from pipeline.predict.predict import find_trained
    from pipeline.search.embedders import Trained

    if run_name is None:
        runs = {name: run for name, run in params.runs.items() if issubclass(find_method(run.method), EmbeddingMethod)}
        params = dataclasses.replace(params, runs=runs)
        best = best_run(params, (words,), (), dataset, protocol, seed, CACHE, otherwise=OTHERWISE)
        run_name, dataset, protocol = best.run, best.dataset, best.protocol
    run = choose(params.runs, run_name, "run")
    dataset, protocol = find_trained(CACHE, run_name, dataset, protocol)
    return Trained(dataset, protocol, run_name, run, seed, cache=CACHE, store_root=cache_root, device=place)


def see(
    like: tuple[Path, ...], params: Params, embedder: Embedder | None, recipe_name: str, device: str,
    warnings: list[str],
) -> tuple[Embedder, np.ndarray]:  # fmt: skip
    """What compares, and the vectors of the examples, whose poses are estimated now, or taken from cache/examples."""
    import numpy as np

    from pipeline.hpe.weights import resolve_weights
    from pipeline.learn.features import load_samples
    from pipeline.manifest.failure import Failure
    from pipeline.predict.examples import example_row
    from pipeline.predict.live import find_videos
    from pipeline.search.embedders import Skeletons
    from stages.extract import estimator_on

    if embedder is not None and embedder.cue_recipe not in ("", embedder.recipe):
        raise PosebridgeError(
            "This run takes skeletons and cues from two recipes; search by a sentence, or leave --run out."
        )
    recipe_name = embedder.recipe if embedder else recipe_name
    live = open_poses(params, recipe_name, None, warnings, estimator_on(device))
    now = resolve_weights(params.recipes[recipe_name]).fingerprint
    if embedder is None:
        embedder = Skeletons(recipe_name, now)
    elif now not in embedder.fingerprints:
        raise PosebridgeError(
            f"The recipe {recipe_name!r} in params.yaml is not the one that the run was trained with; put it back."
        )
    rows = []
    for path in [video for place in like for video in find_videos(place)]:
        row = example_row(path, live, CACHE)
        if isinstance(row, Failure):
            raise PosebridgeError(f"{path} is no example: {row.reason}; name another video.")
        rows.append(row)
    reader = live.reader(rows)
    samples = load_samples(reader.clip_ids, reader, reader if embedder.cue_recipe else None)
    return embedder, np.asarray(embedder.ask(samples))


def bring_up_to_date(
    embedder: Embedder, names: tuple[str, ...], cache_root: Path | None, warnings: list[str]
) -> list[str]:
    """The data sets to search in; where none was named, those that cannot be are left out and told of."""
    from pipeline.search.build import data_sets, folder_of, is_current, update
    from pipeline.search.vectors import Vectors

    found, refused = [], []
    bar = Bar("clip", "embed", leave=False)
    for name in data_sets(CACHE, embedder, names):
        try:
            if not is_current(Vectors(folder_of(CACHE, embedder, name)), CACHE, embedder, name):
                begun = time.monotonic()
                count = update(name, embedder, cache=CACHE, store_root=cache_root,
                               on_clip=lambda name, done, total: bar.show(done, total, name))  # fmt: skip
                say(f"Embedded {count} clips of {name} in {time.monotonic() - begun:.0f} s.")
            found.append(name)
        except PosebridgeError as error:
            if names:
                raise
            refused.append(error)
    bar.close()
    if not found:
        raise refused[0]
    warnings += [f"Left out: {error}" for error in refused]
    return found


def write_sheet(
    path: Path, query: str, told: str, warnings: list[str], hits: list[Hit], recipe: str, params: Params,
    cache_root: Path | None,
) -> None:  # fmt: skip
    """The page."""
    from pipeline.files.durable import write_for_people
    from pipeline.report.clip_frames import ClipFrames
    from pipeline.search.sheet import contact_sheet

    roots = {name: Path(each.root) for name, each in params.datasets.items()}
    frames = ClipFrames(CACHE / "videos", Path("manifests"), roots)
    page = contact_sheet(query, told, warnings, hits, recipe, frames, CACHE, cache_root)
    write_for_people(path, page.encode("utf-8", "replace"))


def table(hits: list[Hit]) -> list[str]:
    """A line a clip."""
    from pipeline.search.sheet import time_of

    return [f"{place:3}  {hit.score:.3f}  {hit.dataset}  {hit.clip_id}  {time_of(hit)}"
            for place, hit in enumerate(hits, 1)]  # fmt: skip


def shown(classes: tuple[str, ...]) -> str:
    """The first few of them."""
    more = f" and {len(classes) - CLASSES_SHOWN} others" if len(classes) > CLASSES_SHOWN else ""
    return ", ".join(classes[:CLASSES_SHOWN]) + more

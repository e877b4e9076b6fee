"""`posebridge cache`: look at the feature cache and check it.

Reads cache/store/... and cache/<dataset>/<recipe>/index.json, writes nothing.
Command: posebridge cache verify
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from tqdm import tqdm

from pipeline.errors import PosebridgeError
from stages.shell import answer, json_option, plain_errors, say

cache_option = click.option("--cache", type=click.Path(path_type=Path), default=Path("cache"), show_default=True)
root_option = click.option(
    "--cache-root", type=click.Path(path_type=Path), help="Where the stores lie.  [default: <cache>/store]"
)


@click.group()
def command() -> None:
    """List, describe and verify the feature cache.

    \b
    Examples:
      posebridge cache ls
      posebridge cache stats --dataset skelgap-mini --recipe refined
      posebridge cache verify --quick
    """


@command.command("ls")
@cache_option
@root_option
@json_option
@plain_errors
def list_stores(cache: Path, cache_root: Path | None, as_json: bool) -> None:
    """List the stores.

    \b
    Example: posebridge cache ls
    """
    from pipeline.cache.inventory import summary
    from pipeline.cache.verify import store_folders

    stores = [summary(folder) for folder in store_folders(cache_root or cache / "store")]
    lines = [
        f"{s['dataset']}/{s['store']}  {s['clips']} clips, {s['failures']} failures, "
        f"{s['shards_done']} of {s['shards']} shards, {s['bytes'] / 1e6:.1f} MB"
        + (f", {s['orphan_bytes'] / 1e6:.1f} MB of replaced shards" if s["orphan_bytes"] else "")
        for s in stores
    ]
    answer({"stores": stores}, "\n".join(lines) or "The cache is empty; fill it with `posebridge extract`.", as_json)


@command.command("stats")
@click.option("--dataset", required=True)
@click.option("--recipe", "recipe_name", default="refined", show_default=True)
@cache_option
@root_option
@json_option
@plain_errors
def stats(dataset: str, recipe_name: str, cache: Path, cache_root: Path | None, as_json: bool) -> None:
    """Describe one extraction: bytes a clip, how much was seen, failures.

    \b
    Example: posebridge cache stats --dataset skelgap-mini --recipe refined
    """
    from pipeline.cache.index import index_path
    from pipeline.cache.inventory import statistics
    from pipeline.cache.reader import CacheReader

    with CacheReader(index_path(cache, dataset, recipe_name), cache_root) as reader:
        values = statistics(reader)
    lines = [f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}" for key, value in values.items()]
    answer(values, "\n".join(lines), as_json)


@command.command("verify")
@click.option("--dataset", default="", help="Only this data set.  [default: all]")
@click.option("--quick", is_flag=True, help="Compare sizes instead of hashing every shard.")
@cache_option
@root_option
@json_option
@plain_errors
def verify(dataset: str, quick: bool, cache: Path, cache_root: Path | None, as_json: bool) -> None:
    """Check every receipt, shard and index; exit code 1 and one line for each problem.

    \b
    Example: posebridge cache verify --dataset skelgap-mini
    """
    from pipeline.cache.verify import store_folders, verify_index, verify_store

    root = cache_root or cache / "store"
    folders, problems = store_folders(root, dataset), []
    indexes = sorted(cache.glob(f"{dataset or '*'}/*/index.json"))
    if not folders and not indexes:
        raise PosebridgeError(f"There is no cache to verify in {root}; make one with `posebridge extract`.")
    with tqdm(unit="B", unit_scale=True, disable=None, desc="verify") as bar:
        for folder in folders:
            problems += verify_store(folder, quick, bar.update)
    for index in indexes:
        problems += verify_index(index, root)
    for problem in problems:
        say(f"Error: {problem.reason}")
    values = {
        "stores": len(folders),
        "indexes": len(indexes),
        "quick": quick,
        "problems": [{"path": str(problem.path), "reason": problem.reason} for problem in problems],
    }
    answer(values, f"{len(folders)} stores and {len(indexes)} indexes checked, {len(problems)} problems.", as_json)
    if problems:
        sys.exit(1)

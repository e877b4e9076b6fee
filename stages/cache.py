"""`posebridge cache`: look at the feature cache, check it, clear it up; import, export, estimate and publish it.

Reads cache/store/... and cache/<dataset>/<recipe>/index.json; only `gc --delete` writes. Import, export and
publish are in cache_exchange.py, `estimate` and `stats` in files of their own. Command: posebridge cache verify
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.errors import PosebridgeError
from pipeline.files.names import is_file
from pipeline.params import load_params
from stages.bars import counter
from stages.cache_estimate import estimate
from stages.cache_exchange import export_file, import_features_file, import_file, publish
from stages.cache_stats import stats
from stages.shell import Group, answer, cache_option, json_option, params_option, plain_errors, root_option, say


@click.group(cls=Group)
def command() -> None:
    """The feature cache: list, describe, verify, clear up; import, export, estimate, publish.

    \b
    Examples:
      posebridge cache ls
      posebridge cache stats --dataset skelgap-mini --recipe refined
      posebridge cache verify --quick
      posebridge cache estimate --recipe refined
      posebridge cache import ntu60_3danno.pkl --dataset ntu60 --recipe ntu25_3d --split xsub
      posebridge cache import-features features.npz --dataset ntu60 --protocol synse_55_5 --recipe shift-synse_55_5
    """


command.add_command(import_file)
command.add_command(import_features_file)
command.add_command(export_file)
command.add_command(estimate)
command.add_command(publish)
command.add_command(stats)


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
    from pipeline.cache.inventory import recipe_names, summary
    from pipeline.cache.verify import store_folders

    names = recipe_names(cache)
    stores, damaged = [], []
    for folder in store_folders(cache_root or cache / "store"):
        try:
            stores.append(summary(folder))
        except PosebridgeError as error:
            damaged.append(str(error))
    stores = [s | {"recipes": names.get((s["dataset"], s["store"]), [])} for s in stores]
    lines = [
        f"{s['dataset']}/{s['store']}  {' and '.join(s['recipes']) or 'no recipe'}  "
        f"{s['clips']} clips, {s['failures']} failures, "
        f"{s['shards_done']} of {s['shards']} shards, {s['bytes'] / 1e6:.1f} MB"
        + (f", {s['orphan_bytes'] / 1e6:.1f} MB of replaced shards" if s["orphan_bytes"] else "")
        for s in stores
    ]
    if not (lines or damaged):
        lines = ["The cache is empty; fill it with `posebridge extract`."]
    answer({"stores": stores, "damaged": damaged}, "\n".join(lines), as_json)
    for reason in damaged:
        say(f"Error: {reason}")
    if damaged:
        sys.exit(1)


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
    total = sum(path.stat().st_size for folder in folders for path in folder.glob("shard-*.h5") if is_file(path))
    checked = 0

    with counter("byte", "verify", scale=True) as show:

        def tell(size: int) -> None:
            nonlocal checked
            checked += size
            show(checked, total)

        for folder in folders:
            problems += verify_store(folder, quick, tell)
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


@command.command("gc")
@click.option("--delete", "really", is_flag=True, help="Delete what is listed; without it nothing is touched.")
@cache_option
@root_option
@params_option
@json_option
@plain_errors
def collect(really: bool, cache: Path, cache_root: Path | None, params_path: Path, as_json: bool) -> None:
    """List what nothing refers to any more: replaced shards and drafts older than a day, and forgotten stores.

    A store is forgotten when no index and no recipe in params.yaml refers to it. Stores under --cache-root are never
    taken for forgotten, since other people's indexes may refer to them.

    \b
    Example: posebridge cache gc --delete
    """
    from pipeline.cache.garbage import delete, find_garbage

    recipes = load_params(params_path).recipes.values()
    found = find_garbage(cache_root or cache / "store", cache, recipes, whole_stores=cache_root is None)
    if really:
        delete(found)
    total = sum(item.bytes for item in found)
    lines = [f"{item.kind:8}  {item.bytes / 1e6:10.1f} MB  {item.path}" for item in found]
    done = "deleted" if really else "may go; `posebridge cache gc --delete` deletes them" if found else "may go"
    values = {
        "deleted": really,
        "bytes": total,
        "garbage": [{"path": str(item.path), "kind": item.kind, "bytes": item.bytes} for item in found],
    }
    answer(values, "\n".join([*lines, f"{len(found)} things, {total / 1e6:.1f} MB, {done}."]), as_json)

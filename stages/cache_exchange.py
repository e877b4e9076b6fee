"""`posebridge cache import | import-features | export | publish`: the cache and the world around it.

Reads and writes as pipeline/interchange and pipeline/cache/publish.py say.
Command: posebridge cache import ntu60_3danno.pkl --dataset ntu60 --recipe ntu25_3d --split xsub
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from pipeline.files.shipped import dataset_file
from pipeline.params import choose, load_params
from pipeline.recipe import CUES_ALONE, EXPOSURES, POOLED
from stages.bars import counter
from stages.duplicates import look_for_duplicates
from stages.shell import (
    Place,
    answer,
    cache_option,
    dataset_option,
    json_option,
    manifests_option,
    own_dataset,
    params_option,
    plain_errors,
    recipe_option,
    root_option,
    say,
)


@click.command("import")
@click.argument("file", type=Place())
@click.option("--dataset", required=True, help="A folder under manifests/ with a classes.csv.")
@click.option("--recipe", "recipe_name", required=True, help="A recipe in params.yaml with `backend: import`; of an "
              "archive, any name for its index.")  # fmt: skip
@click.option("--split", default="", help="Which lists of the file give the parts, e.g. xsub for xsub_train, xsub_val.")
@manifests_option
@cache_option
@root_option
@params_option
@json_option
@plain_errors
def import_file(
    file: Path,
    dataset: str,
    recipe_name: str,
    split: str,
    manifests: Path,
    cache: Path,
    cache_root: Path | None,
    params_path: Path,
    as_json: bool,
) -> None:
    """Import skeletons of others: a PYSKL / MMAction2 annotation pickle or a .npz, 2-D or 3-D; or an archive of ours.

    The recipe says which joint layout they have (coco17, openpose18, ntu25, kinect20), how many dimensions, and how
    many persons and frames to keep. The pickle may hold plain data and numpy arrays only. A .npz holds, over N clips,
    frame_dir, label, keypoint [N, M, T, V, C] and optionally keypoint_score, total_frames, img_shape, split.
    A .tar.gz is what `cache export --archive` wrote; every shard is checked against its hash. A file of somebody else
    is data and never code; one that holds, or says that it holds, far more than its size is refused.

    \b
    Example: posebridge cache import ntu60_3danno.pkl --dataset ntu60 --recipe ntu25_3d --split xsub
    """
    from pipeline.hpe.weights import resolve_weights
    from pipeline.interchange.archive import SUFFIX, import_archive
    from pipeline.interchange.importing import import_skeletons
    from pipeline.protocol.duplicates import count_told

    if file.name.endswith(SUFFIX):
        index = import_archive(file, dataset, recipe_name, cache=cache, cache_root=cache_root)
        if (clips_csv := dataset_file(manifests, dataset, "clips.csv")).is_file():
            look_for_duplicates(index, clips_csv, cache_root)
        answer({"index": index}, f"{index}: unpacked and checked.", as_json)
        return
    params = load_params(params_path)
    recipe = resolve_weights(choose(params.recipes, recipe_name, "recipe"))
    own_dataset(manifests, dataset)
    with counter("clip", f"import {file.name}") as show:
        done = import_skeletons(
            dataset,
            recipe_name,
            recipe,
            file,
            split=split,
            clips_per_shard=params.extract.clips_per_shard,
            manifests=manifests,
            cache=cache,
            cache_root=cache_root,
            progress=show,
        )
    parts = ", ".join(f"{count} {part or 'of no part'}" for part, count in done.parts.items() if count)
    parts += val_told(done.val)
    lacking = f"; {len(done.missing)} clips of its lists have no skeleton" if done.missing else ""
    repeated = look_for_duplicates(done.index, dataset_file(manifests, dataset, "clips.csv"), cache_root)
    lacking += f"; {count_told(repeated)}" if repeated else ""
    sentence = f"{done.index}: {done.clips} clips ({parts}), {done.written} new{lacking}."
    more = {"duplicates": [dataclasses.asdict(pair) for pair in repeated]}
    answer(dataclasses.asdict(done) | more, sentence, as_json)


@click.command("import-features")
@click.argument("file", type=Place())
@click.option("--dataset", required=True, help="A folder under manifests/ with classes.csv and protocols.")
@click.option("--protocol", required=True, help="On whose seen classes, and no other, their encoder was trained.")
@click.option("--recipe", "recipe_name", required=True, help="Any name: runs read the features by `recipe: NAME`.")
@click.option("--hpe-text", type=click.Choice(EXPOSURES), default=None, help="What words the pose model of the cues "
              "has seen; needed where there are cues. `seen-classes`: those that PROTOCOL trains on in its selection "
              "phase.")  # fmt: skip
@manifests_option
@cache_option
@root_option
@params_option
@json_option
@plain_errors
def import_features_file(
    file: Path,
    dataset: str,
    protocol: str,
    recipe_name: str,
    hpe_text: str | None,
    manifests: Path,
    cache: Path,
    cache_root: Path | None,
    params_path: Path,
    as_json: bool,
) -> None:
    """Import features of others: what a skeleton encoder, trained for one protocol, gives for every clip.

    FILE is a folder as SynSE, SA-DVAE and TDSM publish it: train.npy, ztest.npy, gtest.npy [N, 256] with
    train_label.npy, z_label.npy, g_label.npy, indices of all classes. Or a .npz or HDF5 file of features [N, 256] or
    maps [N, 256, T, V], or cues [N, S, D], or both, label [N], part [N] (train or test; val counts as test), and
    optionally clip_id [N] and cue_scores [N, S]. No videos, no clips.csv and no `encode` are needed: go on with `text`
    and `train`. A file that disagrees with the protocol is refused, and as a leak one with train clips of unseen
    classes.

    \b
    Example:
      posebridge cache import-features shift_ntu60_5_r --dataset ntu60 --protocol synse_55_5
        --recipe shift-synse_55_5
    """
    from pipeline.interchange.importing_features import import_features
    from pipeline.protocol.duplicates import count_told

    with counter("clip", f"import {file.name}") as show:
        done = import_features(
            dataset,
            protocol,
            recipe_name,
            file,
            hpe_text=hpe_text or "",
            clips_per_shard=load_params(params_path).extract.clips_per_shard,
            manifests=manifests,
            cache=cache,
            cache_root=cache_root,
            progress=show,
        )
    for remark in done.remarks:
        say(remark)
    repeated = look_for_duplicates(done.index, done.clips_csv, cache_root)
    parts = ", ".join(f"{count} {part}" for part, count in done.parts.items())
    parts += val_told(done.val)
    kind = {POOLED: "pooled features", CUES_ALONE: ""}.get(done.layout, f"maps of the joints of {done.layout}")
    cues = f"cues of width {done.cue_width}" if done.cue_width else ""
    what = " with ".join(filter(None, (kind, cues)))
    lacking = f"; {count_told(repeated)}" if repeated else ""
    sentence = f"{done.index}: {what} of {done.clips} clips ({parts}), {done.written} new{lacking}."
    answer(
        dataclasses.asdict(done) | {"duplicates": [dataclasses.asdict(pair) for pair in repeated]}, sentence, as_json
    )


def val_told(clips: int) -> str:
    """How many of the test clips are of a part that the file calls val, to stand behind the parts."""
    return f"; {clips} test ones are of its part val" if clips else ""


@click.command("export")
@click.argument("file", type=Place())
@dataset_option
@recipe_option
@click.option("--archive", is_flag=True, help="The whole store with its cues, compressed, as a .tar.gz.")
@manifests_option
@cache_option
@root_option
@json_option
@plain_errors
def export_file(
    file: Path,
    dataset: str,
    recipe_name: str,
    archive: bool,
    manifests: Path,
    cache: Path,
    cache_root: Path | None,
    as_json: bool,
) -> None:
    """Export skeletons as a PYSKL annotation pickle: the sampled frames, without cues. Or archive the whole store.

    \b
    Examples:
      posebridge cache export skelgap.pkl --dataset skelgap-mini --recipe refined
      posebridge cache export skelgap.tar.gz --dataset skelgap-mini --recipe refined --archive
    """
    from pipeline.cache.imported import require_skeletons
    from pipeline.cache.index import index_path
    from pipeline.cache.reader import CacheReader
    from pipeline.interchange.archive import SUFFIX, export_archive
    from pipeline.interchange.exporting import export_skeletons
    from pipeline.manifest.clips import read_clips

    index = index_path(cache, dataset, recipe_name)
    if archive:
        if not file.name.endswith(SUFFIX):
            raise click.UsageError(f"An archive's name should end in {SUFFIX}.")
        size = export_archive(index, cache_root or cache / "store", file)
        answer({"file": str(file), "bytes": size}, f"Wrote {file}, {size / 1e6:.1f} MB.", as_json)
        return
    with CacheReader(index, cache_root) as reader:
        require_skeletons(index, reader.recipe)
        clips = read_clips(dataset_file(manifests, dataset, "clips.csv"))
        count = export_skeletons(reader, clips, file)
    answer({"file": str(file), "clips": count}, f"Wrote {file} with {count} clips.", as_json)


@click.command("publish")
@dataset_option
@recipe_option
@click.option("--remote", default="", help="A name of `dvc remote list`.  [default: DVC's default remote]")
@json_option
@plain_errors
def publish(dataset: str, recipe_name: str, remote: str, as_json: bool) -> None:
    """Share an extraction: `dvc add` of its store, `dvc push` of store and index. Run it in the project's folder.

    \b
    Example: posebridge cache publish --dataset skelgap-mini --recipe refined
    """
    from pipeline.cache.publish import publish

    done = publish(dataset, recipe_name, remote=remote)
    keep = " ".join(str(path) for path in done.pointers)
    sentence = (
        f"Pushed {done.store} ({done.bytes / 1e6:.1f} MB) and its index to {done.remote}; commit {keep} and dvc.lock, "
        "and a clone has them by `dvc pull`."
    )
    answer(dataclasses.asdict(done), sentence, as_json)

"""Features of others: both published forms, made here; every method that they suffice for, under our protocols."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from synthetic import CLASSES, PROTOCOL, SEEN, UNSEEN, VALIDATION, write_bank

from pipeline.bench import leaks
from pipeline.cache.reader import CacheReader
from pipeline.cache.verify import verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.interchange import importing_features
from pipeline.interchange.feature_files import read_features
from pipeline.interchange.importing import import_skeletons
from pipeline.interchange.importing_features import import_features
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.run import open_listed
from pipeline.learn.train import train
from pipeline.manifest.clips import Clip, read_clips, write_classes, write_clips
from pipeline.methods import METHODS
from pipeline.methods.partition import SLOTS
from pipeline.params import EncodeParams, ExtractParams, Params, RunParams, TrainParams
from pipeline.protocol.duplicates import note_duplicates
from pipeline.recipe import Recipe
from pipeline.report import leaderboard
from pipeline.report.results import read_results
from pipeline.report.runs import read_runs
from pipeline.search.build import update
from pipeline.search.embedders import Trained
from stages.cli import main
from stages.duplicates import known_duplicates

TRAIN, TEST, S, D = 6, 3, 16, 32
PARAMS = Params(encode=EncodeParams(seeds=(0,)), train=TrainParams(epochs=2, batch_size=16))
SMALL = {"width": 16, "heads": 2, "layers": 1}
RNG = np.random.default_rng(0)
MOTIONS = {letter: RNG.normal(size=256) for letter in "ABCDE"}
OBJECTS = {letter: RNG.normal(size=D) for letter in "pqrs"}


def features(labels: list[int], dtype: str = "f4") -> np.ndarray:
    """[N, 256]: what is left of a motion after pooling."""
    found = np.stack([MOTIONS[CLASSES[label][0]] for label in labels])
    return (found + np.random.default_rng(len(labels)).normal(size=found.shape)).astype(dtype)


def labels_of(names: list[str], clips: int) -> list[int]:
    return [CLASSES.index(name) for name in names for _ in range(clips)]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data set with classes, a protocol and a text bank, and no clips.csv."""
    return make_world(tmp_path)


def make_world(root: Path) -> Path:
    folder = root / "manifests" / "toy"
    write_classes(folder / "classes.csv", CLASSES)
    (folder / "protocols").mkdir()
    write_protocol(root, PROTOCOL, UNSEEN, VALIDATION)
    words = {"environment": "a hall", "used_object": "none", "target_object": "none", "key_parts": "hands"}
    words |= {"label": "a deed"}
    rows = [f"{index},{slot},{text}" for index in range(len(CLASSES)) for slot, text in words.items()]
    (folder / "texts.csv").write_text("\n".join(["index,slot,text", *rows]) + "\n")
    write_bank(root / "cache/text/minilm/toy.h5", np.random.default_rng(0), ("one_line", *SLOTS))
    return root


def write_protocol(root: Path, name: str, unseen: list[str], validation: list[str]) -> None:
    for suffix, names in ((".txt", unseen), (".val.txt", validation)):
        lines = "\n".join(f"{CLASSES.index(name)} {name}" for name in names)
        (root / "manifests/toy/protocols" / f"{name}{suffix}").write_text(f"{lines}\n")


def synse(root: Path, dtype: str = "f4", **changes: np.ndarray | None) -> Path:
    """A folder in SynSE's form; `changes` are its arrays by name, None for one that is left out."""
    train, unseen, every = labels_of(SEEN, TRAIN), labels_of(UNSEEN, TEST), labels_of(CLASSES, TEST)
    of_all = features(every, dtype)
    arrays: dict[str, np.ndarray | None] = {
        "train": features(train, dtype), "train_label": np.array(train),
        "ztest": of_all[-len(unseen) :], "z_label": np.array(unseen),
        "gtest": of_all, "g_label": np.array(every),
    }  # fmt: skip
    folder = root / "shift_12_4_r"
    folder.mkdir(exist_ok=True)
    for name, array in (arrays | changes).items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    return folder


def arrays(cues: bool = True, maps: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """Those of one file: train clips of seen classes, test clips of all."""
    train, every = labels_of(SEEN, TRAIN), labels_of(CLASSES, TEST)
    labels = [*train, *every]
    found = {
        "clip_id": np.array([f"v{row:03d}" for row in range(len(labels))]),
        "label": np.array(labels),
        "part": np.array(["train"] * len(train) + ["test"] * len(every)),
        "features": features(labels),
    }
    if maps:
        noise = np.random.default_rng(1).normal(size=(len(labels), 256, *maps))
        found["features"] = (found["features"][:, :, None, None] + noise).astype("f2")
    if cues:
        seen = np.stack([OBJECTS[CLASSES[label][1]] for label in labels])[:, None]
        found["cues"] = (seen + np.random.default_rng(2).normal(size=(len(labels), S, D))).astype("f2")
    return found


def write(path: Path, found: dict[str, np.ndarray], packed: bool = True) -> Path:
    """As .npz, or by its name as HDF5."""
    if path.suffix == ".npz":
        (np.savez_compressed if packed else np.savez)(path, **found)
        return path
    with h5py.File(path, "w") as file:
        for name, array in found.items():
            if array.dtype.kind == "O":
                file.create_dataset(name, data=["v"] * len(array), dtype=h5py.string_dtype())
                continue
            text = array.dtype.kind == "U"
            how = {"compression": "gzip", "shuffle": True} if packed and array.ndim > 1 else {}
            file.create_dataset(name, data=array.astype("S") if text else array, **how)
    return path


def bring(root: Path, path: Path, **options):
    values = {"manifests": root / "manifests", "cache": root / "cache", "clips_per_shard": 64} | options
    return import_features("toy", PROTOCOL, "shift", path, **values)


def opened(root: Path):
    return open_dataset("toy", root / "manifests", root / "cache", strict=False)


def run_of(method: str, **flags) -> RunParams:
    return RunParams(method=method, recipe="shift", flags=flags)


def trained_and_tested(root: Path, run: RunParams) -> dict:
    train(opened(root), PROTOCOL, "mine", run, PARAMS)
    folder = evaluate(opened(root), PROTOCOL, "mine", run, PARAMS)
    return json.loads((folder / "seed-0" / "metrics.json").read_text())


def marks(root: Path) -> list[str]:
    """What the leaderboard says of the features of the one run that there is, to people and to programs."""
    runs, complaints = read_runs(root / "cache/results")
    assert not complaints
    return [*leaderboard.rows(runs)["features"], *leaderboard.board(runs, {})["features"]]


@pytest.mark.e2e
@pytest.mark.parametrize(
    "run",
    [
        run_of("skeleton", **SMALL),
        RunParams("pgfa_frozen", {"epochs": 3}, "shift", adapt="pgfa"),
    ],
    ids=lambda run: run.method,
)
def test_pooled_features_are_enough_for_methods_that_pool(world, run):
    """No video, no clips.csv, no `encode`: import, train, evaluate."""
    done = bring(world, synse(world))
    assert (done.clips, done.parts) == (72 + 48, {"train": 72, "test": 48}) and done.layout == "pooled"
    assert not verify_index(done.index, world / "cache/store") and not verify_store(done.store)
    metrics = trained_and_tested(world, run)
    assert metrics["zsl"]["n"] == 12 and metrics["gzsl"]["seen"] >= 0 and metrics["missing"] == 0
    assert metrics["features"] == metrics["skeletons"] == "imported" and metrics["zsl"]["top1"] > 0
    (result,), complaints = read_results(world / "cache/results")
    assert result.features == "imported" and not complaints
    assert bool(metrics["adapted"]) == bool(run.adapt)


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["posebridge", "purls", "skeletoncontext", "cca"])
def test_maps_and_cues_are_enough_for_methods_on_a_frozen_encoder(world, method):
    maps = None if method in ("posebridge", "cca") else (4, 17)  # pooled features and cues are what its authors have
    found = arrays(maps=maps)
    bring(world, write(world / "a.h5", found | {"labels": found.pop("label"), "split": found.pop("part")}),
          hpe_text="captions")  # fmt: skip
    flags = {
        "posebridge": SMALL,
        "purls": {"hidden": 16, "cues": True},
        "skeletoncontext": {"epochs": 1, "heads": 4, "text_slots": ["one_line"]},
        "cca": {"skeleton": False, "text_slots": ["one_line"]},
    }[method]
    metrics = trained_and_tested(world, run_of(method, **flags))
    assert metrics["features"] == "imported" and metrics["hpe_text"] == "captions" and metrics["zsl"]["n"] == 12


def bring_skeletons(root: Path) -> None:
    """Joints of the clips of `arrays`, under the recipe `own`."""
    found = arrays(cues=False)
    motion = found["features"][:, : 8 * 17].reshape(-1, 1, 8, 17, 1) * 9 + 200
    found |= {"frame_dir": found["clip_id"], "split": found["part"], "keypoint": np.repeat(motion, 2, -1)}
    names = ("frame_dir", "label", "split", "keypoint")
    path = write(root / "own.npz", {name: found[name] for name in names})
    recipe = Recipe(backend="import", cues="none", frames=8)
    import_skeletons("toy", "own", recipe, path, manifests=root / "manifests", cache=root / "cache")


def cues_alone(width: int = 512) -> dict[str, np.ndarray]:
    """As PoseBridge's authors store them, 16 a video."""
    found = arrays()
    found["cues"] = np.pad(found["cues"], ((0, 0), (0, 0), (0, width - D)))
    del found["features"]
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["a.npz", "a.h5"])
def test_cues_alone_go_with_skeletons_of_our_own_and_results_say_that_they_are_imported(world, kind):
    bring_skeletons(world)
    done = bring(world, write(world / kind, cues_alone()), hpe_text="captions")
    assert (done.layout, done.cue_width, done.clips) == ("none", 512, 120)
    run = RunParams("cca", {"text_slots": ["one_line"]}, "shift", skeletons="own")
    metrics = trained_and_tested(world, run)
    assert (metrics["features"], metrics["skeletons"], metrics["hpe_text"]) == ("imported", "own", "captions")
    write_protocol(world, "other", ["Ep", *UNSEEN[1:]], VALIDATION)
    assert open_listed(opened(world), "other", run).cues_imported, "no encoder has learnt a class of these"
    assert marks(world) == ["imported", "imported"]
    run = replace(run, flags=run.flags | {"cues": False})
    assert trained_and_tested(world, run)["features"] == "computed" and marks(world) == [leaderboard.NONE, "computed"]


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["cca", "posebridge"])
def test_cues_alone_are_enough_without_the_skeleton(world, monkeypatch, method):
    done = bring(world, write(world / "a.npz", cues_alone()), hpe_text="none")
    assert not verify_index(done.index, world / "cache/store") and not verify_store(done.store)
    with CacheReader(done.index) as reader:
        assert reader.names[:2] == ("cues", "cue_scores") and "features" not in reader.names
    flags = {"cca": {"text_slots": ["one_line"]}, "posebridge": SMALL}[method]
    run = run_of(method, **flags, skeleton=False)
    metrics = trained_and_tested(world, run)
    assert metrics["zsl"]["n"] == 12 and metrics["features"] == "imported" and marks(world) == ["imported", "imported"]
    monkeypatch.setattr("pipeline.learn.features.HELD_BYTES", 1)
    assert trained_and_tested(world, run)["zsl"] == metrics["zsl"], "read from the disk as they are asked for"


@pytest.mark.unit
@pytest.mark.parametrize("method", METHODS)
def test_whoever_needs_a_skeleton_refuses_cues_alone_in_one_sentence(world, method):
    bring(world, write(world / "a.npz", cues_alone(D)), hpe_text="none")
    flags = {"text_slots": ["one_line"]} if method == "image_text" else {}
    with pytest.raises(PosebridgeError, match=f"method {method} (reads skeletons, but shift holds|compares)") as told:
        train(opened(world), PROTOCOL, "mine", run_of(method, **flags), PARAMS)
    assert "\n" not in str(told.value)


@pytest.mark.unit
def test_test_clips_whose_cues_are_those_of_a_train_clip_are_told(world):
    found = cues_alone()
    found["cues"][100] = found["cues"][3]
    found["cues"][[4, 101]] = 0  # in neither is somebody to be seen
    done = bring(world, write(world / "a.npz", found), hpe_text="none")
    assert [(pair.train, pair.test) for pair in note_duplicates(done.index, read_clips(done.clips_csv))] == [
        ("v003", "v100")
    ]


@pytest.mark.unit
def test_wide_cues_beside_features_are_read_and_one_of_zeros_was_not_seen(world):
    found = arrays()
    found["cues"] = np.pad(found["cues"], ((0, 0), (0, 0), (0, 512 - D)))
    found["cues"][100, 5] = 0
    done = bring(world, write(world / "a.h5", found), hpe_text="none")
    with CacheReader(done.index) as reader:
        read = reader.read(["v003", "v100"], ["cues", "cue_scores"])
    assert read["cues"].shape == (2, 1, S, 1, 512) and (read["cues"][:, 0, :, 0] == found["cues"][[3, 100]]).all()
    assert np.argwhere(read["cue_scores"][:, 0, :, 0] != 1).tolist() == [[1, 5]] and read["cue_scores"][1, 0, 5, 0] == 0


@pytest.mark.unit
@pytest.mark.parametrize("method", METHODS)
def test_what_pooled_features_lack_for_a_method_is_one_sentence(world, method):
    bring(world, synse(world))
    reasons = {
        "posebridge": "The method posebridge needs cues, but the recipe 'shift' holds no cues; use another",
        "image_text": "The method image_text needs cues, but the recipe 'shift' holds no cues; use another",
        "cca": "The method cca reads the joints themselves, but shift holds imported features; methods",
        "pgfa": "The method pgfa reads the joints themselves, but shift holds imported features; methods",
        **dict.fromkeys(
            ("purls", "purls_matched", "skeletoncontext"), "needs a map of frames and joints, but the features of"
        ),
    }
    if method in reasons:
        with pytest.raises(PosebridgeError, match=reasons[method]) as told:
            flags = {"text_slots": ["one_line"]} if method == "image_text" else {}
            train(opened(world), PROTOCOL, "mine", run_of(method, **flags), PARAMS)
        assert "\n" not in str(told.value)
    else:
        assert method in ("skeleton", "pgfa_frozen")


@pytest.mark.unit
def test_leaks_are_priced_on_the_clips_of_the_features(world, monkeypatch):
    done, seen = bring(world, synse(world)), []
    monkeypatch.setattr(leaks, "each_seed", lambda work, *_: seen.append(work.args[0]) or [[{"seed": 0}]])
    leaks.price_run(opened(world), PROTOCOL, "mine", run_of("skeleton"), PARAMS)
    assert len(seen[0].dataset.clips) == done.clips


@pytest.mark.e2e
def test_other_commands_need_no_list_of_clips_either(world, monkeypatch):
    """Those that can use features do; the others say in one sentence that they cannot."""
    monkeypatch.chdir(world)
    bring(world, write(world / "a.npz", arrays()), hpe_text="none")
    run = run_of("posebridge", **SMALL)
    train(opened(world), PROTOCOL, "mine", run, PARAMS)
    (world / "params.yaml").write_text(
        f"runs: {{mine: {{method: posebridge, recipe: shift, flags: {json.dumps(SMALL)}}}}}\n"
        "encode: {seeds: [0]}\ntrain: {epochs: 2, batch_size: 16}\n"
    )
    invoke, where = CliRunner().invoke, ["--dataset", "toy"]
    trained = [*where, "--protocol", PROTOCOL, "--run", "mine"]
    for name, more, said in (
        ("leaks", [], "Wrote cache/leaks/toy"),
        ("parts", ["--change", "as they are", "--part", "without bridge"], "without bridge"),
        ("confidence", [], "calibration error|No shares of the run 'mine' are calibrated"),
    ):
        done = invoke(main, ["bench", name, *trained, *more])
        assert re.search(said, done.output), done.output
    embedder = Trained("toy", PROTOCOL, "mine", run)
    assert update("toy", embedder) == len(arrays()["label"])
    of = [*where, "--recipe", "shift"]
    for asked, said in (
        (["gap", *of], "The recipe shift of toy holds no skeletons but imported features; name another"),
        (["gap", *where], "holds no extraction with cues"),
        (["cache", "export", "o.pkl", *of], "cache/toy/shift holds imported features; hand on the file that was"),
        (["cache", "export", "o.tar.gz", "--archive", *of], "shift holds imported features; hand on the file that was"),
    ):
        done = invoke(main, asked)
        assert done.exit_code == 1 and said in done.output, done.output
    assert not list(world.glob("o.*"))


@pytest.mark.unit
def test_no_encoder_is_trained_on_features(world):
    bring(world, synse(world))
    with pytest.raises(PosebridgeError, match="holds imported features, which an encoder of others gave"):
        encode(opened(world), PROTOCOL, "shift", PARAMS.encode)


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["a.npz", "b.npz", "a.h5", "b.hdf5"])
@pytest.mark.parametrize("maps", [None, (2, 25)], ids=["pooled", "maps"])
def test_a_file_is_read_as_it_is_packed_or_plain(world, kind, maps):
    found = arrays(maps=maps)
    found["features"] = found["features"].astype(">f8" if maps is None else "f2")
    found["cue_scores"] = np.linspace(0, 1, len(found["label"]) * S).reshape(-1, S)
    done = bring(world, write(world / kind, found, packed=kind.startswith("a")), hpe_text="none")
    assert done.layout == ("ntu25" if maps else "pooled") and done.cue_width == D
    with CacheReader(done.index) as reader:
        read = reader.read(["v003", "v100"], ["features", "cues", "cue_scores"])
    rows = [3, 100]
    assert (read["features"].reshape(2, -1) == found["features"][rows].reshape(2, -1).astype("f4")).all()
    assert (read["cues"][:, 0, :, 0] == found["cues"][rows]).all()
    assert np.allclose(read["cue_scores"][:, 0, :, 0], found["cue_scores"][rows], atol=1e-3)


@pytest.mark.unit
def test_features_with_axes_of_one_are_pooled(world):
    train, unseen = features(labels_of(SEEN, TRAIN)), features(labels_of(UNSEEN, TEST))
    deep = {"train": train[..., None, None], "ztest": unseen[..., None, None], "gtest": None, "g_label": None}
    assert bring(world, synse(world, **deep)).layout == "pooled"


@pytest.mark.unit
def test_an_import_is_repeated_for_nothing_and_a_changed_file_is_another_store(world):
    first = bring(world, synse(world))
    again = bring(world, synse(world))
    assert first.written == 120 and again.written == 0 and again.store == first.store
    other = bring(world, synse(world, dtype="f2"))
    assert other.written == 120 and other.store != first.store
    found = write(world / "a.npz", arrays(cues=False))
    of_file = bring(world, found)
    assert bring(world, found.rename(world / "b.npz")).store == of_file.store, "a name is no content"
    turned = np.asfortranarray(np.load(world / "shift_12_4_r" / "train.npy"))
    assert bring(world, synse(world, dtype="f2", train=turned)).written == 120


@pytest.mark.unit
def test_unseen_clips_of_gtest_are_those_of_ztest_once_more(world):
    without = bring(world, synse(world, gtest=None, g_label=None))
    assert without.parts == {"train": 72, "test": 12}, "no gtest: zero-shot alone"
    seen = labels_of(SEEN, TEST)
    (world / "shift_12_4_r").rename(world / "other")
    only = bring(world, synse(world, gtest=features(seen), g_label=np.array(seen)))
    assert only.parts == {"train": 72, "test": 48}, "of seen classes alone"
    (world / "shift_12_4_r").rename(world / "seen")
    every, order = features(labels_of(CLASSES, TEST)), np.random.default_rng(3).permutation(48)
    rounded, labels = every[order] * np.float32(1 + 1e-6), np.array(labels_of(CLASSES, TEST))[order]
    assert bring(world, synse(world, gtest=rounded, g_label=labels)).clips == 120, "in another order, as a GPU rounds"
    every[-1] = features([CLASSES.index("Bq")])
    (world / "shift_12_4_r").rename(world / "ordered")
    done = bring(world, synse(world, gtest=every))
    assert done.clips == 120 and len(done.remarks) == 1
    assert re.search("gtest.npy has other clips of 'Bq' than ztest.npy, .* ztest.npy are taken.$", done.remarks[0])


LEAKS = [*labels_of(SEEN, TRAIN)[:-1], CLASSES.index("Ap")]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_label": np.array(LEAKS)}, "refused as a leak: 1 of its train clips .* unseen in .* \\('Ap'\\)"),
        ({"train_label": np.array(LEAKS)}, "; take these clips out and train the encoder without them, or"),
        ({"z_label": np.array(labels_of([*UNSEEN[:3], "Ar"], TEST))}, "3 clips of 'Ar', a seen class; name the"),
        ({"z_label": np.array(labels_of([*UNSEEN[:3], "Ar"], TEST))}, "no test clip of 'Bq', unseen in .*; add some"),
        ({"g_label": np.array(labels_of([*CLASSES[:-1], "Ar"], TEST))}, "3 clips of 'Bq', but gtest.npy 0; bring"),
        ({"train_label": np.array(labels_of([*SEEN[:-1], "Ar"], TRAIN))}, "no train clip of 'Eq', .*; name its own"),
        ({"g_label": np.array(labels_of(["As", "As", *CLASSES[2:]], TEST))}, "of 'Ar', seen in .*, but has some"),
        ({"train_label": np.array(labels_of(CLASSES, 4) + [16] * 8)}, "row 64 .* label 16; .* 0 to 15: correct it"),
        ({"g_label": np.array(labels_of(CLASSES, TEST)) + 1.0}, "has the label 16.0; .* begin with 1, so take 1 off"),
        ({"z_label": np.array([16] * 12)}, "z_label.npy: row 0 .* has the label 16; classes.csv has 0 to 15"),
        ({"z_label": np.full(12, np.nan)}, "has the label nan"),
        ({"z_label": np.full(12, 0.5)}, "has the label 0.5"),
        ({"z_label": np.array(["a"] * 12)}, "labels are whole numbers"),
        ({"z_label": np.zeros(11, int)}, "has the shape \\[11\\], but there are 12 clips; write \\[12\\], the index"),
        ({"z_label": np.zeros((12, 16), int)}, "has the shape \\[12, 16\\], but there are 12 clips; write"),
        ({"ztest": features(labels_of(UNSEEN, TEST))[:, :64]}, "has the shape \\[12, 64\\]; the .*: take those"),
        (
            {"ztest": np.random.default_rng(0).normal(size=(12, 256, 4, 17))},
            "differ in shape: train \\[72, 256\\], ztest \\[12, 256, 4, 17\\], gtest \\[48, 256\\]; write all",
        ),
        ({"ztest": np.zeros((12, 256), "f4")}, "ztest.npy has the same features for every clip, so"),
        ({"train": np.ones((72, 256), "f4")}, "train.npy has the same features for every clip, .*; extract it again"),
        ({"gtest": np.repeat(np.arange(48.0)[:, None], 256, 1)}, "gtest.npy has one number all over in every clip, so"),

        ({"ztest": np.full((12, 256), np.nan, "f4")}, "ztest.npy: row 0 .* not finite"),
        ({"ztest": np.full((12, 256), 1e300)}, "ztest.npy: row 0 .* not finite or beyond 1e.06"),
        ({"ztest": np.full((12, 256), 2e6)}, "ztest.npy: row 0 .* not finite or beyond 1e.06"),
        ({"ztest": np.ones((12, 256), int)}, "of the type int64; it should be float16, 32 or 64"),
        ({"ztest": np.array([{"a": 1}], object)}, "holds Python objects, a pickle, which is never read"),
        ({"ztest": None}, "ztest.npy is missing; a folder of features holds train.npy"),
        ({"g_label": None}, "g_label.npy is missing"),
        ({"gtest": None}, "gtest.npy is missing"),
        ({"train": np.float32(3)}, "train.npy has no rows"),
        ({"ztest": np.zeros((0, 256), "f4")}, "ztest.npy is empty, of the shape \\[0, 256\\]; fill it or leave it out"),
    ],
)  # fmt: skip
def test_a_folder_that_is_odd_or_disagrees_is_refused(world, changes, said):
    with pytest.raises(PosebridgeError, match=said):
        bring(world, synse(world, **changes))
    assert not (world / "cache/toy").exists() and not (world / "cache/store").exists()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": None, "cues": None}, "lacks the array 'features'; .* or cues, .*, and has 'clip_id', 'label'"),
        ({"features": np.zeros((120, 256), "f4")}, "features has the same features for every clip, so nothing can be"),
        ({"features": np.zeros((120, 256, 4, 17), "f2")}, "features has the same features for every clip, so"),
        ({"features": None, "cues": None, "X": np.zeros((120, 256), "f4")}, "lacks the array 'features'; .* 'X'"),
        ({"part": None}, "lacks the array 'part'"),
        ({"split": np.array(["train"] * 120)}, "holds both 'part' and 'split'; leave one out"),
        ({"part": np.array(["train"] * 119 + ["left"])}, "'v119' is of the part 'left'; write train, val or test"),
        ({"part": np.array(["train"] * 120)}, "refused as a leak: 12 of its train clips"),
        ({"clip_id": np.array(["v1"] * 120)}, "has 'v1' twice"),
        ({"clip_id": np.array([f"../{row}" for row in range(120)])}, "lies outside of the data set's folder"),
        ({"labels": np.arange(120)}, "holds both 'label' and 'labels'; leave one out"),
        ({"clip_id": np.array([None] * 120, object)}, "holds Python objects|variable length"),
        ({"label": np.arange(119)}, "has the shape \\[119\\], but there are 120 clips; write one row a clip"),
        ({"features": np.zeros((120, 256, 2, 9), "f4")}, "should be of joints: 17 of coco17, .*; write maps of one"),
        ({"cues": np.zeros((120, 512), "f2")}, "it should be \\[N, S, D\\]"),
        ({"cues": np.full((120, S, D), 1e6)}, "cues: row 0 .* not finite or beyond 65504"),
        ({"cues": np.zeros((9, S, D), "f2")}, "cues has the shape \\[9, 16, 32\\], but there are 120 clips"),
        ({"cue_scores": np.full((120, S), 2.0)}, "cue_scores: row 0"),
        ({"cue_scores": np.ones((120, S, D))}, "has the shape \\[120, 16, 32\\]; write \\[120, 16\\], one a cue"),
        ({"cue_scores": np.zeros((120, S))}, "cue_scores is 0 all over, so nothing can be learnt of it; leave it out"),
        ({"cues": np.zeros((120, S, D), "f2")}, "cues is 0 all over, so nothing can be learnt of it; leave it out"),
        ({"cues": None, "cue_scores": np.ones((120, S))}, "cue_scores has no cues beside it; add the array cues, or"),
        ({"cues": np.zeros((0, S, D), "f2")}, "a.(npz|h5): cues is empty, of the shape \\[0, 16, 32\\]; fill"),
        ({"label": np.zeros(120, bool)}, "^[^ ]*a.(npz|h5): label is of the type bool"),
        ({"label": np.zeros(120, complex)}, "^[^ ]*a.(npz|h5): label is (no plain array|of the type complex)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["a.npz", "a.h5"])
def test_a_file_that_is_odd_is_refused(world, kind, changes, said):
    found = {name: array for name, array in (arrays() | changes).items() if array is not None}
    with pytest.raises(PosebridgeError, match=said):
        bring(world, write(world / kind, found), hpe_text="none")
    assert not (world / "cache/toy").exists() and not (world / "cache/store").exists()


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["a.npz", "a.h5"])
def test_nothing_is_left_of_a_file_that_is_refused(world, kind):
    shutil.rmtree(world / "cache")
    path = write(world / kind, arrays() | {"label": np.arange(120)})
    with pytest.raises(PosebridgeError, match="has the label 16"):
        bring(world, path, hpe_text="none")
    assert not (world / "cache").exists()
    assert bring(world, write(path, arrays()), hpe_text="none").clips == 120


@pytest.mark.unit
@pytest.mark.parametrize("name", ["gone", "gone.npz", "gone/a.h5", "a.npz/b.npz"])
def test_what_does_not_exist_is_said_not_to(world, name):
    write(world / "a.npz", arrays())
    with pytest.raises(PosebridgeError, match=f"{name} does not exist; name a file or folder of features.$"):
        bring(world, world / name)


@pytest.mark.unit
def test_a_protocol_that_trains_on_another_data_set_and_a_name_of_two_recipes_are_refused(world):
    folder = world / "manifests"
    write_classes(folder / "other/classes.csv", ["Xx", "Yy", "Zz", "Ww"])
    write_protocol(world, "across", CLASSES, [])
    (folder / "toy/protocols/across.val.txt").write_text("0 Xx\n1 Yy\n")
    path = folder / "toy/protocols/across.txt"
    path.write_text("# Trains on: other\n" + path.read_text())
    with pytest.raises(PosebridgeError, match="across of toy trains on other, .* from one data set; choose another"):
        import_features("toy", "across", "shift", synse(world), manifests=folder, cache=world / "cache")
    with pytest.raises(PosebridgeError, match="cannot be called 'one.two', since . names two recipes; choose another"):
        import_features("toy", PROTOCOL, "one+two", synse(world), manifests=folder, cache=world / "cache")
    assert not (world / "cache/toy").exists() and not (world / "cache/store").exists()


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["a.npz", "a.h5", "ztest.npy"])
@pytest.mark.parametrize("kept", [0, 40, 5000])
def test_a_file_that_is_cut_off_is_told_as_such(world, kind, kept):
    path = synse(world) if kind.endswith(".npy") else write(world / kind, arrays(cues=False))
    cut = path / kind if path.is_dir() else path
    cut.write_bytes(cut.read_bytes()[:kept])
    with pytest.raises(PosebridgeError, match=f"{kind} is damaged or cut off.*; bring it again.$"):
        bring(world, path)


@pytest.mark.unit
def test_what_a_file_declares_is_bounded_before_memory_is_taken(world):
    folder = synse(world)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 256), }"
    (folder / "ztest.npy").write_bytes(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
    with pytest.raises(PosebridgeError, match="ztest.npy is damaged or cut off: its shape does not fit"):
        bring(world, folder)
    with zipfile.ZipFile(world / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays(cues=False).items():
            with file.open(f"{name}.npy", "w") as member:
                np.save(member, array)
        with file.open("cues.npy", "w", force_zip64=True) as member:
            member.write(bytes(300 << 20))
    with pytest.raises(PosebridgeError, match="says that its arrays have .* more than 50 times as much"):
        bring(world, world / "a.npz")
    found = write(world / "a.h5", {name: array for name, array in arrays().items() if name != "features"})
    with h5py.File(found, "a") as file:
        file.create_dataset("features", (10**9, 256), "f4", chunks=(64, 256))
    with pytest.raises(PosebridgeError, match="says that its arrays have 1024000"):
        bring(world, found)
    with h5py.File(found, "a") as file:
        del file["part"], file["features"]
        file["features"] = arrays()["features"]
        file.create_dataset("part", data=["train"] * 120, dtype=h5py.string_dtype())
    with pytest.raises(PosebridgeError, match="part is text of variable length, which is not read"):
        bring(world, found)
    with h5py.File(found, "a") as file:
        del file["features"]
        file["features"] = h5py.ExternalLink("/etc/passwd", "a")
    with pytest.raises(PosebridgeError, match="'features' is a link"):
        bring(world, found)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["clip_id", "part"])
def test_text_that_is_far_wider_than_its_words_is_not_taken_at_once(world, monkeypatch, name):
    monkeypatch.setattr("pipeline.interchange.rows.BLOCK", 1 << 20)
    found = arrays(cues=False)
    path = write(world / "a.npz", found | {name: np.array(found[name], "S150000")}, packed=True)
    tracemalloc.start()
    try:
        read_features(path, CLASSES, [], world)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20, "of 18 MB"
    finally:
        tracemalloc.stop()


@pytest.mark.unit
@pytest.mark.parametrize("kind", ["a.npz", "a.h5"])
def test_a_disk_that_is_full_is_told_as_such(world, monkeypatch, kind):
    path = write(world / kind, arrays(), packed=True)
    full = os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
    monkeypatch.setattr("pipeline.interchange.rows._nameless", lambda folder: full)
    with pytest.raises(PosebridgeError, match="cache failed .No space left on device."):
        bring(world, path, hpe_text="none")


@pytest.mark.unit
def test_the_list_of_clips_and_other_protocols_are_asked_too(world):
    folder = world / "manifests/toy"
    write_protocol(world, "other", ["Ep", "Eq"], VALIDATION)
    path = write(world / "a.npz", arrays(cues=False))
    with pytest.raises(PosebridgeError, match=f"they are the seen classes of {PROTOCOL}"):
        import_features("toy", "other", "shift", path, manifests=world / "manifests", cache=world / "cache")
    write_clips(folder / "clips.csv", [Clip("v000", "a.mp4", label=3, part="train")])
    with pytest.raises(PosebridgeError, match=r"'v000' is of class 0, train; .*clips.csv has class 3, train"):
        bring(world, path)
    write_clips(folder / "clips.csv", [Clip(f"v{row:03d}", "a.mp4", label=0, part="test") for row in range(3)])
    with pytest.raises(PosebridgeError, match=r"'v001' is of class 0, train; .* has class 0, test; correct") as told:
        bring(world, path)
    assert "more clips" not in str(told.value)
    write_clips(folder / "clips.csv", [Clip(f"v{row:03d}", "a.mp4", label=15, part="train") for row in range(11)])
    with pytest.raises(PosebridgeError, match=r"'v007' is of class 1, .*\n  and 3 more clips$"):
        bring(world, path)
    write_clips(folder / "clips.csv", [Clip("v000", "a.mp4", label=0, part="train")])
    done = bring(world, path)
    with pytest.raises(PosebridgeError, match=f"trained for {PROTOCOL} and has learnt 'Ep' .* a leak"):
        train(opened(world), "other", "mine", run_of("skeleton", **SMALL), PARAMS)
    done.clips_csv.write_text(done.clips_csv.read_text().replace("v072,v072,,,0", "v072,v072,,,1"))
    with pytest.raises(PosebridgeError, match="the list of clips and the index beside it are not of one import"):
        train(opened(world), PROTOCOL, "mine", run_of("skeleton", **SMALL), PARAMS)


@pytest.mark.unit
def test_neither_an_extraction_nor_an_import_takes_the_name_of_the_other(world):
    path = write(world / "a.npz", arrays(cues=False))
    done = bring(world, path)
    with pytest.raises(PosebridgeError, match="shift holds imported features; give the recipe another name, or"):
        extract("toy", "shift", Recipe(), world, params=ExtractParams(), build_estimator=lambda recipe: None,
                manifests=world / "manifests", cache=world / "cache")  # fmt: skip
    with pytest.raises(PosebridgeError, match="shift holds imported features"):
        import_skeletons("toy", "shift", Recipe(backend="import", cues="none"), path, cache=world / "cache")
    assert bring(world, path).written == 0
    done.clips_csv.unlink()  # as the index of an extraction stands
    with pytest.raises(PosebridgeError, match="shift holds an extraction; choose another name with --recipe, or"):
        bring(world, path)


@pytest.mark.unit
def test_cues_tell_what_words_their_pose_model_has_seen(world):
    with pytest.raises(PosebridgeError, match="holds cues; say what words .* --hpe-text none, captions-strict"):
        bring(world, write(world / "a.npz", arrays()))


@pytest.mark.unit
def test_cues_of_a_model_that_has_seen_classes_are_for_no_protocol_that_hides_them(world, monkeypatch):
    write_protocol(world, "other", UNSEEN, ["Ar", "As", "Br", "Bs"])  # which PROTOCOL trains on from the first phase
    path, run = write(world / "a.npz", arrays()), run_of("posebridge", **SMALL)
    bring(world, path, hpe_text="captions")
    assert open_listed(opened(world), "other", run).hpe_text == "captions"
    bring(world, path, hpe_text="seen-classes")
    assert open_listed(opened(world), PROTOCOL, run).hpe_text == "seen-classes"
    with pytest.raises(PosebridgeError, match="'shift' were tuned with texts of 'Ar', which is unseen in other; use"):
        train(opened(world), "other", "mine", run, PARAMS)
    monkeypatch.setattr(importing_features, "exposed", lambda dataset, split: "")  # as in an import of long ago
    bring(world, path, hpe_text="seen-classes")
    with pytest.raises(PosebridgeError, match="seen; import them again"):
        train(opened(world), PROTOCOL, "mine", run, PARAMS)
    monkeypatch.undo()
    bring(world, path, hpe_text="seen-classes")
    write_protocol(world, PROTOCOL, UNSEEN, ["Ar", "As", "Br", "Bs"])
    with pytest.raises(PosebridgeError, match=f"The protocol {PROTOCOL} of toy has changed since"):
        train(opened(world), PROTOCOL, "mine", run, PARAMS)


@pytest.mark.unit
def test_what_an_import_lacks_is_to_be_imported(world):
    write_protocol(world, "fewer", UNSEEN[:2], VALIDATION)
    done = bring(world, write(world / "a.npz", arrays()), hpe_text="none")
    lacking = f"^{done.clips_csv}: classes 'Bp', 'Bq' have no clip of part `train`, but fewer needs some of every seen "
    remedy = "class; import .* FILE --dataset toy --protocol fewer --recipe"
    with pytest.raises(PosebridgeError, match=lacking + remedy):
        train(opened(world), "fewer", "mine", run_of("skeleton", **SMALL), PARAMS)
    with pytest.raises(PosebridgeError, match="run `posebridge cache import-features` again, which writes nothing"):
        known_duplicates(opened(world).of("shift"), "shift", refuse=True)
    note_duplicates(done.index, read_clips(done.clips_csv))
    assert known_duplicates(opened(world).of("shift"), "shift", refuse=True) == []
    bring_skeletons(world)
    found = arrays()
    names = np.where(found["label"] == 0, np.char.add("w", found["clip_id"]), found["clip_id"])  # of another list
    bring(world, write(world / "a.npz", found | {"clip_id": names}), hpe_text="none")
    run = replace(run_of("cca", text_slots=["one_line"]), skeletons="own")
    remedy = "import a file .* --dataset toy --protocol"
    with pytest.raises(PosebridgeError, match=f"shift holds no train clip of 'Ar'; {remedy}"):
        train(opened(world), PROTOCOL, "mine", run, PARAMS)


@pytest.mark.e2e
def test_a_refusal_ends_the_command_with_one_sentence(world, monkeypatch):
    monkeypatch.chdir(world)
    write(world / "a.npz", arrays(cues=False) | {"label": np.arange(120)})
    every = np.load(synse(world) / "gtest.npy")
    every[-1] = every[0]
    np.save(world / "shift_12_4_r/gtest.npy", every)
    (world / "params.yaml").touch()
    listed = world / "manifests/toy/clips.csv"
    write_clips(listed, [Clip("ztest-0000000", "a.mp4", label=0, part="test")])
    command = ["cache", "import-features", "--dataset", "toy", "--protocol", PROTOCOL, "--recipe", "shift"]
    done = CliRunner().invoke(main, [*command, "a.npz"])
    assert (done.exit_code, done.stdout) == (1, "") and done.stderr.startswith("Error: a.npz: label: row 16 (0-based)")
    assert done.stderr.count("\n") == 1
    done = CliRunner().invoke(main, [*command, "shift_12_4_r"])
    assert done.exit_code == 1 and "'ztest-0000000' is of class" in done.output and "other clips" not in done.output
    listed.unlink()
    done = CliRunner().invoke(main, [*command, "shift_12_4_r", "--json"])
    told = "shift_12_4_r: gtest.npy has other clips of 'Bq' than ztest.npy, as if of another extraction; those of"
    assert done.exit_code == 0 and f"\n{told}" in done.stderr and ".py:" not in done.stderr
    assert json.loads(done.stdout)["remarks"][0].startswith(told)


@pytest.mark.e2e
def test_the_command_imports_and_tells_what_repeats(world, monkeypatch):
    monkeypatch.chdir(world)
    folder = synse(world)
    train_part = np.load(folder / "train.npy")
    every = np.load(folder / "gtest.npy")
    every[0] = train_part[0]
    np.save(folder / "gtest.npy", every)
    (world / "params.yaml").write_text(
        f"runs: {{mine: {{method: skeleton, recipe: shift, flags: {json.dumps(SMALL)}}}}}\n"
        "encode: {seeds: [0]}\ntrain: {epochs: 2}\n"
    )
    invoke = CliRunner().invoke
    where = ["--dataset", "toy", "--protocol", PROTOCOL]
    done = invoke(main, ["cache", "import-features", folder.name, *where, "--recipe", "shift"])
    assert done.exit_code == 0, done.output
    assert "pooled features of 120 clips (72 train, 48 test), 120 new; 1 test clip repeats a train clip" in done.output
    found = arrays(cues=False)
    found["part"][-3:] = "val"
    done = invoke(main, ["cache", "import-features", str(write(world / "a.npz", found)), *where, "--recipe", "file"])
    assert "120 clips (72 train, 48 test; 3 test ones are of its part val), 120 new" in done.output
    done = invoke(main, ["cache", "stats", "--dataset", "toy", "--recipe", "shift"])
    assert done.exit_code == 0 and "features" in done.output, done.output
    for command in ("train", "evaluate"):
        done = invoke(main, [command, *where, "--run", "mine"])
        assert done.exit_code == 0, done.output
    done = invoke(main, ["report"])
    assert done.exit_code == 0, done.output
    page = (world / "cache/report/leaderboard.md").read_text()
    titles, _, cells = ([*map(str.strip, line.split("|"))] for line in page.splitlines() if line.startswith("|"))
    assert dict(zip(titles, cells, strict=True))["features"] == "imported" and "learnt the pseudo-unseen" in page
    with (world / "cache/results/leaderboard.csv").open() as file:
        assert [row["features"] for row in csv.DictReader(file)] == ["imported"]
    assert marks(world) == ["imported", "imported"]

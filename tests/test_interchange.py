"""Skeletons of others: the restricted unpickler, import of pickles and .npz, training on them, export and back."""

from __future__ import annotations

import datetime
import io
import json
import os
import pickle
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pipeline.cache import shard
from pipeline.cache.lease import Lease, LeaseLost, Watch, holder
from pipeline.cache.reader import CacheReader
from pipeline.cache.verify import verify_index, verify_store
from pipeline.errors import PosebridgeError
from pipeline.interchange.annotations import read_annotations
from pipeline.interchange.exporting import export_skeletons
from pipeline.interchange.importing import import_skeletons
from pipeline.interchange.unpickling import read_pickle
from pipeline.learn.dataset import open_dataset
from pipeline.learn.encode import encode
from pipeline.learn.encoders import load_encoder
from pipeline.learn.evaluate import evaluate
from pipeline.learn.train import train
from pipeline.manifest.clips import Clip, read_clips, write_classes, write_clips
from pipeline.methods.partition import SLOTS
from pipeline.params import EncodeParams, Params, RunParams, TrainParams
from pipeline.recipe import Recipe
from pipeline.skeleton.graph import GRAPHS
from stages.cli import main

WITHOUT_CUES: dict[str, dict] = {
    "skeleton": {},
    "pgfa": {"epochs": 1},
    "purls": {"hidden": 16},
    "purls_matched": {"hidden": 16},
    "skeletoncontext": {"epochs": 1, "heads": 4, "text_slots": ["one_line", "hands", "global"]},
}
CLASSES = ["wave", "kick", "bow", "jump", "sit", "run"]
NTU = Recipe(backend="import", cues="none", layout="ntu25", dimensions=3, persons=2, frames=8)
COCO = Recipe(backend="import", cues="none", layout="coco17", dimensions=2, persons=1, frames=8)


def records(layout: str = "ntu25", dimensions: int = 3, per_class: int = 6, frames: int = 8) -> list[dict]:
    """Annotations as PYSKL keeps them: a class moves its own joint; every third clip has two persons."""
    random, joints = np.random.default_rng(0), len(GRAPHS[layout].joints)
    pose = random.normal(size=(joints, dimensions)) * (1 if dimensions == 3 else 80) + (0 if dimensions == 3 else 300)
    made = []
    for label in range(len(CLASSES)):
        for i in range(per_class):
            people = 2 if i % 3 == 2 else 1
            walk = random.normal(size=(people, frames, 1, dimensions)) * 0.05
            keypoint = np.tile(pose, (people, frames, 1, 1)) + walk
            keypoint[:, :, label, 1] += np.linspace(0, 2 if dimensions == 3 else 150, frames)
            made.append(
                {
                    "frame_dir": f"S001C001P{i:03d}R001A{label + 1:03d}",
                    "label": label,
                    "total_frames": frames,
                    "img_shape": (1080, 1920),
                    "keypoint": keypoint.astype(np.float16 if dimensions == 3 else np.float32),
                }
            )
            if dimensions == 2:
                made[-1]["keypoint_score"] = random.uniform(0.3, 1, keypoint.shape[:3]).astype(np.float16)
    return made


def write_bank(path: Path) -> None:
    """A text bank of CLASSES with random vectors."""
    slots = ["one_line", *SLOTS]
    vectors = np.random.default_rng(0).normal(size=(len(CLASSES), len(slots), 16)).astype(np.float32)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(schema=2, dataset="d", encoder="minilm", encoder_sha256="0" * 64)
        file["embeddings"] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        file["mask"] = np.ones((6, len(slots)), bool)
        for name, values in (("slots", slots), ("class_names", CLASSES)):
            file.create_dataset(name, data=values, dtype=h5py.string_dtype())


def split_of(made: list[dict]) -> dict[str, list[str]]:
    ids = [record["frame_dir"] for record in made]
    return {"xsub_train": ids[0::3] + ids[1::3], "xsub_val": ids[2::3], "xview_train": ids[:2], "xview_val": ids[2:]}


def dump(path: Path, value: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def run_import(root: Path, file: Path, recipe: Recipe = NTU, **options: str):
    folder = root / "manifests" / "d"
    if not (folder / "classes.csv").exists():
        write_classes(folder / "classes.csv", CLASSES)
    return import_skeletons("d", "r", recipe, file, manifests=root / "manifests", cache=root / "cache", **options)


@pytest.mark.unit
@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_comes_back_whatever_the_protocol(tmp_path, protocol):
    value = {
        "a": [1, 2.5, "é", b"\x00\xff", None, True, (1, ())],
        "floats": np.arange(6, dtype=np.float16).reshape(2, 3),
        "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "others": [np.array(["ab", "c"]), np.array([True]), np.arange(3, dtype=">i4"), np.zeros((0, 2))],
        "scalars": [np.int64(7), np.float32(0.5), np.str_("ü")],
    }
    found = read_pickle(dump(tmp_path / "a.pkl", value, protocol))
    assert found["a"] == value["a"] and found["scalars"] == [7, 0.5, "ü"]
    for one, other in zip([found["floats"], found["turned"], *found["others"]],
                          [value["floats"], value["turned"], *value["others"]], strict=True):  # fmt: skip
        assert (one == other).all() and one.dtype == other.dtype and one.shape == other.shape


class Command:
    """Runs a function when it is unpickled."""

    def __init__(self, function, *values):
        self.call = (function, values)

    def __reduce__(self):
        return self.call


def global_state(module: str, name: str) -> bytes:
    """A pickle that gives a new state to an admitted name: GLOBAL, an empty dict, BUILD."""
    return f"c{module}\n{name}\n".encode() + b"}b."


HOSTILE = {
    "code": pickle.dumps(Command(print, "code ran")),
    "file": pickle.dumps(Command(io.open, "x", "w")),
    "numpy function": pickle.dumps(Command(np.save, "x", 1)),
    "object array": pickle.dumps(np.array([{}, None])),
    "structured array": pickle.dumps(np.zeros(2, "f4,O")),
    "date array": pickle.dumps(np.zeros(2, "M8[s]")),
    "date": pickle.dumps(datetime.date(2020, 1, 1)),
    "ordered": pickle.dumps(OrderedDict(a=1)),
    "tensor": pickle.dumps(torch.zeros(1)),
    "class": pickle.dumps(np.ndarray),
    "state": global_state("numpy", "dtype"),
    "lying dtype": pickle.dumps(np.zeros(2)).replace(b"f8", b"O8"),
    "longer": pickle.dumps(np.zeros(2)).replace(b"f8", b"f4"),
    "empty array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR.",
    "outside": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "itself": b"]q\x00h\x00a.",
    "truncated": pickle.dumps(records()[:2])[:-100],
    "text": b"not a pickle",
    "empty": b"",
}


@pytest.mark.fault
@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_but_plain_data_is_refused_with_the_files_name(tmp_path, monkeypatch, capsys, kind):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.pkl").write_bytes(HOSTILE[kind])
    with pytest.raises(PosebridgeError, match=r"bad\.pkl"):
        read_pickle(tmp_path / "bad.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pkl"] and "ran" not in capsys.readouterr().out
    with pytest.raises(PosebridgeError, match="missing"):
        read_pickle(tmp_path / "none.pkl")


@pytest.mark.unit
def test_import_fills_manifest_and_cache(tmp_path):
    made = records()
    made[0]["keypoint"] = made[0]["keypoint"].copy()
    made[0]["keypoint"][0, 3, 5] = np.nan  # one joint lost for a frame
    made[1]["keypoint"] = made[1]["keypoint"].copy()
    made[1]["keypoint"][0, 5:] = 0  # NTU's way to say that nobody is there
    file = dump(tmp_path / "a.pkl", {"annotations": made, "split": split_of(made)})
    done = run_import(tmp_path, file, split="xsub")
    assert done.clips == done.written == 36 and done.parts == {"train": 24, "test": 12, "": 0}
    clips = read_clips(done.clips_csv)
    assert [clip.label for clip in clips] == [record["label"] for record in made] and clips[2].part == "test"
    assert verify_store(done.store) == [] == verify_index(done.index, tmp_path / "cache" / "store")
    with CacheReader(done.index) as reader:
        assert reader.recipe.layout == "ntu25" and "cues" not in reader.names
        assert done.store.name.startswith("import-ntu25-3d")
        assert all(reader.record(clip.clip_id) is None for clip in clips), "no video was read"
        names = ["keypoints", "scores", "person_valid", "boxes", "video_fps"]
        rows = reader.read([clip.clip_id for clip in clips], names)
    assert rows["keypoints"].shape == (36, 2, 8, 25, 3) and np.isfinite(rows["keypoints"]).all()
    assert (rows["keypoints"][4, 0] == made[4]["keypoint"][0].astype(np.float32)).all()
    assert rows["scores"][0, 0, 3, 5] == 0 and (rows["keypoints"][0, 0, 3, 5] == rows["keypoints"][0, 0, 2, 5]).all()
    assert rows["person_valid"][1, 0].tolist() == [True] * 5 + [False] * 3
    assert rows["person_valid"][:, 1].any(1).tolist() == [i % 3 == 2 for i in range(36)]
    low, high = (edge(rows["keypoints"][4, 0, :, :, :2], 1) for edge in (np.min, np.max))
    assert (rows["boxes"][4, 0] == np.concatenate([low, high - low], 1)).all(), "x, y, w, h of three dimensions"
    assert (rows["video_fps"] == 0).all(), "the file knows no times"
    again = run_import(tmp_path, file, split="xsub")
    assert again.written == 0 and again.store == done.store
    made[7]["keypoint"] = made[7]["keypoint"] + np.float16(1)
    assert run_import(tmp_path, dump(file, {"annotations": made, "split": split_of(made)}), split="xsub").written == 1


@pytest.mark.unit
def test_an_import_waits_for_who_has_a_shard_and_makes_it_under_its_lease(tmp_path, monkeypatch):
    file, made, seen = dump(tmp_path / "ntu.pkl", records()), shard.make_shard, []

    def make(store, layout, state, *rest):
        seen.append(holder(store.lease(state.wanted.shard)).pid)
        made(store, layout, state, *rest)

    monkeypatch.setattr(shard, "make_shard", make)
    run_import(tmp_path, file)
    assert set(seen) == {os.getpid()} and not list(tmp_path.rglob("*.lease"))
    (receipt,) = tmp_path.glob("cache/store/d/*/shard-00000.json")
    content = receipt.read_bytes()
    receipt.unlink()
    receipt.with_suffix(".lease").write_text('{"machine": "elsewhere", "pid": 1, "version": ""}')

    def finished(watch, path):
        receipt.write_bytes(content)
        path.unlink()
        return True

    monkeypatch.setattr(Watch, "is_free", finished)
    before = len(seen)
    assert run_import(tmp_path, file).clips == len(records()) and len(seen) == before, "the other has made it"


@pytest.mark.unit
@pytest.mark.parametrize(("calls", "files"), [(1, 0), (2, 1)])
def test_a_shard_that_another_has_taken_over_is_not_sealed(tmp_path, monkeypatch, calls, files):
    """The lease is asked before the file has its name, and once more before the receipt counts it."""
    file, asked = dump(tmp_path / "ntu.pkl", records()), []

    def taken_over(lease):
        asked.append(lease)
        if len(asked) == calls:
            raise LeaseLost

    monkeypatch.setattr(Lease, "check", taken_over)
    with pytest.raises(PosebridgeError, match="Another process has taken .*shard-00000.lease over"):
        run_import(tmp_path, file)
    assert len(list(tmp_path.glob("cache/store/d/*/*.h5"))) == files
    assert not list(tmp_path.glob("cache/store/d/*/shard-00000.json"))


@pytest.mark.unit
def test_a_list_with_a_split_in_every_annotation_and_an_npz_say_the_same(tmp_path):
    made = records("kinect20", per_class=2)
    for i, record in enumerate(made):
        record["split"] = ("train", "test")[i % 2]
        record["keypoint"] = record["keypoint"][:1]
    arrays = {key: np.array([record[key] for record in made]) for key in made[0]}
    np.savez(tmp_path / "a.npz", **arrays)
    one, other = read_annotations(dump(tmp_path / "a.pkl", made)), read_annotations(tmp_path / "a.npz")
    assert one[1] == other[1] and set(one[1]) == {"train", "test"}
    for a, b in zip(one[0], other[0], strict=True):
        assert (a.clip_id, a.label, a.height, a.width) == (b.clip_id, b.label, b.height, b.width)
        assert (a.keypoints == b.keypoints).all() and (a.scores == b.scores).all()
    done = run_import(tmp_path, tmp_path / "a.npz", replace(NTU, layout="kinect20"))
    assert done.parts == {"train": 6, "test": 6, "": 0}
    np.savez(tmp_path / "bad.npz", **arrays | {"label": np.array([{}] * 12)})
    with pytest.raises(PosebridgeError, match=r"bad\.npz: label holds Python objects"):
        read_annotations(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", keypoint=arrays["keypoint"], label=arrays["label"])
    with pytest.raises(PosebridgeError, match=r"bad\.npz lacks the array 'frame_dir'"):
        read_annotations(tmp_path / "bad.npz")


@pytest.mark.fault
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    made = records()
    file = tmp_path / "a.pkl"

    def refused(match: str, annotations: list[dict], recipe: Recipe = NTU, split: object = None) -> None:
        dump(file, annotations if split is None else {"annotations": annotations, "split": split})
        with pytest.raises(PosebridgeError, match=match):
            run_import(tmp_path, file, recipe)

    refused("set `layout: ntu25` and `dimensions: 3`", made, COCO)
    refused("has the label 6; classes.csv has 0 to 5", [made[0] | {"label": 6}])
    refused("twice", [made[0], made[0]])
    refused("holds no annotation", [])
    refused("should be a dict with frame_dir, label and keypoint", [{"label": 1}])
    refused(r"has the shape \(25, 3\)", [made[0] | {"keypoint": np.zeros((25, 3))}])
    refused(r"keypoint_score has the shape \(1,\)", [made[0] | {"keypoint_score": np.zeros(1)}])
    refused("choose by --split xsub or --split xview", made, split=split_of(made))
    refused("in a list to train on and in one to test on", made, split=dict.fromkeys(("train", "val"), ["x"]))
    refused("should be in pixels", [made[0] | {"keypoint": np.full((1, 8, 17, 2), 0.5)}], COCO)
    refused("backend: import", made, replace(NTU, backend="ground_truth"))
    refused("no joint layout 'ntu26'", made, replace(NTU, layout="ntu26"))
    assert not (tmp_path / "cache").exists() and not (tmp_path / "manifests/d/clips.csv").exists()

    write_clips(tmp_path / "manifests/d/clips.csv", [Clip(made[0]["frame_dir"], "a.avi", label=0, part="train")])
    refused("lists videos, and 'S001C001P001R001A001' of a.pkl is not among them", made)
    dump(file, made[:1])
    assert run_import(tmp_path, file).parts["train"] == 1, "the list of the videos stays as it is"
    assert read_clips(tmp_path / "manifests/d/clips.csv")[0].path == "a.avi"


@pytest.mark.unit
@pytest.mark.parametrize(("layout", "dimensions"), [("coco17", 2), ("openpose18", 2), ("ntu25", 3), ("kinect20", 3)])
def test_export_and_import_give_the_same_cache(tmp_path, layout, dimensions):
    made = records(layout, dimensions, per_class=2)
    made[0] |= {"img_shape": None, "label": -1}
    recipe = replace(NTU, layout=layout, dimensions=dimensions)
    file = dump(tmp_path / "a.pkl", {"annotations": made, "split": {"train": ["x"]}})
    first = run_import(tmp_path / "a", file, recipe)
    assert first.missing == ("x",)
    with CacheReader(first.index) as reader:
        assert export_skeletons(reader, read_clips(first.clips_csv), tmp_path / "b.pkl") == 12
        with pytest.raises(PosebridgeError, match="none.pkl is not written, as no clip of clips.csv is extracted"):
            export_skeletons(reader, [Clip("other", "a.avi")], tmp_path / "none.pkl")
    exported = pickle.loads((tmp_path / "b.pkl").read_bytes())
    assert set(exported) == {"split", "annotations"} and exported["annotations"][1]["frame_dir"] == made[1]["frame_dir"]
    assert [each["label"] for each in exported["annotations"]] == [record["label"] for record in made]
    second = run_import(tmp_path / "b", tmp_path / "b.pkl", recipe)
    with CacheReader(first.index) as one, CacheReader(second.index) as other:
        names = ["keypoints", "scores", "person_valid", "frame_index", "video_height"]
        a, b = one.read(one.clip_ids, names), other.read(one.clip_ids, names)
    for name in names:
        assert (a[name] == b[name]).all(), name


@pytest.mark.e2e
def test_every_method_without_cues_runs_on_an_imported_3d_data_set(tmp_path):
    made = records()
    file = dump(tmp_path / "a.pkl", {"annotations": made, "split": split_of(made)})
    done = run_import(tmp_path, file, split="xsub")
    protocols = done.clips_csv.parent / "protocols"
    protocols.mkdir()
    (protocols / "p.txt").write_text("5 run\n")
    (protocols / "p.val.txt").write_text("3 jump\n4 sit\n")
    common = {"environment": "a hall", "used_object": "none", "target_object": "none", "key_parts": "legs"}
    words = [common | {"label": name} for name in CLASSES]
    rows = [f"{index},{slot},{text}" for index, texts in enumerate(words) for slot, text in texts.items()]
    (done.clips_csv.parent / "texts.csv").write_text("\n".join(["index,slot,text", *rows]) + "\n")
    write_bank(tmp_path / "cache/text/minilm/d.h5")
    params = Params(
        encode=EncodeParams(epochs=2, batch_size=8, width=4, blocks=(1, 1, 1), seeds=(0,)),
        train=TrainParams(epochs=2, views=2),
    )
    dataset = open_dataset("d", tmp_path / "manifests", tmp_path / "cache")
    encode(dataset, "p", "r", params.encode)
    norms = load_encoder(dataset, "p", "r", 0, "final").input_norm  # one a person
    assert [norm.num_features for norm in norms] == [25 * 4] * 2
    for method, run_flags in WITHOUT_CUES.items():
        run = RunParams(method=method, recipe="r", flags=run_flags)
        train(dataset, "p", method, run, params)
        metrics = json.loads((evaluate(dataset, "p", method, run, params) / "seed-0" / "metrics.json").read_text())
        assert metrics["zsl"]["n"] == 2 and metrics["gzsl"] is not None, method
    with pytest.raises(PosebridgeError, match="holds no cues; .* or the method `skeleton`"):
        train(dataset, "p", "posebridge", RunParams(recipe="r"), params)


@pytest.mark.e2e
def test_the_commands_import_and_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = records()
    dump(tmp_path / "a.pkl", {"annotations": made, "split": split_of(made)})
    write_classes(tmp_path / "manifests/d/classes.csv", CLASSES)
    recipe = "{backend: import, cues: none, layout: ntu25, dimensions: 3, persons: 2, frames: 8}"
    (tmp_path / "params.yaml").write_text(f"datasets: {{d: {{root: .}}}}\nrecipes: {{ntu: {recipe}}}\n")
    invoke = CliRunner().invoke
    done = invoke(main, ["cache", "import", "a.pkl", "--dataset", "d", "--recipe", "ntu", "--split", "xsub"])
    assert done.exit_code == 0 and "(24 train, 12 test; 12 test ones are of its part val), 36 new" in done.output
    done = invoke(main, ["cache", "export", "b.pkl", "--dataset", "d", "--recipe", "ntu"])
    assert done.exit_code == 0 and "Wrote b.pkl with 36 clips" in done.output, done.output
    done = invoke(main, ["extract", "--dataset", "d", "--recipe", "ntu"])
    assert done.exit_code == 1 and "posebridge cache import FILE" in done.output


@pytest.mark.unit
def test_a_corrected_size_of_the_frame_is_taken_in(tmp_path):
    made = records("coco17", 2)
    for size in ((1080, 1920), (540, 960)):
        done = run_import(tmp_path, dump(tmp_path / "a.pkl", [record | {"img_shape": size} for record in made]), COCO)
        with CacheReader(done.index) as reader:
            assert set(reader.read(reader.clip_ids, ["video_height"])["video_height"]) == {size[0]}


@pytest.mark.unit
def test_what_people_wrote_of_imported_clips_stays(tmp_path):
    made = [record | {"label": -1} for record in records()]
    file = dump(tmp_path / "a.pkl", {"split": split_of(made), "annotations": made})
    path = run_import(tmp_path, file, split="xsub").clips_csv
    clips = read_clips(path)
    write_clips(path, [replace(clip, subject="Ann", label=3) for clip in clips], {clips[0].clip_id: {"note": "x"}})
    run_import(tmp_path, file, split="xsub")
    assert {(clip.subject, clip.label) for clip in read_clips(path)} == {("Ann", 3)}
    assert path.read_text().splitlines()[1].endswith(",x")
    made[0]["frame_dir"] = "../../outside"
    with pytest.raises(PosebridgeError, match="'../../outside' lies outside"):
        run_import(tmp_path, dump(tmp_path / "b.pkl", made))

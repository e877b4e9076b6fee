"""Odd files for `cache import`: one sentence that names the file, nothing written, bounded memory."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import hostile
import numpy as np
import pytest

from pipeline.errors import PosebridgeError
from pipeline.interchange.annotations import read_annotations, write_pickle
from pipeline.interchange.importing import import_skeletons
from pipeline.manifest.clips import write_classes
from pipeline.recipe import Recipe

pytestmark = pytest.mark.fault
RECIPE = Recipe(backend="import", cues="none", layout="coco17", dimensions=2, persons=1, frames=8)
MOST = 64 << 20  # bytes of memory for any of these files
SHARED = Path(__file__).parent.parent.parent / "shared" / "faults" / "imports"
PICKLES, NPZ = dict(hostile.odd_pickles()), dict(hostile.odd_npz())


def import_here(folder: Path, file: Path):
    write_classes(folder / "manifests/d/classes.csv", ["one", "two"])
    return import_skeletons("d", "r", RECIPE, file, manifests=folder / "manifests", cache=folder / "cache")


def refused(folder: Path, file: Path) -> str:
    """The sentence that an import ends in; nothing is written, and little memory taken."""
    tracemalloc.start()
    try:
        with pytest.raises(PosebridgeError) as caught:
            import_here(folder, file)
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
    assert not (folder / "cache").exists() and not (folder / "manifests/d/clips.csv").exists()
    said = str(caught.value)
    assert file.name in said and said.endswith(".") and "\n" not in said and len(said) < 1000, said
    said.encode("utf-8", "backslashreplace")
    return said


@pytest.mark.parametrize("kind", PICKLES)
def test_an_odd_pickle_is_one_sentence(tmp_path, kind):
    (tmp_path / "odd.pkl").write_bytes(PICKLES[kind])
    refused(tmp_path, tmp_path / "odd.pkl")


@pytest.mark.parametrize("kind", NPZ)
def test_an_odd_npz_is_one_sentence(tmp_path, kind):
    (tmp_path / "odd.npz").write_bytes(NPZ[kind])
    refused(tmp_path, tmp_path / "odd.npz")


@pytest.mark.parametrize("size", [3, 1 << 31, (1 << 32) - 2])
def test_a_member_that_says_another_size_is_one_sentence(tmp_path, size):
    (tmp_path / "odd.npz").write_bytes(hostile.declared("keypoint", size))
    refused(tmp_path, tmp_path / "odd.npz")


@pytest.mark.parametrize("name", ["none.pkl", "none.npz", "folder.pkl", "folder.npz"])
def test_what_is_no_file_is_one_sentence(tmp_path, name):
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    assert "missing or no plain file" in refused(tmp_path, tmp_path / name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/faults")
@pytest.mark.parametrize("name", [path.name for path in sorted(SHARED.glob("*"))])
def test_the_odd_files_of_the_lab_are_one_sentence_each(tmp_path, name):
    refused(tmp_path, SHARED / name)


GOOD = {
    "as it is": {},
    "float64": {"keypoint": hostile.POSE.astype(np.float64)},
    "big-endian": {"keypoint": hostile.POSE.astype(">f4")},
    "half": {"keypoint": hostile.POSE.astype(np.float16)},
    "whole numbers": {"keypoint": hostile.POSE.astype(np.int16)},
    "Fortran order": {"keypoint": np.asfortranarray(hostile.POSE)},
    "lists": {"keypoint": hostile.POSE.tolist()},
    "label 1.0": {"label": 1.0},
    "label of numpy": {"label": np.int64(1)},
    "label in an array": {"label": np.array([1])},
    "no frame size": {"img_shape": None},
    "a name of numpy": {"frame_dir": np.str_("b")},
    "a name that is a number": {"frame_dir": 17},
    "a name with a folder": {"frame_dir": "jumping/ü 1"},
    "lost joints": {"keypoint": np.where(np.arange(17)[:, None] == 3, np.nan, hostile.POSE)},
    "more frames than there are": {"total_frames": 100},
    "other things": {"original_shape": (5, 5), "flip": False, "note": None},
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_good_pickle_is_read_however_it_is_written(tmp_path, kind, protocol):
    (tmp_path / "good.pkl").write_bytes(pickle.dumps([hostile.record(**GOOD[kind])], protocol))
    assert import_here(tmp_path, tmp_path / "good.pkl").clips == 1


def test_an_array_may_serve_some_clips(tmp_path):
    scores = np.ones((1, 8, 17), np.float32)
    made = [hostile.record(frame_dir=str(i), keypoint=hostile.POSE + i, keypoint_score=scores) for i in range(100)]
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(made))
    assert len(read_annotations(tmp_path / "good.pkl")[0]) == 100


@pytest.mark.parametrize("place", ["cache", "manifests/d/clips.csv"])
def test_a_place_where_nothing_can_be_written_is_one_sentence(tmp_path, place):
    (tmp_path / "good.pkl").write_bytes(pickle.dumps([hostile.record()]))
    write_classes(tmp_path / "manifests/d/classes.csv", ["one"])
    if place == "cache":
        (tmp_path / place).touch()
    else:
        (tmp_path / place).mkdir()
    with pytest.raises(PosebridgeError, match=rf"{place.rpartition('/')[2]}.*\.$"):
        import_here(tmp_path, tmp_path / "good.pkl")


@pytest.mark.parametrize("place", ["file/a.pkl", "folder"])
def test_an_export_that_cannot_be_written_is_one_sentence(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(PosebridgeError, match=f"{place} (cannot be written|is a folder)"):
        write_pickle(tmp_path / place, [], {})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]

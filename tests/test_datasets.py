"""The published data sets' layouts, on miniature trees with their names: what is listed, what is said to be missing."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import FakeEstimator, write_video
from PIL import Image

from pipeline.bench.ingest import bench_ingest
from pipeline.cache.reader import CacheReader
from pipeline.errors import PosebridgeError
from pipeline.extract.extract import extract
from pipeline.ingest.base import Folder, list_folder
from pipeline.ingest.ingest import ingest
from pipeline.ingest.kinetics import plain
from pipeline.ingest.ntu import TRAINING_PERFORMERS, impossible, read_missing_skeletons, read_ntu
from pipeline.ingest.pku_mmd import read_parts
from pipeline.ingest.registry import LAYOUTS
from pipeline.ingest.simulated import PAIRS_OF_SETUPS, ntu120_names
from pipeline.manifest.clips import read_classes, read_clips
from pipeline.params import ExtractParams
from pipeline.recipe import Recipe
from pipeline.synth.dataset import write_video as write_rendered
from pipeline.synth.scene import ClipSpec, render_clip
from stages.ingest import command

MANIFESTS = Path(__file__).parents[1] / "manifests"
RECIPE = Recipe(
    backend="mmpose", config="fake", weights="w", weights_sha256="0" * 64, boxes="full_frame", frames=8, cue_frames=4
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two little skelgap clips, for copying."""
    folder, paths = tmp_path_factory.mktemp("clips"), []
    for seed, held in enumerate(("cup", "ball")):
        path = folder / f"{held}.mp4"
        write_rendered(path, render_clip(ClipSpec("wave", held, seed, seed, seed, seed, seed, seed), 8, 96).frames)
        paths.append(path)
    return paths


@pytest.fixture
def go(tmp_path):
    """Ingest `root` as a data set, with the real classes; returns what was written."""

    def run(dataset, root, **options):
        for name in ("classes.csv", "missing_skeletons.txt"):
            if (source := MANIFESTS / dataset / name).is_file():
                (tmp_path / "m" / dataset).mkdir(parents=True, exist_ok=True)
                shutil.copy(source, tmp_path / "m" / dataset / name)
        result = ingest(dataset, root, manifests=tmp_path / "m", **options)
        return result, read_clips(result.clips_csv)

    return run


def fill(root, names, video=None):
    """A tree of copies of `video`, or of empty files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, path) if video else path.touch()
    return root


def parts(clips):
    return {clip.clip_id: clip.part for clip in clips}


NTU = [
    "nturgbd_rgb_s001/S001C001P001R001A001_rgb.avi",
    "nturgbd_rgb_s001/S001C002P003R002A060_rgb.avi",
    "S002C003P003R001A007_rgb.avi",
]


@pytest.mark.e2e
def test_ntu60_by_its_names(tmp_path, go, videos):
    root = fill(tmp_path / "ntu", NTU, videos[0])
    result, clips = go("ntu60", root)
    assert [(c.clip_id, c.label, c.subject, c.camera, c.part, c.fps) for c in clips] == [
        ("S002C003P003R001A007", 6, "P003", "S002C003", "test", None),
        ("S001C001P001R001A001", 0, "P001", "S001C001", "train", None),
        ("S001C002P003R002A060", 59, "P003", "S001C002", "test", None),
    ]
    assert result.split == "cross-subject" and not result.left_out
    by_setup = Counter(name[:8] if name.endswith(".avi") else name for name, _ in result.missing)
    pairs = {("S001", "P001"), ("S001", "P003"), ("S002", "P003")}
    assert len(result.missing) == 3 * 359 + 15 and by_setup["S003"] == by_setup["S017"] == 1
    missing = {name for name, _ in result.missing}
    assert "S001C003P001R002A033_rgb.avi" in missing and "S001C001P001R001A001_rgb.avi" not in missing
    assert {(name[:4], name[8:12]) for name in missing if name.endswith(".avi")} == pairs
    assert result.remarks[-1].startswith("3 of the 158 pairs")
    with result.missing_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["kind"], r["name"], r["reason"]) for r in rows] == [("missing", *row) for row in result.missing]
    _, clips = go("ntu60", root, split="cross-view", read_headers=True)
    assert parts(clips) == {
        "S001C001P001R001A001": "test", "S001C002P003R002A060": "train", "S002C003P003R001A007": "train"
    }  # fmt: skip
    assert {(c.fps, c.width) for c in clips} == {(16, 96)}


@pytest.mark.unit
def test_ntu120_by_its_names(tmp_path, go):
    names = [*NTU, "S018C001P045R001A061_rgb.avi", "S019C001P044R002A120_rgb.avi"]
    odd = ["S001C001P001R001A061_rgb.avi", "S033C001P001R001A001_rgb.avi", "S001C004P001R001A001_rgb.avi",
           "S001C001P041R001A001_rgb.avi", "S001C001P001R003A001_rgb.avi", "holiday.avi",
           "copy/S018C001P045R001A061_rgb.avi"]  # fmt: skip
    root = fill(tmp_path / "ntu", [*names, *odd, "S001C001P001R001A001_ir.avi", "readme.txt"])
    result, clips = go("ntu120", root)
    assert parts(clips)["S018C001P045R001A061"] == "train" and parts(clips)["S019C001P044R002A120"] == "test"
    assert [clip.label for clip in clips if clip.clip_id[-3:] == "120"] == [119]
    assert len(clips) == 5 and {path for path, _ in result.left_out} == set(odd)
    assert "1 infrared videos were not listed." in result.remarks
    assert len(result.missing) == 5 * 359 + 32 - 4
    _, clips = go("ntu120", root, split="cross-setup")
    assert parts(clips)["S018C001P045R001A061"] == "train" and parts(clips)["S019C001P044R002A120"] == "test"
    assert parts(clips)["S001C001P001R001A001"] == "test" and parts(clips)["S002C003P003R001A007"] == "train"
    result, clips = go("ntu60", root)
    assert len(clips) == 3 and result.remarks[0].startswith("3 videos of the actions 61 to 120")
    with pytest.raises(PosebridgeError, match="ntu120 has no split 'cross-view'; it has cross-subject, cross-setup"):
        go("ntu120", root, split="cross-view")


@pytest.mark.unit
def test_samples_without_skeletons_are_taken_out_on_request(tmp_path, go):
    root = fill(tmp_path / "ntu", [*NTU, "S001C002P005R002A008_rgb.avi"])
    result, clips = go("ntu60", root)
    assert len(clips) == 4 and not result.without_skeleton
    result, clips = go("ntu60", root, without_missing=True)
    assert len(clips) == 3 and result.without_skeleton == 1
    assert "S001C002P005R002A008_rgb.avi" not in {name for name, _ in result.missing}, "it is there"
    with pytest.raises(PosebridgeError, match="No list of missing skeletons"):
        go("ut_interaction", fill(tmp_path / "ut", ["0_1_4.avi"]), without_missing=True)


@pytest.mark.unit
def test_the_lists_of_missing_skeletons_are_the_published_ones():
    short, long = (read_missing_skeletons(MANIFESTS / name / "missing_skeletons.txt") for name in ("ntu60", "ntu120"))
    assert (len(short), len(long)) == (302, 535) and short < long
    assert not [name for name in long if impossible(tuple(int(name[i : i + 3]) for i in (1, 5, 9, 13, 17)))]


@pytest.mark.unit
def test_a_complete_ntu120_is_missing_nothing():
    names = ntu120_names()
    assert len(names) == len(set(names)) == 114_480 and len(PAIRS_OF_SETUPS) == 318
    classes = read_classes(MANIFESTS / "ntu120/classes.csv")
    listing = read_ntu(Folder(Path("ntu"), names), classes, "cross-subject", 120)
    assert len(listing.entries) == 114_480 and not (listing.missing or listing.left_out or listing.remarks)
    assert set(Counter(entry.label for entry in listing.entries).values()) == {948, 960}
    without = [name for name in names if "S020" not in name and "C002P007R001A01" not in name]
    listing = read_ntu(Folder(Path("ntu"), without), classes, "cross-subject", 120)
    gone = {name.rpartition("/")[2] for name in set(names) - set(without) if "S020" not in name}
    assert {name for name, _ in listing.missing} == gone | {"S020"}
    assert len(TRAINING_PERFORMERS) == 53 and len([p for p in TRAINING_PERFORMERS if p <= 40]) == 20


def pku(root, video):
    """Three videos' worth of PKU-MMD, one of which is not there."""
    fill(root, ["RGB_VIDEO/0002-L.avi", "RGB_VIDEO/0003-M.avi", "DEPTH_VIDEO/0002-L.avi"], video)
    labels = root / "Label/Train_Label_PKU_final"
    labels.mkdir(parents=True)
    (labels / "0002-L.txt").write_text("1,0,4,2\n51,4,8,1\n")
    (labels / "0003-M.txt").write_text("7,2,6,1\n")
    (labels / "0004-R.txt").write_text("7,2,6,1\n")
    fill(root, ["Skeleton/0002-L.txt"])
    (root / "Split").mkdir()
    (root / "Split/cross-subject.txt").write_text(
        "Training videos:\n0002-L, 0004-R\n\nValidation videos:\n0003-M, 0005-L, \n"
    )
    return root


@pytest.mark.e2e
def test_pku_mmd_by_its_label_files_through_extraction(tmp_path, go, videos):
    root = pku(tmp_path / "pku", videos[0])
    result, clips = go("pku_mmd", root)
    assert [(c.clip_id, c.path, c.start, c.end, c.label, c.camera, c.part) for c in clips] == [
        ("0002-L@0-4", "RGB_VIDEO/0002-L.avi", 0, 0.25, 0, "L", "train"),
        ("0002-L@4-8", "RGB_VIDEO/0002-L.avi", 0.25, 0.5, 50, "L", "train"),
        ("0003-M@2-6", "RGB_VIDEO/0003-M.avi", 0.125, 0.375, 6, "M", "test"),
    ], "16 frames a second"
    assert [name for name, _ in result.missing] == ["0004-R.avi", "0005-L.avi", "0005-L.txt"] and not result.left_out
    done = extract(
        "pku_mmd", "fake", RECIPE, root, params=ExtractParams(), build_estimator=lambda recipe: FakeEstimator(),
        manifests=tmp_path / "m", cache=tmp_path / "cache",
    )  # fmt: skip
    assert done.clips == 3 and not done.failures
    with CacheReader(done.index) as reader:
        frames = reader.read(["0002-L@4-8", "0003-M@2-6"], ["frame_index"])["frame_index"]
    assert set(frames[0]) == {4, 5, 6, 7} and set(frames[1]) == {2, 3, 4, 5}


@pytest.mark.unit
def test_wrong_rows_of_pku_mmd_are_listed_with_their_line(tmp_path, go, videos):
    root = pku(tmp_path / "pku", videos[0])
    rows = ["52,0,4,1", "0,0,4,1", "1,4,4,1", "", "1;2;3", "1,0,4,1", "2,0,4,1", "1,0,1" + "0" * 400, "1,0,9999999999"]
    (root / "Label/Train_Label_PKU_final/0002-L.txt").write_text("\n".join(rows) + "\n")
    (root / "RGB_VIDEO/0003-M.avi").write_text("no video")
    write_video(root / "RGB_VIDEO/0009-L.avi", frames=2, codec="mpeg4")
    result, clips = go("pku_mmd", root)
    assert [clip.clip_id for clip in clips] == ["0002-L@0-4"]
    left_out = dict(result.left_out)
    lines = {int(name.rpartition(" ")[2]) for name in left_out if name.startswith("Label/") and "0002-L.txt" in name}
    assert lines == {1, 2, 3, 5, 7, 8} and "no second 624999999.9" in left_out["0002-L@0-9999999999"]
    assert "neither list" in left_out["0009-L"] and "no frame rate" in left_out["0003-M@2-6"]
    assert [path for path, _ in result.unreadable] == ["RGB_VIDEO/0003-M.avi"]
    with pytest.raises(PosebridgeError, match="omit --no-probe"):
        go("pku_mmd", root, read_headers=False)
    with pytest.raises(PosebridgeError, match="has no cross-view.txt"):
        go("pku_mmd", root, split="cross-view")
    shutil.rmtree(root / "Label")
    with pytest.raises(PosebridgeError, match="no label files"):
        go("pku_mmd", root)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Training videos:\n0002-L,0003-L\nValidation videos:\n0004-L, 0002-L\n", "line 4: '0002-L' stands on line 2"),
        ("0002-L\n", "line 1: '0002-L' is not a video under"),
        ("Training videos:\n0002-L, 2-L\n", "line 2: '2-L' is not a video"),
        ("Testing videos:\n", "line 1: the heading 'Testing videos' is unknown"),
        ("Training videos:\n0002-L\n", "does not have both lists"),
    ],
)
def test_a_wrong_split_file_of_pku_mmd_is_refused_with_its_line(tmp_path, text, complaint):
    (tmp_path / "cross-view.txt").write_text(text)
    with pytest.raises(PosebridgeError, match=complaint):
        read_parts(tmp_path / "cross-view.txt")


ANNOTATIONS = """label,youtube_id,time_start,time_end,split,is_cc
abseiling,aaaaaaaaaaa,1,11,train,0
"massaging person's head",bbbbbbbbb_b,20,30,train,0
zumba,zzzzzzzzzzz,0,10,train,0
abseiling,ccccccccccc,0,10,validate,0
air drumming,ddddddddd-d,3,13,test,0
"""


@pytest.mark.unit
def test_kinetics_by_its_annotations(tmp_path, go):
    names = [
        "train/abseiling/aaaaaaaaaaa_000001_000011.mp4",
        "train/massaging_persons_head/bbbbbbbbb_b_000020_000030.mp4",
        "train/zumba/zzzzzzzzzzz_000000_000010.mkv",
        "val/eating_cake/ccccccccccc_000000_000010.mp4",
        "test/ddddddddd-d_000003_000013.mp4",
        "train/abseiling/eeeeeeeeeee_000000_000010.mp4",
        "train/abseiling/short.mp4",
    ]
    root = fill(tmp_path / "k", names)
    (root / "annotations.csv").write_text(ANNOTATIONS)
    (root / "other.csv").write_text("a,b\n1,2\n")
    result, clips = go("kinetics400", root)
    found = {c.clip_id: (c.label, c.part) for c in clips}
    classes = read_classes(MANIFESTS / "kinetics400/classes.csv")
    assert found == {
        "aaaaaaaaaaa_000001_000011": (0, "train"),
        "bbbbbbbbb_b_000020_000030": (classes.index("massaging person's head"), "train"),
        "zzzzzzzzzzz_000000_000010": (classes.index("zumba"), "train"),
    }
    assert [name for name, _ in result.missing] == ["val/abseiling/ccccccccccc_000000_000010.mp4"]
    assert [path for path, _ in result.left_out] == [names[5], names[6], names[3]]
    assert result.remarks == ("1 videos of other classes, or of the split `test`, were not listed.",)
    result, clips = go("kinetics200", root)
    assert len(clips) == 1 + (classes.index("massaging person's head") < 200), "a subset"
    assert not [name for name, _ in result.missing if "zumba" in name]


@pytest.mark.unit
def test_wrong_annotations_of_kinetics_are_listed_with_their_line(tmp_path, go):
    root = fill(tmp_path / "k", ["train/abseiling/aaaaaaaaaaa_000001_000011.mp4"])
    rows = ["flying,ggggggggggg,0,10,train,0", "abseiling,hhh,0,10,train,0", "abseiling,iiiiiiiiiii,soon,10,train,0",
            "abseiling,jjjjjjjjjjj,0,10,later,0", "zumba,aaaaaaaaaaa,1,11,train,0"]  # fmt: skip
    (root / "train.csv").write_text(ANNOTATIONS + "\n".join(rows) + "\n")
    result, clips = go("kinetics400", root)
    assert len(clips) == 1 and [name for name, _ in result.left_out] == [f"train.csv, line {n}" for n in range(7, 12)]


@pytest.mark.unit
def test_kinetics_without_annotations_goes_by_its_folders(tmp_path, go):
    folders = ("videos_train/air_drumming/", "videos_val/Zumba/", "videos_val/flying/", "")
    names = [f"{folder}{letter * 11}_000001_000011.mp4" for folder, letter in zip(folders, "abcd", strict=True)]
    result, clips = go("kinetics400", fill(tmp_path / "k", names))
    assert [(c.label, c.part) for c in clips] == [(1, "train"), (399, "test")]
    assert len(result.left_out) == 2 and "nothing tells what is missing" in result.remarks[0]
    assert plain("Petting animal (not cat)") == plain("petting_animal_(not_cat)") == "petting animal not cat"


@pytest.mark.unit
@pytest.mark.parametrize("annotated", [False, True])
def test_a_class_of_kinetics_whose_name_has_a_part_in_it_is_no_part(tmp_path, go, annotated):
    """`training dog` is a class; above it only whole names are parts."""
    folders = ["val/training dog/", "train/training_dog/", "validation/Training_Dog/", "my training videos/val/zumba/",
               "train_256/zumba/", "training dog/", "train/val/zumba/"]  # fmt: skip
    root = fill(tmp_path / "k", [f"{f}{x * 11}_000000_000010.mp4" for f, x in zip(folders, "abcdefg", strict=True)])
    dog = read_classes(MANIFESTS / "kinetics400/classes.csv").index("training dog")
    parts = ["test", "train", "test", "test", "train", "test", "train"]
    truth = {x: (399 if x in "deg" else dog, part) for x, part in zip("abcdefg", parts, strict=True)}
    if annotated:
        rows = [f"{'zumba' if label == 399 else 'training dog'},{x * 11},0,10,{part.replace('test', 'val')}"
                for x, (label, part) in truth.items()]  # fmt: skip
        (root / "a.csv").write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    result, clips = go("kinetics400", root)
    said = "abcdefg" if annotated else "abcde"  # without annotations nothing tells the parts of the last two
    assert {clip.clip_id[0]: (clip.label, clip.part) for clip in clips} == {x: truth[x] for x in said}
    assert len(result.left_out) == len(truth) - len(said)


@pytest.mark.unit
def test_ut_interaction_by_its_names(tmp_path, go):
    names = [f"set{1 + (s > 10)}/{6 * (s - 1) + c}_{s}_{c}.avi" for s in range(1, 21) for c in range(6)]
    root = fill(tmp_path / "ut", [*(n for n in names if not n.endswith("_16_3.avi")), "seq1.avi", "set1/7_21_0.avi"])
    result, clips = go("ut_interaction", root, read_headers=False)
    assert len(clips) == 119 and [name for name, _ in result.missing] == ["*_16_3.avi"]
    assert {path for path, _ in result.left_out} == {"seq1.avi", "set1/7_21_0.avi"}
    assert Counter(c.part for c in clips) == {"train": 60, "test": 59}
    assert {c.subject for c in clips if c.part == "train"} == {f"seq{k + s:02d}" for k in range(1, 6) for s in (0, 10)}
    _, clips = go("ut_interaction", root, read_headers=False, split="leave-out-3")
    assert {c.subject for c in clips if c.part == "test"} == {"seq03", "seq13"}
    assert [c.label for c in clips if c.clip_id == "22_4_4"] == [4]


@pytest.mark.unit
def test_gym_by_its_table_of_exercises(tmp_path):
    names = read_classes(MANIFESTS / "gym/classes.csv")
    assert len(names) == 873 and names[0] == "3/4 Sit-Up"
    shutil.copytree(MANIFESTS / "gym", tmp_path / "m/gym", ignore=shutil.ignore_patterns("clips*"))
    root = tmp_path / "gym"
    for folder in ("3_4_Sit-Up", "Ab_Roller", "Stray"):
        (root / "frames" / folder).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (60, 40)).save(root / "frames" / folder / f"{i}.jpg")
    (root / "exercises.csv").write_text(
        "id,name,equipment\n3_4_Sit-Up,3/4 Sit-Up,body only\nAb_Roller,Ab Roller,other\nAdductor,Adductor,\n"
        "3_4_Sit-Up,3/4 Sit-Up,\nFlying,Flying,cable\n"
    )
    result = ingest("gym", root, image_fps=1, manifests=tmp_path / "m")
    assert [(c.clip_id, c.path, c.label, c.part, c.fps, c.frames) for c in read_clips(result.clips_csv, 873)] == [
        ("3_4_Sit-Up", "frames/3_4_Sit-Up/", 0, "both", 1, 2),
        ("Ab_Roller", "frames/Ab_Roller/", names.index("Ab Roller"), "both", 1, 2),
    ]
    assert result.missing == (("frames/Adductor/", "exercises.csv, line 4 names it"),)
    assert result.left_out == (
        ("exercises.csv, line 5", "the exercise 3_4_Sit-Up stands there already"),
        ("exercises.csv, line 6", "'Flying' is not a class of this data set"),
        ("frames/Stray/", "exercises.csv does not name it"),
    )


@pytest.mark.e2e
def test_the_command_counts_what_is_missing(tmp_path, videos):
    root, manifests = fill(tmp_path / "ntu", NTU, videos[0]), tmp_path / "m"
    (manifests / "ntu60").mkdir(parents=True)
    shutil.copy(MANIFESTS / "ntu60/classes.csv", manifests / "ntu60")
    params = tmp_path / "params.yaml"
    params.write_text("datasets: {}\n")
    base = ["--dataset", "ntu60", str(root), "--manifests", str(manifests), "--params", str(params)]
    result = CliRunner().invoke(command, [*base, "--split", "cross-view", "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert (values["clips"], len(values["missing"]), values["split"]) == (3, 1092, "cross-view")
    assert "1082 more in" in result.stderr and f"`ntu60: {{root: {root}}}`" in result.stderr
    plainly = CliRunner().invoke(command, base)
    assert "3 clips of 3 videos (cross-subject); 1092 missing and 0 left out, listed in" in plainly.stdout
    for more in (["--split", "cross-setup"], ["--without-missing"]):
        result = CliRunner().invoke(command, [*base, *more])
        assert result.exit_code == 1 and result.stderr.strip().splitlines()[-1].startswith("Error: ")
    params.write_text(f"datasets: {{ntu60: {{root: {root}}}}}\n")
    assert "For `extract`" not in CliRunner().invoke(command, base).stderr


@pytest.mark.unit
def test_a_folder_of_something_else_is_one_sentence(tmp_path, go):
    with pytest.raises(PosebridgeError, match="None of the 1 videos .* first holiday.avi: the name is not of the form"):
        go("ntu60", fill(tmp_path / "a", ["holiday.avi"]))
    with pytest.raises(PosebridgeError, match="No video found"):
        go("ntu60", fill(tmp_path / "b", ["readme.txt"]))
    with pytest.raises(PosebridgeError, match="neither splits nor a list"):
        ingest("mine", fill(tmp_path / "c", ["a/b.avi"]), split="cross-view", manifests=tmp_path / "m")


@pytest.mark.unit
def test_links_are_followed_once_and_dead_ones_are_no_files(tmp_path):
    root = fill(tmp_path / "ntu", ["here/a.avi"])
    fill(tmp_path / "disk", ["b.avi"])
    (root / "there").symlink_to(tmp_path / "disk")
    (root / "here/loop").symlink_to(root)
    (root / "dead.avi").symlink_to(tmp_path / "nothing.avi")
    assert list_folder(root).files == ["here/a.avi", "there/b.avi"]


@pytest.mark.e2e
def test_the_benchmark_ingests_as_many_names_as_it_is_told(tmp_path):
    result = bench_ingest(tmp_path, 400)
    assert (result.videos, result.missing) == (400, 320 + 30) and result.seconds > 0


@pytest.mark.unit
def test_every_layout_has_classes_and_a_default_split():
    for dataset, layout in LAYOUTS.items():
        assert len(read_classes(MANIFESTS / dataset / "classes.csv")) >= 6 and layout.splits

"""params.yaml: unknown keys, wrong types, the file that ships."""

from pathlib import Path

import pytest

from pipeline.errors import PosebridgeError
from pipeline.files.yaml_file import MOST_BYTES, read_yaml, yaml_text
from pipeline.params import EncodeParams, ExtractParams, Params, RunParams, SynthParams, TrainParams, load_params
from pipeline.recipe import Recipe

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parent.parent


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "params.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_shipped_file_is_valid_and_runs_name_recipes_that_exist() -> None:
    params = load_params(ROOT / "params.yaml")
    for run in params.runs.values():
        assert run.recipe in params.recipes
        assert run.skeletons != "gt" or "gt" in params.recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epcohs: 3}", "did you mean epochs"),
        ("trian: {epochs: 3}", "did you mean train"),
        ("train: {epochs: many}", "should be int"),
        ("train: {epochs: true}", "should be int"),
        ("train: [1]", "should be a mapping"),
        ("datasets: {d: {}}", "'root' is missing"),
        ("recipes: {r: {anchors: body}}", "should be a list"),
        ("a: [", "not valid YAML"),
        ("train:", "params.yaml: train should be a mapping, and is empty"),
        ("datasets: 0", "datasets should be a mapping"),
        ("train: {lr: -1}", "params.yaml: train: lr should be more than 0, not -1.0"),
        ("train: {lr: .nan}", "train: lr should be a finite number"),
        ("train: {lr: 1e999}", "train: lr should be a finite number"),
        ("train: {epochs: 1" + "0" * 25 + "}", "train: epochs should be a finite number"),
        ("train: {epochs: 1" + "0" * 5000 + "}", "line 1, column 17: .* more than 30 digits"),
        ("train: {views: 0}", "train: views should be at least 1"),
        ("encode: {dropout: 1.5}", "encode: dropout should be at least 0 and at most 1, not 1.5"),
        ("encode: {blocks: [2, 0]}", "encode: blocks should be at least 1"),
        ("encode: {blocks: []}", "encode: blocks should be one or more"),
        ("encode: {seeds: []}", "encode: seeds should be one or more"),
        ("encode: {seeds: [1, 1]}", "encode: seeds should be one or more, each of them once"),
        ("encode: {seeds: [-1]}", "encode: seeds should be at least 0"),
        ("extract: {clips_per_shard: 0}", "extract: clips_per_shard should be at least 1"),
        ("extract: {batch_size: 0}", "extract: batch_size should be at least 1"),
        ("executor: {name: pbs}", "executor: name should be one of local, slurm, ray, not 'pbs'"),
        ("executor: {slurm: {gpu: 1}}", "executor: slurm: 'gpu' is not a known key; did you mean gpus"),
        ("executor: {slurm: {minutes: 0}}", "executor: slurm: minutes should be at least 1"),
        ("executor: {ray: {gpus: -1}}", "executor: ray: gpus should be at least 0"),
        ("recipes: {r: {frames: 0}}", "recipes: r: frames should be at least 1"),
        ("recipes: {r: {detection_threshold: 1.2}}", "r: detection_threshold should be more than 0 and at most 1"),
        ("recipes: {r: {precision: float16}}", "r: precision should be one of float32, bfloat16, not 'float16'"),
        ("recipes: {r: {cues: all}}", "recipes: r: cues should be one of refined, levels, none, not 'all'"),
        ("recipes: {r: {boxes: yolo}}", "recipes: r: boxes should be one of full_frame, manifest, detector"),
        ("recipes: {r: {hpe_text: some}}", "recipes: r: hpe_text should be one of none, captions-strict, captions"),
        ("recipes: {r: {channels: gbr}}", "recipes: r: channels should be one of rgb, bgr, not 'gbr'"),
        ("runs: {r: {flags: {a: [.inf]}}}", "r: flags: a: 0 should be a finite number"),
        ("datasets: {../..: {root: x}}", "datasets: '../..' cannot be the name of a data set"),
        ("recipes: {a/b: {}}", "recipes: 'a/b' cannot be the name of a recipe"),
        ("runs: {a b: {}}", "runs: 'a b' cannot be the name of a run"),
        ("runs: {a: {recipe: ../b}}", "runs: a: '../b' cannot be the name of a recipe"),
        ("runs: {a: {skeletons: /b}}", "runs: a: '/b' cannot be the name of a recipe"),
        ("datasets: {60: {root: x}}", "datasets: the key 60 is read as no text; put it in quotes"),
        ("runs: {no: {}}", "runs: the key False is read as no text"),
        ("train:\n  lr: 1\n  epochs: 2\n  lr: 2\n", "line 4, column 3: .*the key 'lr' stands on line 2 already"),
        ("train:\n\tlr: 1\n", "line 2, column 1: "),
        ("train: {lr: 1}\nencode: {lr: [}", "line 2, column 15"),
        ("[" * 100_000, "line 1, column 21: .*more than 20 levels"),
        ("{a: " * 10_000, "more than 20 levels"),
        ("a: &a [*a]", "'a' contains itself"),
        ("a: &a\n  b: *a", "line 2, column 6: .*'a' contains itself"),
        ("a: !!python/object/apply:os.system [true]", "the tag .* has no meaning here"),
        ("a: !!set {b}", "the tag .* has no meaning here"),
        ('a: "\\ud800"', "half a character"),
        (b"train: {}\n# \xff \xc3\xbc\n", "line 2, character 3: the byte 0xff is no UTF-8"),
        (b"train: {}\n\0", "line 2, character 1: there is a NUL"),
        ("train: {}\n \x01", "line 2, character 2: .*#x0001 is forbidden"),
        (b"#" * (MOST_BYTES + 1), "no file of ours"),
        ("? [a]\n: 1", "a key should be a plain word"),
        ("- a\n--- b", "line 2"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PosebridgeError, match=message):
        load_params(write(tmp_path, text))


def test_values_reach_the_dataclasses(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, "train: {lr: 1}\nencode: {seeds: [4, 5]}\nrecipes: {r: {sigma: 0.1}}"))
    assert params.train.lr == 1.0 and isinstance(params.train.lr, float)
    assert params.encode.seeds == (4, 5)
    assert params.recipes["r"] == Recipe(sigma=0.1)
    assert load_params(write(tmp_path, "")) == Params()


def test_a_recipe_is_known_by_what_changes_its_result() -> None:
    base = Recipe(weights="a.safetensors", weights_sha256="1" * 64)
    assert Recipe(weights="elsewhere/a.safetensors", weights_sha256="1" * 64).fingerprint == base.fingerprint
    assert Recipe(weights="a.safetensors", weights_sha256="2" * 64).fingerprint != base.fingerprint
    assert Recipe(weights="a.safetensors", weights_sha256="1" * 64, sigma=0.09).fingerprint != base.fingerprint


def test_no_store_of_a_shipped_recipe_gets_another_name() -> None:
    """The first 12 digits, which name the folder of a store: under another it is extracted anew. ALGORITHM may move
    them.
    """
    refined, tinypose, gt = "d13ccec7069b", "d573ea119b3f", "4b948a78f201"  # refined: since `light: raised`
    paper = {"refined": "089e11ebb3e4", "levels": "0c6cf09aa806"}
    levels = {"levels_sem": "02d931ed4625", "levels_kp": "02d931ed4625"}
    boxes = {"jittered": "cdedb79a1edc", "detected": "57c01c2f055a"}
    tuned = {f"tinypose_shoot_{fold}": "5e0d02d5058f" for fold in range(1, 6)}
    files = sorted(path for path in (ROOT / "params").glob("*.yaml") if path.name not in ("tables.yaml", "dvc.yaml"))
    assert {path.name: {name: recipe.fingerprint[:12] for name, recipe in load_params(path).recipes.items()}
            for path in (ROOT / "params.yaml", *files)} == {
        "across.yaml": {"levels": paper["levels"], "ntu25_3d": "31f5bada4273", "kinect20_3d": "11acf744ef2d"},
        "gym.yaml": {"tinypose": "607aaedb907b", "background": "c73f59fd272a", "room": "af18f2906de5",
                     "image_network": "f61599ad92fe", "image_network_background": "542685e45236",
                     "image_text": "55f2fbeab2c6"} | tuned,
        "imported-features.yaml": {},
        "params.yaml": {"refined": refined, "tinypose": tinypose, "gt": gt, "coco17_2d": "750a3bb15b8a",
                        "ntu25_3d": "31f5bada4273"},
        "paper-kinetics.yaml": paper, "paper-ntu-synse.yaml": paper, "paper-pku.yaml": paper,
        "skelgap.yaml": {"refined": refined, "strict": refined, "gt": gt} | levels | boxes,
        "ut-interaction.yaml": {"tinypose": tinypose, "tinypose_gym": "d1f82ae7bd65"},
    }  # fmt: skip


def test_fewer_seeds_of_encode_and_of_every_run(tmp_path):
    runs = "runs: {all: {}, three: {seeds: [0, 1, 2]}}"
    params = load_params(write(tmp_path, f"encode: {{seeds: [0, 1, 2, 3]}}\n{runs}"))
    fewer = params.only((3, 1))
    assert fewer.encode.seeds == (1, 3)
    assert fewer.seeds(fewer.runs["all"]) == (1, 3) and fewer.seeds(fewer.runs["three"]) == (1,)
    assert params.only(()) == params
    with pytest.raises(PosebridgeError, match="no seed 7 among encode's in the parameters; there are 0, 1, 2, 3"):
        params.only((1, 7))
    with pytest.raises(PosebridgeError, match="the seeds 0, 1, 2, and none of 3"):
        params.only((3,)).seeds(params.runs["three"])
    with pytest.raises(PosebridgeError, match="runs: three: the seed 2 is none of encode's, 0, 1"):
        load_params(write(tmp_path, f"encode: {{seeds: [0, 1]}}\n{runs}"))


def test_numbers_are_read_as_people_write_them(tmp_path: Path) -> None:
    text = "train: {lr: 2e-3, epochs: 010, ema: .5}\nencode: {lr: 1E-2, weight_decay: 0}"
    params = load_params(write(tmp_path, text))
    assert (params.train.lr, params.train.epochs, params.train.ema) == (0.002, 10, 0.5)
    assert (params.encode.lr, params.encode.weight_decay) == (0.01, 0.0)
    whole = load_params(write(tmp_path, "train: {epochs: 3.0, batch_size: 1e3}\nencode: {epochs: 1_000}"))
    assert (whole.train.epochs, whole.train.batch_size, whole.encode.epochs) == (3, 1000, 1000)
    assert isinstance(whole.train.epochs, int)
    flags = load_params(write(tmp_path, "runs: {r: {flags: {a: 1:30, b: 5., c: +3, d: 2001-01-01}}}")).runs["r"].flags
    assert flags == {"a": "1:30", "b": 5.0, "c": 3, "d": "2001-01-01"}


def test_a_file_of_a_spreadsheet_editor_is_read(tmp_path: Path) -> None:
    text = "# grün\r\ntrain: {epochs: 3}\r\n"
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        assert load_params(write(tmp_path, text.encode(encoding))).train.epochs == 3


def test_aliases_are_read_and_a_bomb_of_them_is_not(tmp_path: Path) -> None:
    params = load_params(write(tmp_path, "train: &t {lr: 1, epochs: 5}\nencode: {<<: *t, epochs: 7}"))
    assert (params.train.epochs, params.encode.epochs, params.encode.lr) == (5, 7, 1.0)
    lists = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    for k in range(9):
        lists += f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n"
    merges = "a0: &a0 {x: 1}\n"
    for k in range(40):
        merges += f"a{k + 1}: &a{k + 1} {{<<: [*a{k}, *a{k}]}}\n"
    for bomb in (lists, merges):
        with pytest.raises(PosebridgeError, match="line .*more than 20000 values, repeated ones counted"):
            load_params(write(tmp_path, bomb))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    data = {"2e-3": {"a": "1e5", "b": 1e-05, "c": [True, "yes", "010", "1:30", None, "é", "x\ny", float("inf")]}}
    assert read_yaml(write(tmp_path, yaml_text(data)), "") == data


@pytest.mark.parametrize("build", [
    lambda: ExtractParams(clips_per_shard=0), lambda: TrainParams(lr=0), lambda: EncodeParams(seeds=()),
    lambda: SynthParams(train_clips=-1), lambda: Recipe(persons=0), lambda: Recipe(std=(1.0, 0.0, 1.0)),
    lambda: RunParams(recipe=".."),
])  # fmt: skip
def test_bounds_hold_in_the_library_too(build) -> None:
    with pytest.raises(PosebridgeError):
        build()

"""Whether this machine has what the work needs, before the work begins: one check a line, each with its remedy.

Reads pyproject.toml, params.yaml, manifests, .dvc/config, installed packages and weights; imports as little as it can,
downloads nothing and writes nothing.
    posebridge doctor --dataset skelgap-mini --recipe refined
"""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PosebridgeError, first_line
from pipeline.files.shipped import MM_REQUIREMENTS, dataset_file
from pipeline.params import Params, choose
from pipeline.recipe import IMAGE_TEXT, POSE, Recipe

if TYPE_CHECKING:
    import torch

    from pipeline.hpe.weights import WeightsFile

PYTHON = ((3, 11), (3, 14))  # from, to
MM = ("mmpose", "mmengine", "mmcv-lite")  # installed without their requirements, for `backend: mmpose`
FAISS = ("faiss-cpu", "faiss-gpu")
ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")
JOINTS, REFINED_WIDTH, LEVELS_WIDTH = 17, 512, 1024  # where no store tells: usual sizes, generous for levels
OK, MISSING, NOTE = "ok", "missing", "note"


@dataclass(frozen=True)
class Check:
    """One finding. `missing` stops the work; a `note` does not."""

    name: str
    state: str  # ok, missing or note
    found: str
    remedy: str = ""


def examine(
    params: Params | None, datasets: Sequence[str] = (), recipes: Sequence[str] = (),
    manifests: Path = Path("manifests"), cache: Path = Path("cache"), dvc: Path = Path(".dvc/config"),
    own_params: bool = True,
) -> Iterator[Check]:  # fmt: skip
    """Every check, in the order of what builds on what.

    Weights and disk space are `missing` only for the recipes and data sets that are asked for; for others a lack is a
    note. `params` is None where there is no params.yaml, and not `own_params` where it is what ships.
    """
    yield check_python(sys.version_info[:3])
    wanted = [params.recipes[name] for name in recipes if name in params.recipes] if params else []
    onnx = any(recipe.backend == "onnx" or recipe.boxes == "detector" for recipe in wanted)
    packages = list(check_packages(any(recipe.backend == "mmpose" for recipe in wanted), onnx))
    yield from packages
    broken = any(check.state == MISSING for check in packages)
    if not broken:
        yield check_gpu()
        yield from check_runs(onnx)
    yield check_dvc(dvc)
    if not own_params:
        what = "none here" if params is None else "none here, so posebridge's own is looked at"
        yield Check("params.yaml", NOTE, what, "run the command from the project's folder, or use --params")
    if params is None:
        return
    from pipeline.manifest.clips import read_clips
    from pipeline.text.encoder import split_variant

    for name in sorted({params.text.encoder, *(run.text for run in params.runs.values())}):
        yield check_encoder(split_variant(name)[0])
    if broken:  # the rest needs them
        return
    for name in recipes:
        choose(params.recipes, name, "recipe")
    for name, recipe in params.recipes.items():
        yield from check_weights(name, recipe, needed=name in recipes)
    yield from check_bfloat16(params)
    there = [path.parent.name for path in sorted(manifests.glob("*/clips.csv"))]
    for dataset in dict.fromkeys([*datasets, *there]):
        try:
            clips = len(read_clips(dataset_file(manifests, dataset, "clips.csv")))
        except PosebridgeError as error:
            yield _lacking(f"disk: {dataset}", False, error)
            continue
        for name, recipe in params.recipes.items():
            if recipe.backend not in ("import", "features"):
                asked = dataset in datasets and (name in recipes or not recipes)
                yield check_disk(f"disk: {dataset}, {name}", clips, recipe, cache, needed=asked)


def check_python(version: tuple[int, int, int]) -> Check:
    """Python's version."""
    low, high = PYTHON
    good = low <= version[:2] < high
    remedy = "" if good else f"install Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}, and posebridge in it"
    return Check("python", OK if good else MISSING, ".".join(map(str, version)), remedy)


def check_packages(mmpose: bool, onnx: bool = False) -> Iterator[Check]:
    """The project's requirements against what is installed, without importing any of it.

    `mmpose`, `onnx`: whether a recipe that is asked for runs in mmpose, or needs ONNX Runtime; else a lack is a note.
    """
    from packaging.requirements import Requirement

    for text in requirements():
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = version_of(requirement.name)
        good = found is not None and requirement.specifier.contains(found, prereleases=True)
        remedy = "" if good else f"pip install '{requirement.name}{requirement.specifier}'"
        yield Check(requirement.name, OK if good else MISSING, found or "not installed", remedy)
    for name in MM:
        found = version_of(name) or (version_of("mmcv") if name == "mmcv-lite" else None)
        lack = MISSING if mmpose else NOTE
        remedy = "" if found else f"pip install --no-deps --requirement {MM_REQUIREMENTS}"
        yield Check(name, OK if found else lack, found or "not installed", remedy)
    yield from check_names(importlib.metadata.packages_distributions())
    yield check_pair("onnxruntime", ONNXRUNTIME, MISSING if onnx else NOTE, "not installed")
    yield check_pair("faiss", FAISS, NOTE, "not installed; PyTorch takes its place, slower, but not in `search`")


def check_names(bringers: Mapping[str, Sequence[str]]) -> Iterator[Check]:
    """Our import packages, whose names others use, too: one that is installed over ours, or under it. `bringers` are
    distributions by the import package that they bring.
    """
    for name in ("pipeline", "stages"):
        others = sorted({found for found in bringers.get(name, ()) if found.lower() != "posebridge"})
        if others:
            remedy = f"pip uninstall {' '.join(others)}, and install posebridge again, into an environment of its own"
            yield Check(f"package {name}", MISSING, f"also brought by {', '.join(others)}", remedy)


def check_pair(name: str, pair: Sequence[str], lack: str, without: str) -> Check:
    """Two packages that bring one folder, of which one should be there. `lack` is the state, and `without` is said,
    where neither is.
    """
    there = [f"{package} {version}" for package in pair if (version := version_of(package))]
    if not there:
        return Check(name, lack, without, "pip install 'posebridge[cpu]'")
    if len(there) > 1:  # one has written over the other
        return Check(name, MISSING, " and ".join(there), f"pip uninstall {' '.join(pair)}, then install one of them")
    return Check(name, OK, there[0])


def requirements() -> list[str]:
    """What the project requires: from pyproject.toml beside the code, else from the installed package."""
    path = Path(__file__).parents[1] / "pyproject.toml"
    if path.is_file():
        return tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    try:
        return importlib.metadata.requires("posebridge") or []
    except importlib.metadata.PackageNotFoundError:
        return ["posebridge"]


def version_of(name: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_gpu() -> Check:
    """A GPU helps, and is not needed."""
    import torch

    from pipeline.files.device import choose_devices, gpu_count, told_devices, why_none

    if count := gpu_count():
        return Check("gpu", OK, told_devices(choose_devices("cuda", count)))
    found = f"none: {why_none()}; {torch.get_num_threads()} CPU threads"
    return Check("gpu", NOTE, found, "a GPU is faster, nothing needs one")


def check_runs(onnx: bool) -> Iterator[Check]:
    """A tensor through PyTorch, ONNX Runtime and faiss each, on the GPU where PyTorch finds one: a package may be
    installed and not run, or not be built for the GPU. `onnx`: whether ONNX Runtime is needed.
    """
    from pipeline.files.device import choose_devices

    (device,) = choose_devices("auto")
    yield _tried("torch runs", True, partial(run_torch, device))
    if any(map(version_of, ONNXRUNTIME)):
        yield _tried("onnxruntime runs", onnx, partial(run_onnx, device))
    if any(map(version_of, FAISS)):
        yield _tried("faiss runs", False, partial(run_faiss, device))


def check_bfloat16(params: Params) -> Iterator[Check]:
    """Whether what is to be computed in bfloat16 is, where it would be on this machine; emulated it is slow."""
    from pipeline.files.device import choose_devices, has_bfloat16

    (device,) = choose_devices("auto")
    asked = [name for name, recipe in params.recipes.items() if recipe.precision == "bfloat16"]
    asked += [name for name, values in (("encode", params.encode), ("train", params.train)) if values.bfloat16]
    if asked and not has_bfloat16(device):
        found = f"emulated on {device}, two to ten times slower than float32"
        yield Check(f"bfloat16: {', '.join(asked)}", NOTE, found, "set `precision: float32`, or `bfloat16: false`")


def run_torch(device: torch.device) -> str:
    """Multiply on the device. Raises PosebridgeError where that fails."""
    import torch

    from pipeline.files.device import name_of

    try:
        right = float((torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)).sum()) == 512
    except (RuntimeError, AssertionError) as error:
        raise _does_not_run("PyTorch", device, error, "install a PyTorch for it, or say --device cpu") from None
    if not right:
        raise _does_not_run("PyTorch", device, ArithmeticError("a wrong product"), "install it again")
    return f"on {name_of(device)}"


def run_onnx(device: torch.device) -> str:
    """Add in a graph. Raises PosebridgeError where that fails, or ONNX Runtime has no such device."""
    import numpy as np
    from onnx import TensorProto, helper

    from pipeline.files.device import name_of
    from pipeline.hpe.onnx_session import open_session, provider_of, run_session

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (8,)) for name in "xy")
    made = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "test", [x], [y])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = open_session(model, "a test graph", device)
    (found,) = run_session(session, ["y"], {"x": np.ones(8, np.float32)}, "a test graph")
    if not (found == 2).all():
        raise _does_not_run("ONNX Runtime", device, ArithmeticError("a wrong sum"), "install it again")
    return f"{provider_of(session)} on {name_of(device)}"


def run_faiss(device: torch.device) -> str:
    """Find a neighbour; on the GPU where faiss is built for one. Raises PosebridgeError where that fails."""
    import numpy as np

    from pipeline.files.device import CPU, name_of

    try:
        import faiss

        index: faiss.Index = faiss.IndexFlatL2(8)
        points = np.eye(8, dtype=np.float32)
        device = device if device.type == "cuda" and hasattr(faiss, "StandardGpuResources") else CPU
        if device.type == "cuda":
            index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index, index)
        index.add(points)
        right = index.search(points, 1)[1][:, 0].tolist() == list(range(8))
    except (ImportError, RuntimeError, AssertionError) as error:
        raise _does_not_run("faiss", device, error, "install it again, or none, and PyTorch takes its place") from None
    if not right:
        raise _does_not_run("faiss", device, ArithmeticError("a wrong neighbour"), "install it again")
    return f"on {name_of(device)}"


def _does_not_run(what: str, device: torch.device, error: Exception, remedy: str) -> PosebridgeError:
    reason = first_line(error).replace("; ", ", ")
    return PosebridgeError(f"{what} does not run on {device} ({reason}); {remedy}.")


def check_dvc(path: Path) -> Check:
    """DVC is installed and reports to nobody."""
    if shutil.which("dvc") is None and importlib.util.find_spec("dvc") is None:
        return Check("dvc", MISSING, "not installed", "pip install dvc")
    if not path.is_file():
        return Check("dvc settings", NOTE, f"{path} is missing", "run the command from the project's folder")
    config = configparser.ConfigParser()
    try:
        config.read_string("\n".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines()))
        silent = not config.getboolean("core", "analytics", fallback=True)
    except (configparser.Error, ValueError) as error:
        return Check("dvc settings", MISSING, f"{path} is damaged ({str(error).splitlines()[0]})", f"put {path} right")
    if not silent:
        return Check("dvc settings", MISSING, "analytics are on", "dvc config core.analytics false")
    return Check("dvc settings", OK, "analytics off")


def check_encoder(name: str) -> Check:
    """A sentence encoder: the embedded one by its hash, a folder by its weights."""
    from pipeline.text.encoder import minilm_folder

    title = f"text encoder {name}"
    if name == "minilm":
        return _tried(title, True, lambda: str(minilm_folder()) and "embedded, sha256 checked")
    if Path(name).is_dir():
        good = (Path(name) / "model.safetensors").is_file()
        remedy = "" if good else f"put the encoder's model.safetensors into {name}"
        return Check(title, OK if good else MISSING, "folder" if good else "no model.safetensors", remedy)
    return Check(title, NOTE, "fetched at first use", "bring it as a folder where the network is closed")


def check_weights(name: str, recipe: Recipe, needed: bool) -> Iterator[Check]:
    """Pose weights and detector of a recipe, by their hashes; nothing is fetched."""
    from pipeline.hpe.weights import DOWNLOADS, find_detector, find_weights

    if not recipe.needs_videos:
        return
    parts = [("weights", recipe.weights, partial(find_weights, recipe))]
    if recipe.boxes == "detector":
        parts.append(("detector", recipe.detector, partial(find_detector, recipe)))
    for part, place, find in parts:
        title = f"{name}: {part}"
        fetched = place == "auto" or place.startswith(("http://", "https://"))
        if fetched and not (DOWNLOADS / place.rsplit("/", 1)[-1]).is_file():
            yield Check(title, NOTE, "fetched at first use", "bring the file where the network is closed")
        else:
            yield _tried(title, needed, find_sha256(find))
    if recipe.cues_from == IMAGE_TEXT:
        from pipeline.hpe.image_text import load_image_text

        yield _tried(f"{name}: image-text model", needed, lambda: f"sha256 {load_image_text(recipe)[1][:12]}")
    elif recipe.cues_from != POSE:
        from pipeline.hpe.image_network import weights_of

        yield _tried(f"{name}: image network", needed, lambda: f"{weights_of(recipe.cues_from).name}, sha256 checked")


def find_sha256(find: Callable[[], WeightsFile]) -> Callable[[], str]:
    """What is found of a weights file, in words."""
    return lambda: f"sha256 {find().sha256[:12]}"


def _tried(title: str, needed: bool, find: Callable[[], str]) -> Check:
    try:
        return Check(title, OK, find())
    except PosebridgeError as error:
        return _lacking(title, needed, error)


def _lacking(title: str, needed: bool, error: PosebridgeError) -> Check:
    """The check that ended in an error, its sentence cut into finding and remedy."""
    found, _, remedy = str(error).rstrip(".").rpartition("; ")
    return Check(title, MISSING if needed else NOTE, found or remedy, remedy if found else "")


def check_disk(title: str, clips: int, recipe: Recipe, cache: Path, needed: bool) -> Check:
    """Free space against what so many clips take under a recipe."""
    from pipeline.cache.schema import columns

    widths = {"none": 0, "refined": REFINED_WIDTH, "levels": LEVELS_WIDTH}
    row = sum(column.row_bytes for column in columns(recipe, JOINTS, widths.get(recipe.cues, LEVELS_WIDTH)))
    need = clips * row * 1.1  # the largest shard once more, and headers
    place = (cache / "store").absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    found = f"{clips} clips need {need / 1e9:.2f} GB, {free / 1e9:.1f} GB are free"
    if free >= need:
        return Check(title, OK, found)
    return Check(title, MISSING if needed else NOTE, found, "make room, or name another disk with --cache-root")

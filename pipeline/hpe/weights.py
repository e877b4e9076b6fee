"""Where pose weights come from: shipped by name, a path, a URL with its sha256, or `auto` from mmpose's model zoo.

Reads safetensors, ONNX, or checkpoints of mmengine with weights_only loading; never runs code from a file.
"""

from __future__ import annotations

import mmap
import warnings
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.cache.sealed import remove_abandoned
from pipeline.errors import PosebridgeError, first_line
from pipeline.files.durable import writing
from pipeline.files.fetch import fetch
from pipeline.files.hashing import sha256_file
from pipeline.files.names import is_file
from pipeline.hpe.joints import joint_names
from pipeline.hpe.keep import check_receipt
from pipeline.hpe.published import DOWNLOADS, how_to_get
from pipeline.recipe import EXPOSURES, IMAGE_TEXT, Recipe

SHIPPED = Path(__file__).parent.parent / "weights"
MOST_SHARED = 4  # times the size of a file that its tensors may take


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that is on disk, with what it says of itself."""

    path: Path
    sha256: str
    hpe_text: str | None  # None: the file does not say
    hpe_classes: str = ""


def find_weights(recipe: Recipe) -> WeightsFile:
    """Find the recipe's weights, downloading only a URL or `auto`.

    Raises PosebridgeError for a missing file, a failed download or a sha256 other than the recipe's.
    """
    name = recipe.weights
    shipped = SHIPPED / f"{name}.safetensors"
    if recipe.backend == "mmpose" and is_file(shipped):
        path = shipped
    elif recipe.backend == "mmpose" and name == "auto":
        path = _download(_model_zoo_url(recipe.config), "")
    else:
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none"
        remedy = f"nor shipped ({names}); give a path, a URL or `auto`"
        path = _fetched(name, recipe.weights_sha256, "weights", remedy if recipe.backend == "mmpose" else "")
    found = _checked(path, recipe.weights_sha256, "weights_sha256")
    return WeightsFile(path, found, *_exposure(path))


def find_detector(recipe: Recipe) -> WeightsFile:
    """Find the file of the recipe's person detector: a path, or a URL. Raises as `find_weights`."""
    if not recipe.detector:
        raise PosebridgeError("A recipe with `boxes: detector` needs a `detector`: the path of an RTMDet ONNX file.")
    path = _fetched(recipe.detector, recipe.detector_sha256, "detector", "")
    return WeightsFile(path, _checked(path, recipe.detector_sha256, "detector_sha256"), None)


def resolve_weights(recipe: Recipe) -> Recipe:
    """The recipe with the hashes and `hpe_text` as its files have them; what its backend does not use becomes empty."""
    if not recipe.needs_videos:
        return replace(recipe, weights="", weights_sha256="", hpe_text="none", hpe_classes="")
    found = find_weights(recipe)
    words = found.hpe_text or recipe.hpe_text, found.hpe_classes or recipe.hpe_classes
    recipe = replace(recipe, weights_sha256=found.sha256, hpe_text=words[0], hpe_classes=words[1])
    if recipe.hpe_text == "seen-classes" and not recipe.hpe_classes:  # else any protocol would take its cues
        raise PosebridgeError(
            f"{found.path} was tuned with texts of classes (`hpe_text: seen-classes`), but nobody says of which; add "
            "the recipe's hpe_classes, as `posebridge tune-hpe` printed them."
        )
    if recipe.backend == "onnx":
        recipe = replace(recipe, config="")
    if recipe.boxes == "detector":
        recipe = replace(recipe, detector_sha256=find_detector(recipe).sha256)
    if recipe.cues_from == IMAGE_TEXT:
        from pipeline.hpe.image_text import image_text_sha256

        recipe = replace(recipe, image_text_sha256=image_text_sha256(recipe))
    return recipe


def load_state(path: Path) -> dict[str, Tensor]:
    """The float32 state dict of a safetensors file or a checkpoint; raises PosebridgeError for anything else."""
    return load_checkpoint(path)[0]


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The float32 state dict, and the names of the joints where a checkpoint of mmpose tells them.

    Raises PosebridgeError for anything but plain tensors by name, and for more of them than the file can hold.
    """
    if path.suffix == ".onnx":
        raise PosebridgeError(f"{path} is an ONNX graph and no checkpoint; a recipe uses it with `backend: onnx`.")
    names: tuple[str, ...] = ()
    try:
        size = path.stat().st_size
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as packed:  # torch stores plainly; a packed file may unpack to anything
                    if sum(entry.file_size for entry in packed.infolist()) > size:
                        raise EOFError("it is packed, or declares more than it holds")
            _refuse_endless(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about versions of pickle
                state = torch.load(path, map_location="cpu", weights_only=True)
            if isinstance(state, dict) and "state_dict" in state:
                meta = state.get("meta")
                names = joint_names(meta.get("dataset_meta")) if isinstance(meta, dict) else ()
                state = state["state_dict"]
    except (SafetensorError, OSError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise PosebridgeError(
            f"{path} is damaged or no weights file ({first_line(error, 80)}); bring it again."
        ) from None
    except Exception as error:  # the unpickler's own error types: code or foreign objects in the file, or noise
        raise PosebridgeError(
            f"{path} is damaged or holds more than tensors ({type(error).__name__}); save its state dict alone as "
            "safetensors."
        ) from None
    if not isinstance(state, dict) or not state:
        raise PosebridgeError(f"{path} holds no state dict, but {type(state).__name__}; save one as safetensors.")
    total = 0
    for key, value in state.items():
        plain = isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
        if not plain or value.is_quantized or value.is_complex() or value.is_nested or value.device.type != "cpu":
            what = f"an odd {value.dtype} tensor" if isinstance(value, Tensor) else type(value).__name__
            raise PosebridgeError(
                f"{path} holds under {str(key)[:60]!r} no plain tensor, but {what}; save its state dict alone as "
                "safetensors."
            )
        total += value.numel() * value.element_size()
    if total > MOST_SHARED * size:  # a tensor may repeat one number, and tied weights share theirs
        raise PosebridgeError(f"{path} declares tensors of {total} bytes, and has {size}; bring it again.")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, names


def _refuse_endless(path: Path) -> None:
    """Raise MemoryError for the one call that torch's safe reading allows and that makes memory of a mere number."""
    with path.open("rb") as file:
        if not file.read(1):
            raise EOFError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"bytearray") >= 0:  # in a zip archive too: its members are stored as they are
                raise MemoryError


def _fetched(name: str, sha256: str, what: str, remedy: str) -> Path:
    """The file of a path or a URL; `what` is the recipe's key for it."""
    if name.startswith(("https://", "http://")):
        if not sha256:
            raise PosebridgeError(f"Files from a URL need their hash: add {what}_sha256 for {name} to the recipe.")
        return _download(name, sha256)
    if not is_file(Path(name)):
        if remedy:
            raise PosebridgeError(f"The {what} {name!r} are neither a file {remedy}.")
        raise PosebridgeError(f"{name} is missing; {how_to_get(name)}, or correct `{what}` of the recipe.")
    return Path(name)


def _checked(path: Path, sha256: str, key: str) -> str:
    """The sha256 of a file, which is the recipe's where the recipe has one."""
    try:
        found = sha256_file(path)
    except OSError as error:
        raise PosebridgeError(f"{path} cannot be read ({error.strerror}); put it right or name another file.") from None
    if sha256 and sha256 != found:
        raise PosebridgeError(
            f"{path} has sha256 {found[:12]}..., the recipe wants {sha256[:12]}...; "
            f"bring the right file or correct {key}."
        )
    check_receipt(path, found)
    return found


def _exposure(path: Path) -> tuple[str | None, str]:
    """What a weights file says of the words that it was exposed to, and of which classes."""
    if path.suffix == ".onnx":
        from pipeline.hpe.onnx_file import load_graph, read_facts

        facts = read_facts(load_graph(path), path.name)
        found, classes = facts.hpe_text or None, facts.hpe_classes
    else:
        header = metadata(path)
        found, classes = header.get("hpe_text"), header.get("hpe_classes", "")
    if found not in (None, *EXPOSURES):
        raise PosebridgeError(
            f"{path} says of its hpe_text {found[:60]!r}, which is none of {', '.join(EXPOSURES)}; bring another file."
        )
    return found, classes


def metadata(path: Path) -> dict[str, str]:
    """The header of a safetensors file; empty for any other file. Raises PosebridgeError for a damaged one."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise PosebridgeError(f"{path} is damaged or no safetensors file ({error}); bring it again.") from None


def _model_zoo_url(config: str) -> str:
    """The weights' address from the metafiles that mmpose ships."""
    from pipeline.hpe.topdown import config_path

    for metafile in sorted(config_path(config).parent.glob("*.yml")):
        for model in (yaml.safe_load(metafile.read_text(encoding="utf-8")) or {}).get("Models", []):
            if Path(model.get("Config", "")).stem == config and model.get("Weights"):
                return str(model["Weights"])
    raise PosebridgeError(f"mmpose's metafiles name no weights for {config}; give a path or a URL with weights_sha256.")


def _download(url: str, sha256: str) -> Path:
    """Fetch once into cache/weights; the hash is the recipe's, or the 8 digits in OpenMMLab's file name."""
    path = DOWNLOADS / url.rsplit("/", 1)[-1]
    if path.name in ("", "..", DOWNLOADS.name):
        raise PosebridgeError(f"{url} names no file; give the address of the weights themselves.")
    # OpenMMLab: name-<first 8 digits of sha256>_<date>.pth
    expected = sha256 or path.stem.rsplit("-", 1)[-1].split("_")[0]
    if not is_file(path):
        with writing(path.parent):
            remove_abandoned(path.parent)
        fetch(url, path, expected)
    found = sha256_file(path)
    if not found.startswith(expected):
        raise PosebridgeError(
            f"{path} has sha256 {found[:12]}..., expected {expected[:12]}...; delete it and try again."
        )
    return path

"""Importing mmpose 1.3 beside a current torch: stand-ins for what it imports but a top-down model never uses.

mmpose imports mmcv.ops (compiled), mmdet, torchvision, xtcocotools and pkg_resources unconditionally. Where one is
missing, a stand-in whose classes raise on use takes its place while mmpose is imported, and is removed afterwards, so
that other libraries (transformers looks for torchvision) never see it. What mmengine itself can do without, and takes
seconds to load, is hidden from it meanwhile.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pipeline.errors import PosebridgeError
from pipeline.files.shipped import MM_REQUIREMENTS

HIDDEN = ("transformers", "torch.distributed.optim")  # of optimizers that no top-down model is trained with


def _unavailable(name: str) -> type:
    def refuse(self: object, *args: object, **kwargs: object) -> None:
        raise RuntimeError(f"{name} is not part of this installation, and no top-down pose model should need it")

    return type(name, (), {"__init__": refuse})


def _module(name: str, **attributes: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module.__dict__.update(attributes)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return module


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def stand_ins() -> Iterator[None]:
    """Stand-ins for missing modules, for as long as the block runs."""
    made: list[str] = []

    def make(name: str, **attributes: Any) -> None:
        _module(name, **attributes)
        made.append(name)

    modules: dict[str, Any] = sys.modules
    for name in HIDDEN:
        if name not in modules:
            modules[name] = None  # whoever imports it gets an ImportError
            made.append(name)
    if not _importable("mmcv._ext"):
        importlib.import_module("mmcv")
        make(
            "mmcv.ops",
            **{n: _unavailable(n) for n in ("MultiScaleDeformableAttention", "DeformConv2d", "ModulatedDeformConv2d")},
        )
    if not _importable("mmdet"):
        make("mmdet")
        make("mmdet.utils", ConfigType=dict, reduce_mean=lambda value: value)
    if not _importable("torchvision"):
        make("torchvision")
        make("torchvision.transforms", ToPILImage=_unavailable("ToPILImage"))
    if not _importable("xtcocotools"):
        coco, cocoeval, mask = (importlib.import_module(f"pycocotools.{part}") for part in ("coco", "cocoeval", "mask"))
        make("xtcocotools")
        make("xtcocotools.coco", COCO=coco.COCO)
        make("xtcocotools.cocoeval", COCOeval=cocoeval.COCOeval)
        make("xtcocotools.mask", **{k: v for k, v in vars(mask).items() if not k.startswith("__")})
    if not _importable("pkg_resources"):
        missing = type("DistributionNotFound", (Exception,), {})

        def get_distribution(name: str) -> types.SimpleNamespace:
            try:
                found = importlib.metadata.distribution(name)
            except importlib.metadata.PackageNotFoundError as error:
                raise missing(str(error)) from None
            return types.SimpleNamespace(location=str(found.locate_file("")), version=found.version, project_name=name)

        make("pkg_resources", DistributionNotFound=missing, get_distribution=get_distribution)
    try:
        yield
    finally:
        for name in made:
            modules.pop(name, None)


@cache
def import_mmpose() -> types.ModuleType:
    """Import mmpose's models and codecs. Raises PosebridgeError where mmpose is not installed."""
    if not _importable("mmpose"):
        raise PosebridgeError(f"mmpose is not installed; run `pip install --no-deps --requirement {MM_REQUIREMENTS}`.")
    with stand_ins(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that nobody needs, and of deprecations in its own code
        mmpose = importlib.import_module("mmpose")
        # All that mmpose's registries import later of their own accord, when the stand-ins are gone.
        for part in ("models", "codecs", "structures", "visualization", "engine", "evaluation", "datasets"):
            importlib.import_module(f"mmpose.{part}")
    warnings.filterwarnings("ignore", category=FutureWarning, module="mmpose")  # deprecated calls in its own code
    from mmengine.registry import init_default_scope

    init_default_scope("mmpose")
    return mmpose

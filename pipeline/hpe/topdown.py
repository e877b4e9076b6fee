"""A top-down pose model of mmpose by config name, opened up: inner feature maps come with the keypoints of one pass.

The only file that knows how mmpose's models are put together.
"""

from __future__ import annotations

import functools
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import PosebridgeError
from pipeline.hpe.decoding import decode_heatmap, decode_simcc
from pipeline.hpe.joints import joint_names
from pipeline.hpe.mm_compat import import_mmpose

OTHERS = "choose a SimCC or heatmap config"
POINTWISE = {type(None): "none", nn.ReLU: "relu", nn.SiLU: "swish"}  # activations by oneDNN's names


def config_path(name: str) -> Path:
    """The file of an mmpose config by its name. Raises PosebridgeError, with near names, where there is none."""
    root = Path(str(import_mmpose().__file__)).parent / ".mim" / "configs"
    # By its bare name: a config is code, and `..` or `*` would run another one.
    found = sorted(p for p in root.glob("body_2d_keypoint/**/*.py") if p.stem == name.removesuffix(".py"))
    if not found:
        import difflib

        close = difflib.get_close_matches(name, [p.stem for p in root.glob("body_2d_keypoint/**/*.py")], n=3)
        raise PosebridgeError(f"mmpose has no body config named {name!r}; near names: {', '.join(close) or 'none'}.")
    return found[0]


class TopdownModel(nn.Module):
    """An mmpose top-down estimator with taps.

    `levels` names the tapped modules, shallow first; `channels` and `strides` describe their maps.
    """

    def __init__(self, config: str, taps: tuple[str, ...] = ()) -> None:
        super().__init__()
        import_mmpose()
        from mmengine.config import Config
        from mmengine.model.utils import revert_sync_batchnorm
        from mmpose.registry import MODELS

        try:
            cfg = Config.fromfile(config_path(config))
        except ImportError as error:  # it inherits from a config of another package, as EDPose's from mmdet's
            raise PosebridgeError(f"{config} cannot be read ({error}); {OTHERS}.") from None
        cfg.model.backbone.init_cfg = None  # no download
        cfg.model.backbone.pop("_scope_", None)  # mmdet's scope; mmpose registers the same backbones
        cfg.model.test_cfg.flip_test = False
        self.config = config
        codec = cfg.model.head.get("decoder") or {}
        size = codec.get("input_size")
        if size is None or "out_channels" not in cfg.model.head:
            raise PosebridgeError(f"{config} is no top-down config of one codec with maps; {OTHERS}.")
        self.crop_size = (int(size[0]), int(size[1]))  # width, height
        # SyncBN becomes BN: the former does not run on a CPU.
        self.model: Any = revert_sync_batchnorm(MODELS.build(cfg.model))
        self.joints = int(cfg.model.head.out_channels)
        self.joint_names = _joint_names(cfg)
        pre = cfg.model.data_preprocessor
        mean, std = torch.tensor(pre.mean), torch.tensor(pre.std)
        if not pre.get("bgr_to_rgb", False):  # a model of BGR images
            mean, std = mean.flip(0), std.flip(0)
        self.flip_channels = not pre.get("bgr_to_rgb", False)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self.decode = self._decoder()
        self.score_kind = "simcc" if "SimCC" in codec["type"] else "heatmap"
        self.levels = taps or self._stages()
        self._tapped: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)  # of each thread
        modules = dict(self.model.named_modules())
        for name in self.levels:
            if name not in modules:
                raise PosebridgeError(f"{config} has no module {name!r} to tap; it has {', '.join(self._stages())}.")
            modules[name].register_forward_hook(self._keep(name))
        self.channels, self.strides = self._describe()

    def _stages(self) -> tuple[str, ...]:
        """The backbone's stages, in the order in which they run: stage1.. (CSPNeXt, HRNet) or layer1.. (ResNet)."""
        children = [name for name, _ in self.model.backbone.named_children()]
        stages = sorted(n for n in children if n.rstrip("0123456789") in ("stage", "layer") and n[-1].isdigit())
        return tuple(f"backbone.{name}" for name in stages)

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # A multi-resolution stage (HRNet) yields its maps from fine to coarse: the finest is the tap.
            self._tapped[get_ident()][name] = output[0] if isinstance(output, list | tuple) else output

        return hook

    def _describe(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        width, height = self.crop_size
        training = self.training
        self.eval()
        with torch.no_grad():
            output, maps = self(torch.zeros(1, 3, height, width))
        self.train(training)
        if isinstance(output, list):
            raise PosebridgeError(f"{self.config} answers in several stages, which is not provided for; {OTHERS}.")
        return tuple(int(m.shape[1]) for m in maps), tuple(round(height / m.shape[2]) for m in maps)

    mean: Tensor
    std: Tensor

    def normalise(self, crops: Tensor) -> Tensor:
        """uint8 RGB crops [N, H, W, 3] to the network's input [N, 3, H, W]."""
        width = crops.shape[2]  # by rows of 3 W numbers: three at a time take five times as long
        mean, std = (values.flatten().repeat(width) for values in (self.mean, self.std))
        images = crops.flatten(2).float().sub_(mean).div_(std).view(crops.shape).permute(0, 3, 1, 2)
        return images.flip(1) if self.flip_channels else images

    def forward(self, images: Tensor) -> tuple[Any, list[Tensor]]:
        """The head's raw output and the tapped maps of normalised images [N, 3, H, W]."""
        output = self.model.head(self.model.extract_feat(images))
        tapped = self._tapped.pop(get_ident(), {})
        return output, [tapped[name] for name in self.levels]

    def _decoder(self) -> Callable[[Any], tuple[Tensor, Tensor]]:
        """The decoding of the head's output: vectorised for plain SimCC and heatmaps, else mmpose's own codec."""
        codec, kind = self.model.head.decoder, type(self.model.head.decoder).__name__
        if kind == "SimCCLabel" and not codec.use_dark:
            return lambda output: decode_simcc(output[0], output[1], codec.simcc_split_ratio)
        if kind == "MSRAHeatmap" and not codec.unbiased:
            scale = tuple(float(s) for s in codec.scale_factor)
            return lambda output: decode_heatmap(output, (scale[0], scale[1]))
        return self._decode_by_mmpose

    def _decode_by_mmpose(self, output: Any) -> tuple[Tensor, Tensor]:
        """As the vectorised decoders, on the device of the output: mmpose decodes in numpy."""
        instances = self.model.head.decode(output)
        keypoints = np.concatenate([np.asarray(i.keypoints) for i in instances])
        scores = np.concatenate([np.asarray(i.keypoint_scores) for i in instances])
        device = (output[0] if isinstance(output, tuple) else output).device
        return torch.from_numpy(keypoints).float().to(device), torch.from_numpy(scores).float().to(device)


def _joint_names(cfg: Any) -> tuple[str, ...]:
    """The joints of a config's data set in their order, as mmpose describes it; empty where it does not."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo
    from mmpose.registry import DATASETS

    data = cfg.get("val_dataloader", {}).get("dataset", {})
    described = data.get("metainfo") or getattr(DATASETS.get(data.get("type", "")), "METAINFO", {})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it looks for its own file in the working folder first, and says so
            return joint_names(parse_pose_metainfo(described))
    except (FileNotFoundError, KeyError, TypeError, ValueError):  # a data set that is described nowhere
        return ()


def channels_last(module: nn.Module) -> None:
    """Lay out a network's convolutions for CPUs and tensor cores, in place."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def by_onednn(module: nn.Module) -> None:
    """Have the 1x1 convolutions of a float32 network on the CPU computed by oneDNN, in place.

    With one thread and fewer than 16 crops PyTorch takes another way, which is slower, and whose last bits differ: what
    is in the cache would depend on threads, and on how batches are filled.
    """
    if torch.backends.mkldnn.is_available():
        for each in module.modules():
            if isinstance(each, nn.Conv2d) and each.kernel_size == (1, 1):
                each.forward = functools.partial(_convolve, each)  # type: ignore[method-assign]


def _convolve(conv: nn.Conv2d, images: Tensor) -> Tensor:
    if torch.is_grad_enabled() or torch.jit.is_tracing():
        return nn.Conv2d.forward(conv, images)
    padding = conv.padding if isinstance(conv.padding, tuple) else (0, 0)
    return torch.mkldnn_convolution(images, conv.weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups)


def fuse_layers(module: nn.Module) -> None:
    """Have layers of an evaluated float32 network, convolution, batch norm and SiLU or ReLU, computed in two steps, and
    by oneDNN on a CPU in one, in place: the same map but for rounding (1e-6 in scores and cues), in four fifths of
    the time.

    A layer is one of mmcv's, or a sequence of these three. One within which there is a tap stays as it is. What is
    trained or traced goes the plain way, and its state still fits its file.
    """
    from mmcv.cnn import ConvModule

    for layer in list(module.modules()):
        if isinstance(layer, ConvModule) and layer.with_norm and layer.order == ("conv", "norm", "act"):
            conv, norm, act = layer.conv, layer.norm, layer.activate if layer.with_activation else None
            plain = not layer.with_explicit_padding and not layer.with_spectral_norm
        elif isinstance(layer, nn.Sequential) and len(layer) == 3:
            (conv, norm, act), plain = layer, True
        else:
            continue
        plain &= type(layer).forward in (ConvModule.forward, nn.Sequential.forward)
        plain &= type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and isinstance(conv.padding, tuple)
        plain &= isinstance(norm, _BatchNorm) and norm.track_running_stats and type(act) in POINTWISE
        if plain and not any(each._forward_hooks for each in (conv, norm, act) if each is not None):
            fused = functools.partial(_convolve_norm_act, layer, fuse_conv_bn_eval(conv, norm), act)
            layer.forward = fused  # type: ignore[method-assign]


def _convolve_norm_act(layer: nn.Module, conv: nn.Conv2d, act: nn.Module | None, images: Tensor) -> Tensor:
    if torch.is_grad_enabled() or torch.jit.is_tracing():
        plain: Tensor = type(layer).forward(layer, images)
        return plain
    if images.is_cpu and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        given = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(images, *given, POINTWISE[type(act)], [], "")
        return result
    found: Tensor = conv(images)
    return found if act is None else act(found)

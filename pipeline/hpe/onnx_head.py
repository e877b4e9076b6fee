"""A cue head as nodes of somebody's ONNX graph: refinement and projection read inner tensors and yield `refined`.

Nothing that was there is changed, so keypoints stay those of the graph. Norms are folded into the convolutions before
them, and the projection of a cue, linear after pooling in `CueHead`, is applied to the map: pooling weights sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.errors import PosebridgeError
from pipeline.hpe.refinement import CueHead

PREFIX = "posebridge/"  # of the new tensors' names
LEAST_OPSET = 11  # Resize knows how a pixel's place is meant


def append_head(model: onnx.ModelProto, taps: Sequence[str], head: CueHead, output: str, name: str) -> None:
    """Add `head`, in eval mode, to the graph behind `taps` (shallow first), with the map `output` [N, D, h, w].

    Raises PosebridgeError where the graph has no such tap any more, is too old, or has such an `output` already.
    """
    made = {tensor for node in model.graph.node for tensor in node.output}
    if gone := [tap for tap in taps if tap not in made]:
        raise PosebridgeError(
            f"{name} has no tensor {gone[0]!r}, which the cue head reads; bring the file that the head was tuned on."
        )
    if output in made:
        raise PosebridgeError(f"{name} has an output {output!r} already; take the file without a cue head.")
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        raise PosebridgeError(f"{name} is of ONNX's opset {opset}; a cue head needs {LEAST_OPSET} or later.")
    nodes = _Nodes(model.graph)
    refine = head.refine
    maps = [nodes.add("Cast", [tap], to=TensorProto.FLOAT) for tap in taps]  # of a graph in float16
    fused = nodes.conv(refine.project[0], maps[refine.pooled_level])
    below = maps[0]
    for level, down in enumerate(refine.down, start=1):
        for conv in down.children():
            below = nodes.conv(conv, below)
        below = nodes.add("Add", [fused if level == refine.pooled_level else maps[level], below])
    fused = below if refine.pooled_level else fused
    for project, feature in zip(refine.project[1:], maps[refine.pooled_level + 1 :], strict=True):
        fused = nodes.add("Add", [fused, nodes.resize(nodes.conv(project, feature), fused)])
    weight = [nodes.constant(head.project.weight[:, :, None, None]), nodes.constant(head.project.bias)]
    model.graph.node.append(helper.make_node("Conv", [fused, *weight], [output], PREFIX + output))
    shape = [None, head.cue_width, None, None]
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))


class _Nodes:
    """Appends nodes to a graph under names that nothing else has."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._count = graph, 0

    def _name(self) -> str:
        self._count += 1
        return f"{PREFIX}{self._count}"

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The name of a new node's one output."""
        name = self._name()
        self._graph.node.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, values: Tensor | np.ndarray) -> str:
        name = self._name()
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def conv(self, layers: nn.Module, inputs: str) -> str:
        """Convolution, norm and SiLU as `refinement` has them."""
        assert isinstance(layers, nn.Sequential)
        conv, norm, _ = layers
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        plain = fuse_conv_bn_eval(conv, norm)
        assert plain.bias is not None
        edge, stride = int(conv.padding[0]), int(conv.stride[0])
        weights = [self.constant(plain.weight), self.constant(plain.bias)]
        value = self.add("Conv", [inputs, *weights], pads=[edge] * 4, strides=[stride] * 2, group=conv.groups)
        return self.add("Mul", [value, self.add("Sigmoid", [value])])

    def resize(self, inputs: str, like: str) -> str:
        """Bilinear, to the size of another map, as torch has it without aligned corners."""
        places = [self.constant(np.array(axes)) for axes in ([0], [2], [4])]
        shapes = [self.add("Shape", [tensor]) for tensor in (inputs, like)]
        kept = self.add("Slice", [shapes[0], places[0], places[1]])  # N, C
        grid = self.add("Slice", [shapes[1], places[1], places[2]])  # h, w
        size = self.add("Concat", [kept, grid], axis=0)
        nothing = self.constant(np.zeros(0, np.float32))  # opset 11 wants a region of interest and scales, if empty
        return self.add(
            "Resize",
            [inputs, nothing, nothing, size],
            mode="linear",
            coordinate_transformation_mode="pytorch_half_pixel",
        )

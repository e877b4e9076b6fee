"""Encoders, methods and adaptations run where their input lies: on torch's meta device, which refuses a tensor that was
made on the CPU and asks no value, and on a GPU where there is one.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from test_skeletoncontext import fake_tokens

from pipeline.methods import ADAPTATIONS, METHODS, find_adaptation, find_method, prompts
from pipeline.methods.base import Features, Shapes, SolvedMethod
from pipeline.methods.prototypes import class_means
from pipeline.skeleton.augment import augment
from pipeline.skeleton.encoders import ENCODERS
from pipeline.skeleton.graph import GRAPHS, graph_of
from pipeline.skeleton.hide import Hiding
from pipeline.skeleton.normalise import normalise
from pipeline.skeleton.st_gcn import STGCN

pytestmark = pytest.mark.unit
CLASSES, B, M, T, S, D, D_TEXT = 3, 4, 2, 8, 4, 15, 15
ANCHORS = ("body", "left_hand", "right_hand")
SHAPES = Shapes(d_text=D_TEXT, persons=M, cue_frames=S, anchors=ANCHORS, d_cue=D)
WORDS = [
    {"environment": "kitchen", "used_object": "cup", "target_object": "mouth", "key_parts": "head;hands"},
    {"environment": "office", "used_object": "cup", "target_object": "table", "key_parts": "hands;arms"},
    {"environment": "street", "used_object": "none", "target_object": "none", "key_parts": "legs;feet"},
]
FLAGS = {
    "posebridge": ({}, {"gate": True, "adaptation": "mlp"}, {"bridge": False}, {"level_widths": [1, 2, 4, 8]}),
    "skeleton": ({},),
    "cca": ({"waves": 16}, {"skeleton": False, "level_widths": [1, 2, 4, 8]}, {"cues": False}),
    "pgfa": ({}, {"encoder": "shift_gcn", "width": 4, "blocks": [1, 1]}, {"cues": True, "frames": 5}),
    "pgfa_frozen": ({},),
    "purls": (
        {"width": 8, "hidden": 16}, {"width": 8, "hidden": 16, "cues": True},
        {"partition": "static"}, {"loss": "published"},
    ),  # fmt: skip
    "purls_matched": ({"width": 8, "hidden": 16}, {"partition": "static", "hidden": 16}),
    "skeletoncontext": ({"heads": 3}, {"heads": 3, "cues": True}),
    "image_text": ({}, {"view": "person"}),
}
ADAPTED = {
    "pgfa": ("posebridge", "skeleton", "pgfa", "pgfa_frozen", "skeletoncontext"),
    "dynapurls": tuple(FLAGS),
    "dynapurls_alternating": ("purls",),
    "dynapurls_old_losses": ("purls",),
    "dynapurls_released": tuple(FLAGS),
}
MADE = [(name, flags) for name, several in FLAGS.items() for flags in several]


@pytest.fixture(params=["meta", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA GPU here")
    return torch.device(request.param)


def skeletons(device, joints=17, dimensions=2):
    """Joints, their scores and who is there, in pixels or metres."""
    torch.manual_seed(0)
    joint, score = torch.rand(B, M, T, joints, dimensions), torch.rand(B, M, T, joints)
    valid = torch.ones(B, M, T, dtype=torch.bool)
    valid[0, 1], valid[1] = False, False
    return joint.to(device), score.to(device), valid.to(device)


def features(device, end_to_end=False):
    skeleton = torch.rand(B, M, T, 17, 3) if end_to_end else torch.rand(B, 256, 4, 17)
    made = skeleton, torch.rand(B, M, 2), torch.rand(B, M, S, 3, D).half(), torch.rand(B, M, S, 3)
    return Features(*(tensor.to(device) for tensor in made))


def build(name, flags, monkeypatch, device):
    """A method that has been moved, and then shown what it is trained on; and the text of the classes."""
    monkeypatch.setattr(prompts, "read_tokens", fake_tokens(D_TEXT + 1))
    shapes = dataclasses.replace(SHAPES, anchors=("frame", "person", "")) if name == "image_text" else SHAPES
    method = find_method(name)(shapes, CLASSES, flags).to(device)
    text = F.normalize(torch.rand(CLASSES, len(method.text_slots), D_TEXT), dim=-1).to(device)
    method.see_text(text)
    method.see_words(WORDS)
    return method, text


def test_every_method_and_every_adaptation_is_tried():
    assert set(FLAGS) == set(METHODS) and set(ADAPTED) == set(ADAPTATIONS)


@pytest.mark.parametrize("layout", GRAPHS)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_skeletons_are_normalised_and_augmented_where_they_are(device, layout, dimensions):
    graph = graph_of(layout)
    x = normalise(*skeletons(device, len(graph.joints), dimensions), graph)
    generator = torch.Generator("cuda" if device.type == "cuda" else "cpu").manual_seed(0)
    seen = augment(x, generator, graph, hiding=Hiding(0.5, 0.5))
    assert seen.device.type == device.type and seen.shape == x.shape


@pytest.mark.parametrize("kind", [*ENCODERS, "st_gcn"])
@pytest.mark.parametrize("held", ["here", "on the CPU"])
def test_an_encoder_trains_and_gives_maps_where_its_input_is(device, kind, held):
    x = normalise(*skeletons(device))
    person = skeletons("cpu")[2].any(-1).to(device if held == "here" else "cpu")
    shift = kind in ENCODERS
    made = ENCODERS[kind](17, CLASSES, 8, (1, 1), persons=M) if shift else STGCN(graph_of("coco17"), (8, 16), 32)
    encoder = made.to(device)
    encoder.feature_map(x, person).mean().backward()
    weights = [p for name, p in encoder.named_parameters() if not name.startswith("classifier")]
    assert all(p.grad is not None and p.grad.device.type == device.type for p in weights)
    y = encoder.eval().feature_map(x, person)
    assert y.device.type == device.type and y.shape[0] == B
    if shift:
        assert F.cross_entropy(encoder(x, person), torch.zeros(B, dtype=torch.long, device=device)).ndim == 0


@pytest.mark.parametrize(("name", "flags"), MADE, ids=str)
@pytest.mark.parametrize("held", ["here", "on the CPU"])
def test_a_method_trains_and_scores_where_its_input_is(device, name, flags, held, monkeypatch):
    method, text = build(name, flags, monkeypatch, device)
    x = features(device, method.end_to_end)
    labels = torch.tensor([0, 2, 2, 1]).to(device if held == "here" else "cpu")
    for seen in (x, dataclasses.replace(x, cues=None, cue_scores=None)):
        if not isinstance(method, SolvedMethod):
            loss = method.train().loss(seen, labels, text)
            loss.backward()
            assert loss.device.type == device.type and loss.ndim == 0
        elif device.type != "meta":
            method.solve([seen], labels, text)
        scores = method.eval().scores(seen, text)
        assert scores.device.type == device.type and scores.shape == (B, CLASSES)
    if hasattr(method, "finish"):
        method.finish(class_means([method.embed(x).detach()], labels.to(device), len(text)), text)


@pytest.mark.parametrize(("adaptation", "name"), [(by, name) for by, names in ADAPTED.items() for name in names])
def test_an_adaptation_scores_where_its_input_is(device, adaptation, name, monkeypatch):
    method, text = build(name, FLAGS[name][0], monkeypatch, device)
    adapted = find_adaptation(adaptation)(method.eval().requires_grad_(False))
    batches = [features(device, method.end_to_end) for _ in range(3)]
    scores = adapted.scores(batches, text)
    assert scores.device.type == device.type and scores.shape == (3 * B, CLASSES)

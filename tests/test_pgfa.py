"""PGFA and ST-GCN against small cases by hand; the bridge for any method; adaptation at test time."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import PARAMS, PROTOCOL, make_world

from pipeline.errors import PosebridgeError
from pipeline.learn import trained
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.train import train
from pipeline.methods import takes_cues
from pipeline.methods.adaptation import PrototypeAlignment, align_prototypes
from pipeline.methods.base import Features, Method, Shapes
from pipeline.methods.cued import CueFlags, MapBridge
from pipeline.methods.pgfa import PGFA, contrastive_kl
from pipeline.params import RunParams
from pipeline.skeleton.graph import COCO_17, GRAPHS, Graph
from pipeline.skeleton.st_gcn import STGCN, Block, SpatialGraphConv, partition

pytestmark = pytest.mark.unit
ANCHORS = ("body", "left_hand", "right_hand")
SHAPES = Shapes(d_text=12, persons=2, cue_frames=4, anchors=ANCHORS, d_cue=15)
SMALL = {"hidden": [8, 16], "out": 16, "width": 4, "blocks": [1, 1, 1], "cue_width": 16, "cue_heads": 2}
CLASSES = 5


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=-1)


def features(batch=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    joints = torch.randn(batch, 2, 8, 17, 3, generator=g)
    joints[0, 1] = 0  # nobody
    return Features(
        skeleton=joints,
        quality=torch.rand(batch, 2, 2, generator=g),
        cues=torch.randn(batch, 2, 4, 3, 15, generator=g).half(),
        cue_scores=torch.rand(batch, 2, 4, 3, generator=g),
    )


def build(**flags):
    torch.manual_seed(0)
    return PGFA(SHAPES, CLASSES, SMALL | flags).eval()


def text(classes=CLASSES, seed=1):
    return unit(classes, 1, 12, seed=seed).float()


def test_the_loss_is_that_of_the_equation():
    s, t_of_class, labels, tau = unit(7, 5), unit(3, 5, seed=1), [0, 1, 1, 2, 0, 0, 1], 0.07
    t = t_of_class[labels]

    def softmax(row):
        e = [math.exp(v - max(row)) for v in row]
        return [v / sum(e) for v in e]

    expected = 0.0
    for transposed in (False, True):
        for i in range(7):
            logits = [float((s[j] @ t[i] if transposed else s[i] @ t[j]) / tau) for j in range(7)]
            share, q = softmax(logits), softmax([10.0 * (labels[i] == labels[j]) for j in range(7)])
            expected += 0.5 * sum(a * (math.log(a) - math.log(b)) for a, b in zip(q, share, strict=True)) / 7
    assert float(contrastive_kl(s, t, torch.tensor(labels), tau)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.9, 0.4, 0.2, 0.0])
def test_prototypes_are_aligned_as_by_hand(alpha):
    z, p = unit(23, 6), unit(4, 6, seed=1)
    cosines = z.numpy() @ p.numpy().T
    share = np.exp(cosines) / np.exp(cosines).sum(1, keepdims=True)
    entropy, label = -(share * np.log(share)).sum(1), share.argmax(1)
    expected, untouched = p.numpy().copy(), []
    for c in range(4):
        own = [i for i in range(23) if label[i] == c]
        k = math.floor(alpha * len(own))
        if k < 1:
            untouched.append(c)
            continue
        mean = z.numpy()[sorted(own, key=lambda i: entropy[i])[:k]].mean(0)
        expected[c] = mean / np.linalg.norm(mean)
    found = align_prototypes(z, p, alpha)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert all(torch.equal(found[c], F.normalize(p[c], dim=-1)) for c in untouched)
    assert len(untouched) == (
        4 if alpha == 0 else sum(math.floor(alpha * n) < 1 for n in np.bincount(label, minlength=4))
    )


def test_a_share_of_the_clips_is_rounded_down_and_no_clip_leaves_the_text():
    z = unit(5, 3)
    z = F.normalize(torch.tensor([[1.0, 0.1, 0.0]], dtype=torch.float64) + 0.05 * z, dim=-1)  # all of class 0
    p = torch.eye(3, dtype=torch.float64)
    for alpha, k in ((0.6, 3), (0.59, 2), (0.2, 1), (0.19, 0)):  # 0.6 * 5 is 3, however it is rounded in binary
        surest = (z @ p.T).softmax(1).max(1).values.argsort(descending=True)[:k]
        expected = F.normalize(z[surest].mean(0), dim=-1) if k else p[0]
        found = align_prototypes(z, p, alpha)
        torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)
        assert torch.equal(found[1:], p[1:])


TINY = Graph(("a", "b", "c", "d"), ((0, 1), (1, 2), (2, 3)), (0, 1, 2, 3), hips=(0, 0), shoulders=(1, 1))


def test_neighbours_fall_into_three_subsets():
    """A chain a-b-c-d with its centre between a and b: these two are equally far, c is farther, d the farthest."""
    itself, nearer, farther = partition(TINY)
    assert itself.tolist() == [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert nearer.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert farther.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("layout", GRAPHS)
def test_every_bone_is_in_the_partition_once_each_way(layout):
    graph = GRAPHS[layout]
    used = (partition(graph) > 0).sum(0)
    linked = torch.eye(len(graph.joints), dtype=torch.long)
    for a, b in graph.bones:
        linked[a, b] = linked[b, a] = 1
    assert torch.equal(used, linked)


def test_a_layer_of_st_gcn_is_that_of_the_equation():
    torch.manual_seed(0)
    shares, kernel = partition(TINY).double(), 3
    layer = Block(shares, 2, 3, stride=2, kernel=kernel, dropout=0.5, residual=True).double().eval()
    for norm in (layer.temporal[0], layer.temporal[3], layer.skip[1]):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        layer.spatial.importance.uniform_(0.5, 1.5)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    weight, bias = layer.spatial.weights.weight[:, :, 0, 0].view(3, 3, 2), layer.spatial.weights.bias.view(3, 3)
    edge = shares * layer.spatial.importance

    def norm(module, y):  # [B, C, ...]
        shape = (1, -1, 1, 1)
        y = (y - module.running_mean.view(shape)) / (module.running_var.view(shape) + module.eps).sqrt()
        return y * module.weight.view(shape) + module.bias.view(shape)

    spatial = torch.zeros(2, 3, 5, 4, dtype=torch.float64)
    for k in range(3):
        for v in range(4):
            for w in range(4):
                moved = torch.einsum("ci,bit->bct", weight[k], x[..., w]) + bias[k][None, :, None]
                spatial[..., v] += edge[k, v, w] * moved
    torch.testing.assert_close(layer.spatial(x), spatial, atol=1e-6, rtol=0)
    y, conv = norm(layer.temporal[0], spatial).relu(), layer.temporal[2]
    temporal = torch.zeros(2, 3, 3, 4, dtype=torch.float64)
    for out, centre in enumerate((0, 2, 4)):
        temporal[:, :, out] += conv.bias[None, :, None]
        for j in range(kernel):
            if 0 <= centre + j - 1 < 5:
                temporal[:, :, out] += torch.einsum("ci,biv->bcv", conv.weight[:, :, j, 0], y[:, :, centre + j - 1])
    skip = torch.einsum("ci,bitv->bctv", layer.skip[0].weight[:, :, 0, 0], x[:, :, ::2]) + layer.skip[0].bias.view(
        1, -1, 1, 1
    )
    expected = (norm(layer.temporal[3], temporal) + norm(layer.skip[1], skip)).relu()
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=0)


def test_st_gcn_of_the_paper_has_its_shape_and_ignores_absent_persons():
    torch.manual_seed(0)
    net, x = STGCN(COCO_17).eval(), torch.randn(2, 2, 50, 17, 3)
    person = torch.tensor([[True, True], [True, False]])
    found = net.feature_map(x, person)
    assert found.shape == (2, 256, 13, 17) and len(net.layers) == 10
    other = x.clone()
    other[1, 1] = 7.0
    torch.testing.assert_close(net.feature_map(other, person), found)
    assert not net.feature_map(x, torch.zeros(2, 2, dtype=torch.bool)).any()
    assert isinstance(net.layers[0].spatial, SpatialGraphConv)


def test_only_the_first_layer_has_no_path_around_it():
    """Of a layer whose convolution gives the same for all, the next one learns what the path around it brings."""
    for dull, differ in ((0, False), (1, True)):
        torch.manual_seed(0)
        net = STGCN(TINY, hidden=(4,), out=4, kernel=3).eval()
        torch.nn.init.zeros_(net.layers[dull].spatial.weights.weight)
        one, other = net.feature_map(torch.randn(2, 1, 5, 4, 3), torch.ones(2, 1, dtype=torch.bool))
        assert ((one - other).abs().max() > 1e-3) == differ


@pytest.mark.parametrize(
    "flags", [{}, {"encoder": "shift_gcn"}, {"encoder": "light"}, {"frames": 6}, {"cues": True}], ids=str
)
def test_it_trains_from_joints_to_text_and_scores_any_candidates(flags):
    method, labels = build(**flags), torch.tensor([0, 1, 2, 3, 4, 0])
    assert PGFA.end_to_end and takes_cues("pgfa", flags) == ("cues" in flags)
    loss = method.train().loss(features(), labels, text())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters()), "of end to end"
    method.eval()
    for candidates in (text(), text(9, seed=7)):
        scores = method.scores(features(), candidates)
        assert scores.shape == (6, len(candidates)) and scores.abs().max() <= 1 + 1e-6
    nothing = dataclasses.replace(features(), skeleton=torch.zeros(6, 2, 8, 17, 3))
    assert torch.isfinite(method.scores(nothing, text())).all()


def test_schedule_and_flags():
    assert build().schedule() == {
        "optimiser": "sgd",
        "lr": 0.05,
        "weight_decay": 5e-4,
        "batch_size": 128,
        "epochs": 50,
        "warmup_epochs": 5,
        "milestones": (50, 80),
        "ema": 0.0,
    }, "the paper's"
    plain = build()
    assert plain.temperature == plain.flags.tau == 0.07 and plain.flags.dropout == plain.flags.frames == 0
    with pytest.raises(PosebridgeError, match="should be st_gcn, light, shift_gcn, dense, not 'gcn'"):
        build(encoder="gcn")
    with pytest.raises(PosebridgeError, match="multiple of cue_heads"):
        build(cues=True, cue_heads=3)
    with pytest.raises(PosebridgeError, match="no anchor 'tail'"):
        build(cues=True, anchors=["tail"])
    with pytest.raises(PosebridgeError, match="sums to 3"):
        build(cues=True, level_widths=[1, 2])


def test_the_bridge_leaves_the_map_where_there_is_no_cue():
    torch.manual_seed(0)
    bridge, seen, skeleton = MapBridge(SHAPES, CueFlags(cues=True), 16).eval(), features(), torch.randn(6, 16, 3, 17)
    told = bridge(skeleton, seen)
    assert told.shape == skeleton.shape and not torch.allclose(told, skeleton)
    vanished = dataclasses.replace(seen, cue_scores=torch.zeros_like(seen.cue_scores))
    none = dataclasses.replace(seen, cues=None, cue_scores=None)
    assert torch.equal(bridge(skeleton, vanished), skeleton) and torch.equal(bridge(skeleton, none), skeleton)


def test_the_bridge_answers_each_frame_and_each_joint():
    """Where a joint's mean moves and every frame's stays, its answer changes alone; and the other way round."""
    torch.manual_seed(0)
    bridge, seen, skeleton = MapBridge(SHAPES, CueFlags(cues=True), 16).eval(), features(), torch.randn(6, 16, 3, 17)
    told = bridge(skeleton, seen) - skeleton
    for axis, size in ((3, 17), (2, 3)):
        place = [slice(None)] * 4
        other, push = skeleton.clone(), torch.randn(16).view(1, 16, 1, 1)
        for index, sign in ((0, 1), (1, -1)):
            other[tuple(place[:axis] + [slice(index, index + 1)] + place[axis + 1 :])] += sign * push
        change = ((bridge(other, seen) - other) - told).abs().amax(dim=[d for d in range(4) if d != axis])
        assert change.shape == (size,) and change[:2].min() > 1e-4 and (size == 2 or change[2:].max() < 1e-5)


def test_the_bridge_by_hand():
    """F'_tv = F_tv + W (z_t + z_v) + P c in float64, with one cue: every question's answer is then its value, and the
    null token's. The map has twice the frames of the cues: its frame 1 is at a quarter between the first two moments.
    """
    torch.manual_seed(0)
    flags = CueFlags(cues=True, cue_width=4, cue_heads=1)
    bridge, seen = MapBridge(SHAPES, flags, 3).double().eval(), features(2)
    seen = dataclasses.replace(seen, cues=seen.cues.double(), cue_scores=torch.zeros_like(seen.cue_scores).double())
    seen.cue_scores[:, 0, 0, 0] = 1.0
    skeleton = torch.randn(2, 3, 8, 17, dtype=torch.float64)
    x = F.layer_norm(seen.cues[:, 0, 0, 0], (SHAPES.d_cue,))
    token = bridge.cues.project(x) + bridge.cues.time[0, 0] + bridge.cues.anchor[0] + bridge.cues.person[0, 0, 0]
    (layer,), tokens = bridge.layers, torch.stack([bridge.null[0].expand_as(token), token], 1)  # [B, 2, width]

    def answer(mean, place):
        q = bridge.ask(bridge.norm(mean)) + place
        key, value = layer.key_value(tokens).chunk(2, -1)
        share = ((layer.ask(q)[:, None] * key).sum(-1) / 2).softmax(-1)  # the root of a width of 4
        return bridge.tell(layer.norm(q + layer.out((share[..., None] * value).sum(1))))

    pooled = bridge.tell_all(bridge.cues.pooled_norm(x))
    told = bridge(skeleton, seen) - skeleton
    first, second, third, fourth = bridge.time.T
    moments = (first, 0.75 * first + 0.25 * second, 0.25 * third + 0.75 * fourth, fourth)
    for t, v, moment in zip((0, 1, 6, 7), (0, 16, 5, 9), moments, strict=True):
        of_frame = answer(skeleton[:, :, t].mean(-1), moment)
        of_joint = answer(skeleton[..., v].mean(-1), bridge.joint[v])
        torch.testing.assert_close(told[:, :, t, v], of_frame + of_joint + pooled, atol=1e-6, rtol=0)


class Blind(Method):
    """A method without an embedding of its own."""

    text_slots = ("one_line",)

    def loss(self, features, labels, text):
        raise NotImplementedError

    def scores(self, features, text):
        raise NotImplementedError


def test_alignment_refuses_a_method_without_embeddings():
    with pytest.raises(PosebridgeError, match="leave `adapt` out"):
        PrototypeAlignment(Blind(SHAPES, CLASSES, {}))


def test_alignment_uses_what_the_method_gives_and_leaves_it_alone():
    method, parts = build(), [features(6, 1), features(6, 2)]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    adaptation = PrototypeAlignment(method)
    assert adaptation.choices == {"alpha": (1.0, 0.9, 0.8, 0.6, 0.4, 0.2)} and adaptation.alpha == 1
    adaptation.alpha = 0.5
    scores = adaptation.scores(iter(parts), text())
    z = torch.cat([method.embed(part) for part in parts])
    torch.testing.assert_close(scores, z @ align_prototypes(z, method.prototypes(text()), 0.5).T)
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    adaptation.alpha = 0.0  # no clip is kept: the text decides, as without adaptation
    plain = torch.cat([method.scores(part, text()) for part in parts])
    torch.testing.assert_close(adaptation.scores(iter(parts), text()), plain)


QUICK = dataclasses.replace(PARAMS, train=dataclasses.replace(PARAMS.train, views=3))
FLAGS = {"hidden": [16], "out": 32, "kernel": 5, "epochs": 25, "batch_size": 32, "cue_width": 16, "cue_heads": 2}


def run_world(world, name, run, params=QUICK):
    train(world, PROTOCOL, name, run, params)
    folder = evaluate(world, PROTOCOL, name, run, params)
    models = world.cache / "models/toy" / PROTOCOL / name / "seed-0"
    return json.loads((folder / "seed-0/metrics.json").read_text()), json.loads((models / "selection.json").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    return make_world(tmp_path_factory.mktemp("pgfa"), train=16)


def test_end_to_end_without_an_encoder_and_adaptation_in_its_own_column(world, monkeypatch):
    monkeypatch.setattr(trained, "told_of_encoder", lambda *_: pytest.fail("a skeleton encoder is read"))
    plain, _ = run_world(world, "pgfa", RunParams("pgfa", FLAGS, skeletons="gt"))
    both, selection = run_world(world, "pgfa_adapted", RunParams("pgfa", FLAGS, skeletons="gt", adapt="pgfa"))
    assert plain["adapted"] is None and "adapt" not in plain["selection"]
    assert both["zsl"] == plain["zsl"] and both["gzsl"] == plain["gzsl"]  # never replaced
    assert both["adapted"]["by"] == "pgfa" and both["adapted"]["n"] == both["zsl"]["n"] == 24
    assert both["adapted"]["alpha"] == selection["adapt"]["alpha"] in PrototypeAlignment.choices["alpha"]
    assert set(both["adapted"]) >= {"top1", "macro", "n", "ci95", "seconds"}
    assert plain["zsl"]["top1"] <= plain["ceiling"]["skeleton"] == 0.5 and plain["ceiling"]["twin_hits_max"] <= 1
    assert plain["zsl"]["top1"] > 0.3 and plain["params"] > 1000 and plain["gflops"] > 0


def test_cues_break_the_ceiling_of_skeletons(world):
    """On average: one seed may end below it by the last bits of a processor."""
    two = dataclasses.replace(QUICK, encode=dataclasses.replace(QUICK.encode, seeds=(0, 1)))
    first, _ = run_world(world, "pgfa_cues", RunParams("pgfa", FLAGS | {"cues": True}), two)
    folder = world.cache / "results/toy" / PROTOCOL / "pgfa_cues"
    second = json.loads((folder / "seed-1/metrics.json").read_text())
    assert (first["zsl"]["top1"] + second["zsl"]["top1"]) / 2 > 0.6


def test_every_method_with_an_embedding_takes_the_adaptation(world):
    encode(world, PROTOCOL, "refined", dataclasses.replace(PARAMS.encode, epochs=10))
    flags = {"width": 16, "heads": 2, "layers": 1}
    found, _ = run_world(world, "posebridge", RunParams("posebridge", flags, adapt="pgfa"))
    assert found["adapted"]["by"] == "pgfa" and found["adapted"]["top1"] > 0.5
    with pytest.raises(PosebridgeError, match="no adaptation named 'pgfb'"):
        run_world(world, "wrong", RunParams("posebridge", flags, adapt="pgfb"))

"""PURLS's equations by hand, DynaPURLS's bank and step by hand, and the leak of both, planted and caught."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic import CLASSES, PARAMS, PROTOCOL, UNSEEN, make_world

from pipeline.errors import PosebridgeError
from pipeline.learn import evaluate as evaluation
from pipeline.learn.encode import encode
from pipeline.learn.evaluate import evaluate
from pipeline.learn.feature_table import feature_table
from pipeline.learn.score import adapt_table
from pipeline.learn.train import train
from pipeline.methods import find_adaptation, takes_cues
from pipeline.methods.base import Features, Shapes
from pipeline.methods.dynapurls import LR, PER_CLASS, THRESHOLD, WEIGHT_DECAY, Bank, DynaPurls, Refinement
from pipeline.methods.partition import SLOTS, StaticPartition, part_of, phase_vectors, static_shares
from pipeline.methods.posebridge import Skeleton
from pipeline.methods.purls import GLOBAL, Purls, PurlsMatched, contrastive
from pipeline.params import RunParams
from pipeline.protocol.guards import LeakError
from pipeline.skeleton.graph import COCO_17, GRAPHS
from pipeline.text.bank import bank_path

pytestmark = pytest.mark.unit
D_TEXT, V = 12, 17
SHAPES = Shapes(d_text=D_TEXT, persons=1, cue_frames=4, anchors=("body", "left_hand"), d_cue=6)
SMALL = {"width": 8, "heads": 2, "hidden": 16}


def features(batch=5, frames=6, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return Features(
        torch.randn(batch, 256, frames, V, generator=g, dtype=dtype),
        torch.rand(batch, 1, 2, generator=g, dtype=dtype),
        torch.randn(batch, 1, 4, 2, 6, generator=g).half(),
        torch.rand(batch, 1, 4, 2, generator=g, dtype=dtype),
    )


def text(classes=6, seed=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(classes, 8, D_TEXT, generator=g, dtype=dtype), dim=-1)


def build(kind=Purls, **flags):
    torch.manual_seed(0)
    return kind(SHAPES, 6, SMALL | flags).double().eval()


# partition


def test_phases_are_means_of_frames_and_every_vector_has_length_one():
    x = phase_vectors(features().skeleton)
    assert x.shape == (5, 3 * V, 256)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(5, 3 * V, dtype=torch.float64))
    by_hand = features().skeleton[3, :, 2:4, 7].mean(1)  # the middle phase of six frames, joint 7
    torch.testing.assert_close(x[3, V + 7], by_hand / by_hand.norm())
    assert not phase_vectors(torch.zeros(1, 256, 6, V)).any()


@pytest.mark.parametrize("frames", [3, 4, 7, 16])
def test_phases_are_those_of_adaptive_average_pooling(frames):
    """Of 16 frames, as the published encoder's map has, neighbours share one: they are no three equal windows."""
    x = features(frames=frames).skeleton
    pooled = F.adaptive_avg_pool2d(x, (3, V)).flatten(2).transpose(1, 2)  # [B, 3V, 256]
    torch.testing.assert_close(phase_vectors(x), pooled / pooled.norm(dim=-1, keepdim=True))


def test_the_projection_into_text_space_by_hand():
    """Batch norm, product, SiLU, batch norm, product, tanh; slot by slot out of one vector of all eight."""
    method, rng = build(), np.random.default_rng(0)
    norm_in, _, into, _, norm_out, _ = method.project
    for norm in (norm_in, norm_out):
        norm.running_mean.copy_(torch.from_numpy(rng.normal(size=len(norm.running_mean))))
        norm.running_var.copy_(torch.from_numpy(rng.uniform(0.5, 2, size=len(norm.running_var))))
        for value in (norm.weight, norm.bias):
            value.data.copy_(torch.from_numpy(rng.normal(size=len(value))))
    pooled = rng.normal(size=(3, 2, 8, 256))

    def normed(x, norm):
        told = norm.running_mean, norm.running_var, norm.weight, norm.bias
        mean, var, weight, bias = (value.detach().numpy() for value in told)
        return (x - mean) / np.sqrt(var + 1e-5) * weight + bias

    def product(x, linear):
        return x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()

    hidden = product(normed(pooled.reshape(6, 8 * 256), norm_in), into)
    hidden = normed(hidden / (1 + np.exp(-hidden)), norm_out)
    by_hand = np.tanh(product(hidden, method.to_text)).reshape(3, 2, 8, D_TEXT)
    found = method.in_text_space(torch.from_numpy(pooled)).detach().numpy()
    np.testing.assert_allclose(found, by_hand, atol=1e-9, rtol=0)


def test_partition_weights_are_those_of_the_equation():
    partition, x, t = build().partition, phase_vectors(features().skeleton), text()
    found, pooled = partition.weights(x, t), partition(x, t)
    wq, bq, wk = (p.detach().numpy() for p in partition.parameters())
    bk = np.linspace(-1, 1, len(wk))  # a bias of the keys would change nothing
    b, c, i = 2, 4, 6
    q = wq @ t[c, i].numpy() + bq
    keys = [wk @ x[b, p].numpy() + bk for p in range(3 * V)]
    logits = np.array([np.mean([q[h] @ k[h] / math.sqrt(4) for h in (slice(0, 4), slice(4, 8))]) for k in keys])
    weights = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(found[b, c, i].detach().numpy(), weights, atol=1e-6, rtol=0)
    by_hand = sum(a * x[b, p].numpy() for p, a in enumerate(weights))
    np.testing.assert_allclose(pooled[b, c, i].detach().numpy(), by_hand, atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", GRAPHS)
def test_every_joint_of_every_layout_is_in_one_part(layout):
    shares = static_shares(GRAPHS[layout]).view(8, 3, -1)
    torch.testing.assert_close(shares.sum(dim=(1, 2)), torch.ones(8))
    assert ((shares[:4] > 0).sum(0) == 1).all()  # the four parts divide the joints
    assert ((shares[4:7] > 0).sum(0) == 1).all()  # the three phases divide the time


def test_static_parts_of_coco_are_means_of_their_joints():
    x, joints = phase_vectors(features().skeleton), COCO_17.joints
    pooled = StaticPartition(COCO_17)(x, text())[:, 0]  # [B, 8, 256]
    by_phase = x.view(5, 3, V, 256)
    hands = [joints.index(f"{side}_{name}") for side in ("left", "right") for name in ("elbow", "wrist")]
    torch.testing.assert_close(pooled[:, SLOTS.index("hands")], by_phase[:, :, hands].mean(dim=(1, 2)))
    torch.testing.assert_close(pooled[:, SLOTS.index("start")], by_phase[:, 0].mean(1))
    torch.testing.assert_close(pooled[:, SLOTS.index("end")], by_phase[:, 2].mean(1))
    torch.testing.assert_close(pooled[:, GLOBAL], x.mean(1))
    assert [part_of(j) for j in ("nose", "left_hip", "right_ankle")] == ["head", "torso", "legs"]


# loss


def test_contrastive_loss_of_two_classes_by_hand():
    """Clips of the classes 0, 0, 1 against those two classes, each right half of the time as e to 1 or as 1 to 1."""
    logits = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    positive = torch.tensor([[True, False], [True, False], [False, True]])
    e = math.e
    rows = -(2 * math.log(e / (e + 1)) + math.log(0.5)) / 3
    columns = -((math.log(e / (e + 2)) + math.log(1 / (e + 2))) / 2 + math.log(e / (e + 2))) / 2
    assert float(contrastive(logits, positive)) == pytest.approx((rows + columns) / 2, abs=1e-12)


def aligned(method, pooled):
    return torch.nn.functional.normalize(method.in_text_space(pooled), dim=-1)


@pytest.mark.parametrize("kind", [Purls, PurlsMatched])
def test_loss_of_a_batch_of_two_classes_by_hand(kind):
    """`matched`: clip i against class j with features pooled by j. As published: pooled by its own, against clips."""
    method, x, t, labels = build(kind, loss="cosine"), features(3), text(), torch.tensor([4, 1, 4])
    with torch.no_grad():
        method.scale.copy_(torch.linspace(1, 3, 8))
        method.slot_weight.copy_(torch.linspace(-1, 1, 8))
    found = method.requires_grad_(False).loss(x, labels, t)
    matched = kind is PurlsMatched
    columns = [1, 4] if matched else labels.tolist()
    share = torch.linspace(-1, 1, 8, dtype=torch.float64).exp()
    total = 0.0
    for slot in range(8):
        logits = np.zeros((3, len(columns)))
        for i, own in enumerate(labels.tolist()):
            for k, c in enumerate(columns):
                pooled_by = c if matched else own
                one = method.pool(features_of(x, i), t[pooled_by : pooled_by + 1])
                cosine = float(aligned(method, one)[0, 0, slot] @ t[c, slot])
                logits[i, k] = float(method.scale[slot]) * cosine
        losses = []
        for matrix, here, there in ((logits, labels.tolist(), columns), (logits.T, columns, labels.tolist())):
            each = []
            for row, one in zip(matrix, here, strict=True):
                log_share = row - np.log(np.exp(row).sum())
                each.append(-np.mean([log_share[k] for k, other in enumerate(there) if other == one]))
            losses.append(np.mean(each))
        total += 8 * float(share[slot] / share.sum()) * np.mean(losses)
    assert float(found) == pytest.approx(total, abs=1e-6)


def test_the_published_loss_by_hand():
    """Dot products, both directions added, each clip the only positive of its own text, two clips of a class or not.
    It is what `purls` does unless told otherwise; `purls_matched` is ours.
    """
    assert build().published and build(loss="published").published and not build(loss="cosine").published
    with pytest.raises(RuntimeError, match="dot_products"):  # weights of when `cosine` was what nobody had to name
        build().load_state_dict(build(loss="cosine").state_dict())
    assert not build(PurlsMatched).published and build(PurlsMatched, loss="published").published
    method, x, t, labels = build(), features(3), text(), torch.tensor([4, 1, 4])
    with torch.no_grad():
        method.scale.copy_(torch.linspace(1, 3, 8))
    found, total = method.requires_grad_(False).loss(x, labels, t), 0.0
    for slot in range(8):
        rows = []
        for i, own in enumerate(labels.tolist()):
            out = method.in_text_space(method.pool(features_of(x, i), t[own : own + 1]))[0, 0, slot]
            rows.append([float(method.scale[slot] * (out * t[c, slot]).sum()) for c in labels.tolist()])
        for matrix in (np.array(rows), np.array(rows).T):
            total += np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(matrix)])
    assert float(found) == pytest.approx(total, rel=1e-12)


def test_published_answers_go_by_the_dot_product_and_those_of_a_matched_method_are_learnt_so():
    method, x, t = build(), features(), text()
    for c in range(len(t)):
        out = method.in_text_space(method.pool(x, t[c : c + 1]))[:, 0, GLOBAL]
        torch.testing.assert_close(method.scores(x, t)[:, c], out @ t[c, GLOBAL])
    matched, labels = build(PurlsMatched, loss="published").requires_grad_(False), torch.tensor([4, 1, 4, 0, 1])
    products = matched.in_text_space(matched.pool(x, t[[0, 1, 4]]))  # [B, U, 8, d_t], by each class of the batch
    logits = matched.scale * (products * t[[0, 1, 4]]).sum(-1)
    positive = labels[:, None] == torch.tensor([0, 1, 4])
    wanted = sum(2 * contrastive(logits[:, :, slot], positive) for slot in range(8))
    torch.testing.assert_close(matched.loss(x, labels, t), wanted)


def features_of(x, i):
    return Features(x.skeleton[i : i + 1], x.quality[i : i + 1], x.cues[i : i + 1], x.cue_scores[i : i + 1])


@pytest.mark.parametrize("kind", [Purls, PurlsMatched])
@pytest.mark.parametrize("flags", [{}, {"partition": "static"}, {"cues": True, "cue_width": 8}], ids=str)
def test_it_trains_and_scores_any_candidates(kind, flags):
    method, labels = build(kind, **flags).float(), torch.tensor([0, 3, 3, 5, 0])
    x, seen, candidates = features(dtype=torch.float32), text(dtype=torch.float32), text(9, 4, torch.float32)
    method.train().loss(x, labels, seen).backward()
    assert not [n for n, p in method.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not method.loss(features_of(x, 0), labels[:1], seen).detach()  # a batch of one is not an error
    method.eval()
    scores = method.scores(x, candidates)
    assert scores.shape == (5, 9) and torch.isfinite(scores).all()
    torch.testing.assert_close(method.scores(x, candidates[[7, 0]]), scores[:, [7, 0]])
    torch.testing.assert_close(method.scores(features_of(x, 2), candidates), scores[2:3])
    assert takes_cues("purls", SMALL | flags) == bool(flags.get("cues"))


def test_scores_are_pooled_by_each_candidate():
    method, x, t = build(loss="cosine"), features(), text()
    found = method.scores(x, t)
    for c in range(len(t)):
        one = aligned(method, method.pool(x, t[c : c + 1]))[:, 0, GLOBAL]
        torch.testing.assert_close(found[:, c], method.scale[GLOBAL] * one @ t[c, GLOBAL])


def test_batches_are_those_of_the_flag_or_else_of_all_methods():
    assert (build().schedule(), build(PurlsMatched, batch_size=4).schedule()) == ({}, {"batch_size": 4})


def test_flags_that_cannot_be_are_one_sentence():
    wrong = {"adaptive or": {"partition": "dynamic"}, "multiple of heads": {"heads": 3}, "cosine or": {"loss": "dot"}}
    for words, flags in wrong.items():
        with pytest.raises(PosebridgeError, match=words):
            build(**flags)


# refinement


def content(bank):
    """The kept clips [n, ...] and their pseudo-classes [n]."""
    clips, pseudo, there = bank.everything()
    return clips[there], pseudo[there]


def test_the_bank_keeps_the_most_confident_of_each_pseudo_class():
    bank = Bank(3, PER_CLASS)
    confidence = torch.linspace(0.2, 0.9, 40, dtype=torch.float64)[torch.randperm(40)]
    clips = torch.arange(42.0, dtype=torch.float64)[:, None]
    pseudo = torch.tensor([1] * 40 + [2, 0])
    confidence = torch.cat([confidence, torch.tensor([0.5, 0.1], dtype=torch.float64)])  # 0.1 is not above 0.1
    for part in (slice(0, 10), slice(10, 25), slice(25, 42)):
        bank.push(clips[part], confidence[part], pseudo[part])
    kept, label = content(bank)
    assert len(kept) == PER_CLASS + 1 and label.bincount(minlength=3).tolist() == [0, PER_CLASS, 1]
    best = confidence[:40].argsort(descending=True)[:PER_CLASS]
    assert sorted(kept[label == 1, 0].tolist()) == sorted(best.double().tolist())
    assert kept[label == 2].tolist() == [[40.0]]


def test_a_clip_that_is_not_more_confident_replaces_nobody():
    bank = Bank(1, 1)
    for value, confidence in ((1.0, 0.5), (2.0, 0.4), (3.0, 0.6), (4.0, 0.6)):
        one = torch.tensor([confidence], dtype=torch.float64)
        bank.push(torch.tensor([[value]], dtype=torch.float64), one, torch.zeros(1, dtype=torch.long))
    assert content(bank)[0].tolist() == [[3.0]]


def test_two_steps_of_the_refinement_by_hand():
    """W, b after two batches, by the analytic gradient and Adam written out."""
    assert (PER_CLASS, THRESHOLD, LR, WEIGHT_DECAY) == (16, 0.1, 0.01, 0.001), "the published values"
    rng = np.random.default_rng(0)
    u, d, scale = 3, 5, 2.66
    t = rng.normal(size=(u, d))
    t /= np.linalg.norm(t, axis=1, keepdims=True)
    clips = [rng.normal(size=(n, u, d)) for n in (4, 3)]

    def compare(kept, words):
        return scale * (kept * words[:, 0]).sum(-1)

    refinement = Refinement(compare, torch.tensor(t)[:, None])
    found = [refinement(torch.tensor(batch)) for batch in clips]

    w, b = np.ones((u, d)), np.zeros((u, d))
    m, v, bank, labels = np.zeros((2, u, d)), np.zeros((2, u, d)), np.zeros((0, u, d)), []
    for step, batch in enumerate(clips, start=1):
        n = w * t + b
        length = np.linalg.norm(n, axis=1, keepdims=True)
        refined = n / length
        predicted = scale * (batch * refined).sum(-1)
        bank, labels = np.concatenate([bank, batch]), labels + predicted.argmax(1).tolist()
        logits = scale * (bank * refined).sum(-1)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        g = scale * np.einsum("nu,nud->ud", p, bank) / len(bank)
        g = (g - (g * refined).sum(1, keepdims=True) * refined) / length
        gradient = np.stack([g * t + WEIGHT_DECAY * w, g + WEIGHT_DECAY * b])
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        move = LR * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        w, b = w - move[0], b - move[1]
        n = w * t + b
        expected = scale * (batch * n / np.linalg.norm(n, axis=1, keepdims=True)).sum(-1)
        np.testing.assert_allclose(found[step - 1].numpy(), expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(refinement.weight.detach().numpy()[:, 0], w, atol=1e-6, rtol=0)
    np.testing.assert_allclose(refinement.bias.detach().numpy()[:, 0], b, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("alternating", "old_losses"), [(True, False), (False, True), (True, True)])
def test_the_released_refinement_is_pytorchs_with_its_schedule_and_with_losses_that_are_kept(alternating, old_losses):
    torch.manual_seed(0)
    t = F.normalize(torch.randn(3, 2, 5, dtype=torch.float64), dim=-1)
    batches = [torch.randn(n, 3, 2, 5, dtype=torch.float64) for n in (4, 3, 5, 2, 4)]

    def compare(kept, words):
        return 3 * (kept * words).sum((-1, -2))

    refinement = Refinement(compare, t, alternating, old_losses)
    weight, bias = torch.ones_like(t).requires_grad_(), torch.zeros_like(t).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1, eta_min=LR / 10)
    clips, losses, rates = [], [], []  # of the bank, which is never full here
    for batch in batches:
        words = F.normalize(weight * t + bias, dim=-1)
        confidence, pseudo = compare(batch, words).softmax(1).max(1)
        assert (confidence > THRESHOLD).all()
        clips.append((batch, pseudo))
        losses.append(F.cross_entropy(compare(batch, words), pseudo, reduction="none"))  # with its graph
        now = [F.cross_entropy(compare(each, words), label, reduction="none") for each, label in clips]
        optimizer.zero_grad()
        torch.cat(losses if old_losses else now).mean().backward(retain_graph=True)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        if alternating:
            schedule.step()
        expected = compare(batch, F.normalize(weight * t + bias, dim=-1))
        torch.testing.assert_close(refinement(batch), expected, atol=1e-9, rtol=0)
    assert rates == pytest.approx([LR, LR / 10, LR, LR / 10, LR] if alternating else [LR] * 5)
    torch.testing.assert_close(refinement.weight, weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(refinement.bias, bias, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("name", "alternating", "old_losses"),
    [
        ("dynapurls", False, False),
        ("dynapurls_alternating", True, False),
        ("dynapurls_old_losses", False, True),
        ("dynapurls_released", True, True),
    ],
)
def test_what_the_released_code_does_is_had_by_name(name, alternating, old_losses):
    method, batches = build(), [features(seed=seed) for seed in range(3)]
    found = find_adaptation(name)(method).scores(batches, text())
    for both in itertools.product((False, True), repeat=2):
        refinement = Refinement(method.compare, text(), *both)
        scores = torch.cat([refinement(method.keep(batch, text()).detach()) for batch in batches])
        assert torch.allclose(found, scores, atol=1e-9, rtol=0) == (both == (alternating, old_losses))


def test_no_step_is_made_before_a_clip_is_surely_of_a_class():
    """Twenty classes as like as not, in two batches; then one that is sure. Adam counts from there, as PyTorch's."""
    torch.manual_seed(0)
    t = F.normalize(torch.randn(20, 1, 5, dtype=torch.float64), dim=-1)
    refinement = Refinement(lambda kept, words: kept @ words[:, 0].T, t)
    for _ in range(2):
        refinement(torch.zeros(4, 5, dtype=torch.float64))
    assert not len(content(refinement.bank)[0]) and refinement.weight.eq(1).all() and not refinement.bias.any()
    sure = 20 * t[[3, 7], 0]
    refinement(sure)
    weight = torch.ones_like(t).requires_grad_()
    bias = torch.zeros_like(t).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=LR, weight_decay=WEIGHT_DECAY)
    words = F.normalize(weight * t + bias, dim=-1)[:, 0]
    F.cross_entropy(sure @ words.T, torch.tensor([3, 7])).backward()
    optimizer.step()
    torch.testing.assert_close(refinement.weight, weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(refinement.bias, bias, atol=1e-9, rtol=0)


def test_the_bank_is_that_of_one_clip_after_another():
    """Whatever comes at once, the bank holds what it would hold if every clip had come alone."""
    torch.manual_seed(0)
    bank, alone = Bank(4, 3), Bank(4, 3)
    for size in (2, 30, 1, 17):
        clips, confidence, pseudo = torch.randn(size, 2), torch.rand(size), torch.randint(4, (size,))
        bank.push(clips, confidence, pseudo)
        for row in range(size):
            alone.push(clips[row : row + 1], confidence[row : row + 1], pseudo[row : row + 1])
        found, wanted = (
            sorted(zip(label.tolist(), clip.tolist(), strict=True))
            for clip, label in map(content, (bank, alone))
        )
        assert found == wanted


@pytest.mark.parametrize("kind", [Purls, PurlsMatched, Skeleton])
def test_adaptation_leaves_the_method_alone_and_is_the_same_again(kind):
    torch.manual_seed(0)
    small = {"text_slots": list(SLOTS), "width": 16, "heads": 2} if kind is Skeleton else SMALL
    method = kind(SHAPES, 6, small).double().eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    batches = [features(seed=seed) for seed in range(3)]
    first = DynaPurls(method).scores(batches, text())
    assert first.shape == (15, 6) and not first.requires_grad
    assert torch.equal(first, DynaPurls(method).scores(batches, text()))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    inductive = torch.cat([method.scores(batch, text()) for batch in batches]) / method.temperature
    assert not torch.allclose(first, inductive)
    other = DynaPurls(method).scores([features(seed=7), *batches[1:]], text())
    assert not torch.allclose(first[5:], other[5:])  # it is what came before that it adapts to


def test_adaptation_in_train_mode_is_caught_and_so_is_a_method_that_cannot():
    with pytest.raises(LeakError, match="train mode"):
        DynaPurls(build().train()).scores([features()], text())
    with pytest.raises(PosebridgeError, match="dynapurls needs"):
        DynaPurls(torch.nn.Linear(1, 1))


# the whole way


RUNS = {
    "purls": RunParams(method="purls", flags=SMALL),
    "purls_matched": RunParams(method="purls_matched", flags=SMALL, adapt="dynapurls"),
    "purls_cues": RunParams(method="purls", flags=SMALL | {"cues": True, "cue_width": 16}),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory, one_thread):
    world = make_world(tmp_path_factory.mktemp("world"))
    give_eight_slots(bank_path("toy", "minilm", world.cache))
    encode(world, PROTOCOL, "refined", replace(PARAMS.encode, epochs=2))
    quick = replace(PARAMS, train=replace(PARAMS.train, epochs=3))
    for name, run in RUNS.items():
        train(world, PROTOCOL, name, run, quick)
    return world


def give_eight_slots(path):
    """The made-up bank with PURLS's slots: each the class's vector with some noise."""
    rng = np.random.default_rng(5)
    with h5py.File(path, "r+") as file:
        base = file["embeddings"][()].mean(1, keepdims=True)
        vectors = base + 0.02 * rng.normal(size=(len(CLASSES), len(SLOTS), base.shape[2]))
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        for name in ("embeddings", "mask", "slots"):
            del file[name]
        file["embeddings"], file["mask"] = vectors.astype(np.float32), np.ones(vectors.shape[:2], bool)
        file.create_dataset("slots", data=list(SLOTS), dtype=h5py.string_dtype())


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_trained_and_tested_like_any_other(world, run):
    folder = evaluate(world, PROTOCOL, run, RUNS[run], PARAMS)
    found = json.loads((folder / "seed-0/metrics.json").read_text())
    assert found["zsl"]["n"] == 24 and 0 <= found["zsl"]["top1"] <= 1 and found["gflops"] > 0
    assert (found["adapted"] is None) == (RUNS[run].adapt == "")


def shuffled(world):
    """The same data set with the labels of its test clips of unseen classes dealt out anew."""
    clips = list(world.clips)
    test = [i for i, clip in enumerate(clips) if clip.part == "test" and CLASSES[clip.label] in UNSEEN]
    labels = np.random.default_rng(0).permutation([clips[i].label for i in test])
    for i, label in zip(test, labels, strict=True):
        clips[i] = replace(clips[i], label=int(label))
    return replace(world, clips=tuple(clips))


def predictions(world, run):
    folder = evaluate(world, PROTOCOL, run, RUNS[run], PARAMS)
    lines = (folder / "seed-0/predictions.csv").read_text().splitlines()[1:]
    return {line.split(",")[0]: line.split(",")[-1] for line in lines}


@pytest.mark.parametrize("run", RUNS)
def test_shuffled_labels_leave_every_score_as_it_is(world, run):
    assert predictions(shuffled(world), run) == predictions(world, run)


def test_shuffled_labels_leave_refined_scores_as_they_are(world, monkeypatch):
    found = []
    monkeypatch.setattr(evaluation, "adapt_table", lambda *a: found.append(adapt_table(*a)) or found[-1])
    for each in (world, shuffled(world)):
        evaluate(each, PROTOCOL, "purls_matched", RUNS["purls_matched"], PARAMS)
    assert found[0].shape == (24, len(UNSEEN)) and torch.equal(*found)


def test_pooling_with_the_true_label_is_caught(world, monkeypatch):
    """The released test, planted: features pooled by the true class's descriptions and compared with all."""

    def leaky(opened, encoder, method, samples, text=None):
        label = {clip.clip_id: clip.label for clip in opened.dataset.clips}
        table = feature_table(encoder, samples, opened.shapes.anchors)
        text = opened.bank.take(range(len(CLASSES)), method.text_slots)
        own = torch.tensor([label[clip_id] for clip_id in samples.clip_ids])
        kept = method.keep(table.batch(torch.arange(len(samples))), text)
        return method.compare(kept[torch.arange(len(own)), own][:, None], text).numpy()

    honest = predictions(world, "purls")
    monkeypatch.setattr(evaluation, "score_clips", leaky)
    assert predictions(world, "purls") != honest
    with pytest.raises(AssertionError):
        test_shuffled_labels_leave_every_score_as_it_is(world, "purls")

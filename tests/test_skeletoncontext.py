"""SkeletonContext's equations by hand, its ablations and its errors."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import PosebridgeError
from pipeline.manifest.check_texts import BODY_PARTS
from pipeline.methods import prompts, takes_cues
from pipeline.methods.base import Features, Shapes
from pipeline.methods.context import Attend, CrossModalLayer, DifferentialEncoding
from pipeline.methods.key_parts import JOINTS, KeyPartBranch, calibration, joint_priors
from pipeline.methods.prompts import IGNORED, Prompts, fill, masked_slots
from pipeline.methods.skeletoncontext import SkeletonContext
from pipeline.skeleton.graph import COCO_17, GRAPHS
from pipeline.text.masked import GAP, Tokens

pytestmark = pytest.mark.unit
D = 12
SHAPES = Shapes(d_text=D, persons=1, cue_frames=4, anchors=("body", "left_hand"), d_cue=6)
FLAGS = {"heads": 2}
WORDS = [
    {"environment": "Kitchen", "used_object": "cup", "target_object": "mouth", "key_parts": "head;hands"},
    {"environment": "dining room", "used_object": "cup", "target_object": "dinner table", "key_parts": "hands;arms"},
    {"environment": "street", "used_object": "none", "target_object": "none", "key_parts": "legs;feet;hips"},
]


def fake_tokens(width=D):
    """A language model of blank-separated words: the state of a word depends on it and on its sentence."""

    def read(name, sentences):
        lines = [sentence.split() for sentence in sentences]
        longest = max(map(len, lines))
        states, gaps = torch.zeros(len(lines), longest, width), torch.zeros(len(lines), longest, dtype=torch.bool)
        there = torch.zeros_like(gaps)
        for row, line in enumerate(lines):
            for place, word in enumerate(line):
                seed = sum(map(ord, word)) * 31 + sum(map(ord, "".join(line)))
                states[row, place] = torch.randn(width, generator=torch.Generator().manual_seed(seed))
                gaps[row, place], there[row, place] = word == GAP, True
        return Tokens(states, there, gaps)

    return read


@pytest.fixture(autouse=True)
def language_model(monkeypatch):
    monkeypatch.setattr(prompts, "read_tokens", fake_tokens())


def build(words=WORDS, **flags):
    torch.manual_seed(0)
    method = SkeletonContext(SHAPES, len(words), FLAGS | flags)
    method.see_words(words)
    return method.eval()


def features(batch=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return Features(
        torch.rand(batch, 256, 3, 17, generator=g).to(dtype),
        torch.rand(batch, 1, 2, generator=g),
        torch.randn(batch, 1, 4, 2, 6, generator=g).half(),
        torch.rand(batch, 1, 4, 2, generator=g),
    )


def text(classes=3, seed=1):
    return F.normalize(torch.randn(classes, 3, D, generator=torch.Generator().manual_seed(seed)), dim=-1)


def exact(a, b):
    torch.testing.assert_close(torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b), atol=1e-6, rtol=0)


# --- the equations ---


def test_differential_encoding_of_three_joints_is_the_written_out_sum():
    torch.manual_seed(0)
    layer = DifferentialEncoding(4).double()
    h = torch.randn(5, 3, 4, dtype=torch.float64)  # more clips than are done at a time
    found = layer(h).detach()
    layer.requires_grad_(False)
    for clip in range(5):
        joints = []
        for joint in h[clip]:
            mean, spread = joint.mean(), (joint - joint.mean()).square().mean().sqrt()
            joints.append((joint - mean) / torch.sqrt(spread**2 + 1e-5) * layer.norm.weight + layer.norm.bias)
        q, k, v = ([m.weight @ x + m.bias for x in joints] for m in (layer.query, layer.key, layer.value))
        for j in range(3):
            for c in range(4):
                d = [max(float(q[j][c] - k[i][c]), 0.0) for i in range(3)]
                total = sum(math.exp(x) for x in d)
                exact(sum(math.exp(d[i]) / total * float(v[i][c]) for i in range(3)), found[clip, j, c])


def test_the_guess_is_the_mean_over_joints_of_encoding_and_joint_through_relu():
    branch = build().double().context
    skeleton = features(dtype=torch.float64).skeleton
    h = torch.stack([skeleton[:, :, t] for t in range(3)]).mean(0).transpose(1, 2)
    pooled = sum((branch.differ(h) + h)[:, joint] for joint in range(17)) / 17
    exact((pooled @ branch.enter.weight.T + branch.enter.bias).clamp_min(0), branch.guess(skeleton)[:, 0])


def test_one_two_then_all_three_slots_are_masked():
    assert [masked_slots(epoch / 30) for epoch in range(30)] == [1] * 10 + [2] * 10 + [3] * 10
    assert [masked_slots(epoch / 4) for epoch in range(4)] == [1, 1, 2, 3]


def test_a_drawn_prompt_is_of_the_own_class_and_its_answers_are_what_it_hides():
    found = Prompts(WORDS, "minilm")
    assert found.vocabulary == ("cup", "dining room", "dinner table", "kitchen", "mouth", "none", "street")
    labels = torch.tensor([0, 1, 2] * 20)
    read = fake_tokens()
    seen = set()
    torch.manual_seed(0)
    for count in (1, 2, 3):
        states, there, gaps, answers = found.draw(labels, count)
        for row, label in enumerate(labels.tolist()):
            mask = tuple((answers[row] != IGNORED).tolist())
            assert sum(mask) == count
            own = [WORDS[label][slot].lower() for slot in prompts.SLOTS]
            for slot in range(3):
                if mask[slot]:
                    assert found.vocabulary[int(answers[row, slot])] == own[slot]
            alone = read("", [fill(own, mask)])
            length = alone.there.shape[1]
            assert torch.equal(states[row, :length], alone.states[0]) and int(there[row].sum()) == length
            assert gaps[row][list(mask)].tolist() == alone.gaps[0].nonzero()[:, 0].tolist()
            seen.add((label, mask))
    assert len(seen) == 3 * 7  # which slots are masked is left to chance
    assert IGNORED < 0, "no entry of any vocabulary"


def test_the_prompt_of_testing_has_no_word_of_any_class():
    bare = fake_tokens()("", [fill(["a", "b", "c"], (True, True, True))])
    assert torch.equal(Prompts(WORDS, "minilm").all_masked(), bare.states[0])
    assert torch.equal(build().context.prompt, bare.states[0])


def test_attention_to_a_single_token_is_attention():
    torch.manual_seed(0)
    part = Attend(8, 2, 0.1).double().eval()
    x, one = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(3, 1, 8, dtype=torch.float64)
    full = part(x, torch.cat([one, torch.randn_like(one)], 1), torch.tensor([[True, False]]))
    exact(part.to_one(x, one), full)


def test_the_cross_modal_layer_is_lxmerts_with_nothing_worked_out_in_vain():
    torch.manual_seed(0)
    layer = CrossModalLayer(8, 2, 0.1).double().eval()
    g, tokens = torch.randn(2, 1, 8, dtype=torch.float64), torch.randn(2, 6, 8, dtype=torch.float64)
    there = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    places = torch.tensor([[1, 3, 0], [2, 0, 3]])

    def attend(part, x, y, mask):
        heads = []
        for h in range(2):
            rows = slice(4 * h, 4 * h + 4)
            q, k, v = (m(z)[..., rows] for m, z in ((part.ask, x), (part.key, y), (part.value, y)))
            weights = (q @ k.transpose(1, 2) / 2.0).masked_fill(~mask[:, None], -torch.inf).softmax(-1)
            heads.append(weights @ v)
        return part.norm(x + part.out(torch.cat(heads, -1)))

    def alone(part, x, one):
        return part.norm(x + part.out(part.value(one)))

    text_side, skeleton_side = alone(layer.cross, tokens, g), attend(layer.cross, g, tokens, there)
    text_side = layer.text_forth(attend(layer.text_itself, text_side, text_side, there))
    skeleton_side = layer.skeleton_forth(alone(layer.skeleton_itself, skeleton_side, skeleton_side))
    exact(layer.skeleton(g, tokens, there), skeleton_side)
    exact(layer.text(g, tokens, there, places), torch.stack([text_side[b, places[b]] for b in range(2)]))


def test_joint_priors_are_equal_shares_of_the_joints_of_the_parts():
    priors = joint_priors(["head;hands", "feet"], COCO_17).double()
    named = {name: priors[0, i] for i, name in enumerate(COCO_17.joints)}
    inside = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_wrist", "right_wrist"]
    for name, value in named.items():
        exact(1 / 7 if name in inside else 0.0, value)
    exact(priors[1, [15, 16]], torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert set(JOINTS) == set(BODY_PARTS)
    for graph, part in itertools.product(GRAPHS.values(), BODY_PARTS):
        assert float(joint_priors([part], graph).sum()) == pytest.approx(1)
    with pytest.raises(PosebridgeError, match="'tail' in texts.csv is unknown"):
        joint_priors(["tail;hands"], COCO_17)


def test_weights_of_joints_and_their_calibration_by_hand():
    torch.manual_seed(0)
    branch = KeyPartBranch(D).double().requires_grad_(False)
    first, last = branch.weigh[0], branch.weigh[-1]
    skeleton = features(2, dtype=torch.float64).skeleton
    found, weights = branch(skeleton)
    priors = joint_priors(["head;hands", "legs"], COCO_17).double()
    pooled, error = torch.zeros(2, 256, dtype=torch.float64), 0.0
    for b, t in itertools.product(range(2), range(3)):
        inner = [(first.weight @ skeleton[b, :, t, v] + first.bias).clamp_min(0) for v in range(17)]
        raw = [float(last.weight[0] @ each + last.bias[0]) for each in inner]
        total = sum(map(math.exp, raw))
        for v in range(17):
            w = math.exp(raw[v]) / total
            exact(w, weights[b, t, v])
            pooled[b] += w * skeleton[b, :, t, v] / (3 * 17)
            error += (w - float(priors[b, v])) ** 2 / (2 * 3 * 17)
    exact((pooled @ branch.enter.weight.T + branch.enter.bias).clamp_min(0), found)
    exact(error, calibration(weights, priors))


def test_scores_are_a_tenth_of_the_mean_cosine_of_each_branch_added():
    method, seen, candidates = build().double(), features(dtype=torch.float64), text(4, seed=3).double()
    method.context.double()
    found = method.scores(seen, candidates)
    branches = method.branches(seen)
    for b, c in itertools.product(range(5), range(4)):
        cosines = [F.cosine_similarity(x[b], sentence, dim=0) for x in branches for sentence in candidates[c]]
        exact(0.1 * sum(cosines) / 3, found[b, c])


def test_an_adaptation_compares_the_sum_of_both_branches_directions():
    method, seen = build().double(), features(dtype=torch.float64)
    found, classes = method.embed(seen), text().double()
    for b, (context, parts) in enumerate(zip(*method.branches(seen), strict=True)):
        both = context / context.norm() + parts / parts.norm()
        exact(both / both.norm(), found[b])
    for c, sentences in enumerate(classes):
        mean = sum(sentences) / 3
        exact(mean / mean.norm(), method.prototypes(classes)[c])


def test_schedule_and_flags_are_the_published_ones():
    method = SkeletonContext(dataclasses.replace(SHAPES, d_text=24), 3, {})
    assert method.schedule() == {
        "optimiser": "sgd", "nesterov": True, "lr": 0.1, "weight_decay": 5e-4, "batch_size": 64, "epochs": 30,
        "milestones": (4, 20), "warmup": 0, "ema": 0.0, "patience": 0,
    }  # fmt: skip
    assert method.text_slots == ("one_line", "hands", "global")
    assert (method.flags.heads, method.flags.dropout, method.flags.scale) == (12, 0.1, 0.1)
    assert method.context.layer.cross.heads == 12 and method.context.layer.cross.forget.p == 0.1


def test_the_loss_is_both_branches_naming_and_calibration_alike(monkeypatch):
    method, labels = build().double(), torch.tensor([0, 1, 2, 0, 1])
    seen, classes = features(dtype=torch.float64), text().double()
    branch = method.context
    monkeypatch.setattr(branch, "train_with", lambda skeleton, labels, progress: (branch(skeleton), torch.tensor(5.0)))
    expected = 5.0 + calibration(method.key_parts(seen.skeleton)[1], method.priors[labels])
    for x in method.branches(seen):
        expected = expected + F.cross_entropy(method.compare(x, classes), labels)
    exact(method.loss(seen, labels, classes), expected)


# --- training and testing ---


@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("width", [D, 20])
def test_every_weight_learns(monkeypatch, progress, width):
    """Also where the language model is not as wide as the text."""
    monkeypatch.setattr(prompts, "read_tokens", fake_tokens(width))
    method = build(cues=True, cue_width=8, cue_heads=2).train()
    method.progress = progress
    loss = method.loss(features(), torch.tensor([0, 1, 2, 0, 1]), text())
    loss.backward()
    assert loss.ndim == 0 and torch.isfinite(loss)
    assert [name for name, p in method.named_parameters() if p.grad is None] == []


def test_cues_change_the_scores_and_a_clip_without_any_scores_as_without_a_bridge():
    method, seen = build(cues=True, cue_width=8, cue_heads=2), features()
    blind = dataclasses.replace(seen, cue_scores=torch.zeros_like(seen.cue_scores))
    assert not torch.allclose(method.scores(seen, text()), method.scores(blind, text()), atol=1e-7)
    found = method.scores(blind, text())
    method.bridge = None
    torch.testing.assert_close(method.scores(blind, text()), found)
    assert takes_cues("skeletoncontext", {"cues": True}) and not takes_cues("skeletoncontext", {})


@pytest.mark.parametrize("width", [D, 20])
def test_a_trained_method_is_loaded_without_words_and_without_a_language_model(monkeypatch, width):
    monkeypatch.setattr(prompts, "read_tokens", fake_tokens(width))
    method = build()
    state = method.state_dict()
    assert all(len(value) < 1000 or "weight" in key for key, value in state.items())  # no prompt of any class
    assert "priors" not in state
    monkeypatch.setattr(prompts, "read_tokens", lambda *_: pytest.fail("the language model is read at test"))
    other = SkeletonContext(SHAPES, 3, FLAGS)
    other.load_state_dict(state)
    assert torch.equal(other.eval().scores(features(), text()), method.scores(features(), text()))
    assert other.vocabulary == method.vocabulary


def test_rows_and_candidates_do_not_depend_on_one_another():
    method, order = build(), torch.tensor([3, 0, 4, 1, 2])
    scores = method.scores(features(), text())
    mixed = Features(*(getattr(features(), f.name)[order] for f in dataclasses.fields(Features)))
    torch.testing.assert_close(method.scores(mixed, text()), scores[order])
    torch.testing.assert_close(method.scores(features(), text()[[2, 0]]), scores[:, [2, 0]])


@pytest.mark.parametrize(
    ("words", "flags", "said"),
    [
        ([*WORDS[:2], {"environment": "street", "used_object": "none"}], {}, ["'target_object'", "1 of 3"]),
        (WORDS, {"heads": 5}, ["heads, 5", "width of the text, 12"]),
        (WORDS, {"language": "bert"}, ["'language'", "did you mean language_model"]),
    ],
)
def test_what_cannot_be_is_one_sentence(words, flags, said):
    with pytest.raises(PosebridgeError) as error:
        build(words, **flags)
    assert all(word in str(error.value) for word in said), error.value

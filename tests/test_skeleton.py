"""Graphs, normalisation, augmentation, the light Shift-GCN. The published one is in test_shift_gcn.py."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch

from pipeline.skeleton.augment import _about_the_vertical, augment
from pipeline.skeleton.dense import Dense
from pipeline.skeleton.graph import COCO_17, GRAPHS
from pipeline.skeleton.light_shift_gcn import Block, LightShiftGCN
from pipeline.skeleton.mirror import mirror
from pipeline.skeleton.normalise import normalise
from pipeline.skeleton.persons import in_order, random_order
from pipeline.skeleton.resample import resample, resample_at
from pipeline.skeleton.shift_gcn import ShiftGCN
from pipeline.skeleton.shifts import SpatialShift, TemporalShift
from pipeline.skeleton.st_gcn import STGCN

pytestmark = pytest.mark.unit


def clips(batch=3, persons=2, frames=8):
    torch.manual_seed(0)
    return torch.rand(batch, persons, frames, 17, 2) * 200, torch.rand(batch, persons, frames, 17)


def everybody(scores):
    return torch.ones(scores.shape[:3], dtype=torch.bool)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_the_mirror_of_the_graph_swaps_left_and_right_and_is_its_own_inverse(graph):
    for joint, other in enumerate(graph.mirror):
        swapped = graph.joints[joint].replace("left", "#").replace("right", "left").replace("#", "right")
        assert graph.joints[other] == swapped and graph.mirror[other] == joint
    assert [graph.joints[j] for j in (*graph.hips, *graph.shoulders)] == [
        "left_hip", "right_hip", "left_shoulder", "right_shoulder"
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "joints"), [("coco17", 17), ("openpose18", 18), ("ntu25", 25), ("kinect20", 20)])
def test_every_graph_has_its_joints_and_hangs_together_with_its_mirrored_bones(name, joints):
    graph = GRAPHS[name]
    assert len(set(graph.joints)) == len(graph.joints) == joints
    bones = {frozenset(bone) for bone in graph.bones}
    assert {frozenset(graph.mirror[joint] for joint in bone) for bone in bones} == bones
    reached, grown = {0}, True
    while grown:
        wider = reached.union(*(bone for bone in bones if bone & reached))
        grown, reached = wider != reached, wider
    assert reached == set(range(joints))


def test_the_numbers_of_the_published_layouts():
    # (joint, other) by number: PYSKL's graph of nturgb+d (1-based there) and of OpenPose.
    ntu = {(1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11),
           (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19), (22, 8), (23, 8), (24, 12),
           (25, 12)}  # fmt: skip
    assert {frozenset((a - 1, b - 1)) for a, b in ntu} == {frozenset(bone) for bone in GRAPHS["ntu25"].bones}
    openpose = {(4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5), (8, 2), (5, 1), (2, 1),
                (0, 1), (15, 0), (14, 0), (17, 15), (16, 14)}  # fmt: skip
    assert {frozenset(bone) for bone in openpose} == {frozenset(bone) for bone in GRAPHS["openpose18"].bones}


def test_three_dimensions_are_normalised_and_augmented_like_two():
    torch.manual_seed(0)
    keypoints, scores = torch.randn(3, 2, 8, 25, 3), torch.ones(3, 2, 8, 25)
    valid, graph = everybody(scores), GRAPHS["ntu25"]
    x = normalise(keypoints, scores, valid, graph)
    moved = normalise(keypoints * 1.3 + torch.tensor([0.5, -1.0, 3.0]), scores, valid, graph)
    torch.testing.assert_close(x, moved, atol=1e-4, rtol=1e-4)
    assert x.shape == (3, 2, 8, 25, 4)
    assert torch.equal(x[0, 0, 0, :, 1].argsort(), keypoints[0, 0, 0, :, 1].argsort()), "metres grow upwards already"
    one = torch.ones(3, dtype=torch.bool)
    still = augment(x, torch.Generator().manual_seed(0), graph, mirrored=~one, strength=0.0)
    torch.testing.assert_close(still, x)
    flipped = augment(x, torch.Generator().manual_seed(0), graph, mirrored=one, strength=0.0)
    torch.testing.assert_close(flipped, mirror(x, graph))
    assert torch.equal(mirror(mirror(x, graph), graph), x)
    seen = augment(x, torch.Generator().manual_seed(0), graph, mirrored=~one)
    assert torch.isfinite(seen).all() and not torch.allclose(seen[..., 2], x[..., 2], atol=0.1), "depth is turned too"
    assert LightShiftGCN(25, 4, width=8, blocks=(1, 1, 1), inputs=4)(x, valid.any(-1)).shape == (3, 4)


def test_place_and_camera_distance_vanish():
    keypoints, scores = clips()
    valid = everybody(scores)
    x = normalise(keypoints, scores, valid)
    moved = normalise(keypoints * 2.5 + torch.tensor([300.0, -40.0]), scores, valid)
    assert x.shape == (3, 2, 8, 17, 3)
    torch.testing.assert_close(x, moved, atol=1e-4, rtol=1e-4)


def test_the_origin_and_the_unit_are_medians_of_the_first_person_there_by_hand():
    """Of frames with hips at (100, 200), (110, 200), (160, 230) and torsos of 40, 80, 50; nobody is in the fourth."""
    hips = torch.tensor([[100.0, 200.0], [110.0, 200.0], [160.0, 230.0], [900.0, 900.0]])
    keypoints = hips[None, None, :, None].repeat(1, 2, 1, 17, 1)
    keypoints[0, 0] += 500 * torch.rand(4, 17, 2)  # of a person who is never there
    keypoints[0, 1, :, 5:7, 1] -= torch.tensor([40.0, 80.0, 50.0, 7.0])[:, None]  # the shoulders
    keypoints[0, 1, :, 5, 0] -= 6
    keypoints[0, 1, :, 6, 0] += 6
    keypoints[0, 1, :, 12, 0] += 20  # the right hip: the centre of both is 10 to the right
    valid = torch.tensor([[[False] * 4, [True, True, True, False]]])
    keypoints[..., 5:7, 0] += 10
    x = normalise(keypoints, torch.ones(1, 2, 4, 17), valid)
    assert not x[0, 0].any() and not x[0, 1, 3].any()
    nose = torch.tensor([[-0.4, 0.0, 1.0], [-0.2, 0.0, 1.0], [0.8, -0.6, 1.0]])
    torch.testing.assert_close(x[0, 1, :3, 0], nose)
    torch.testing.assert_close(x[0, 1, :3, 5], nose + torch.tensor([[0.08, 0.8, 0], [0.08, 1.6, 0], [0.08, 1.0, 0]]))


@pytest.mark.parametrize(
    ("up", "aside", "wide", "expected"),
    [(-100.0, 0.0, 2, 5.0), (0.0, 3.0, 2, 3.0), (-4.0, 3.0, 2, 3.0), (0.0, 0.03, 3, 3.0), (0.2, 0.12, 3, 3.0)],
    ids=["height", "pixel", "small", "centimetre", "metres"],
)
def test_a_torso_without_length_is_a_fifth_of_the_height_and_at_least_a_pixel_or_a_centimetre(
    up, aside, wide, expected
):
    keypoints = torch.full((1, 1, 1, 17, wide), 9.0)
    keypoints[..., 9, 0] += aside
    keypoints[..., 0, 1] += up
    x = normalise(keypoints, torch.ones(1, 1, 1, 17), torch.ones(1, 1, 1, dtype=torch.bool))
    found = x[0, 0, 0, 9, 0] if aside else x[0, 0, 0, 0, 1]
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_up_is_positive_and_the_score_is_the_third_channel():
    keypoints, scores = clips(persons=1)
    lifted = keypoints.clone()
    lifted[..., 9, 1] -= 50  # the left wrist moves up in the image
    valid = everybody(scores)
    before, after = normalise(keypoints, scores, valid), normalise(lifted, scores, valid)
    assert (after[..., 9, 1] > before[..., 9, 1]).all()
    assert torch.equal(after[..., 2], scores)


def test_nobody_there_is_zero_and_never_nan():
    keypoints, scores = clips()
    valid = everybody(scores)
    valid[0], valid[1, 0], valid[2, 1, 3:] = False, False, False
    x = normalise(keypoints, scores, valid)
    assert torch.isfinite(x).all()
    assert not x[0].any() and not x[1, 0].any() and not x[2, 1, 3:].any()
    x = normalise(torch.zeros_like(keypoints), torch.zeros_like(scores), everybody(scores))  # all joints on one spot
    assert torch.isfinite(x).all()


def test_mirroring_twice_is_nothing_and_once_is_the_other_hand():
    keypoints, scores = clips()
    x = normalise(keypoints, scores, everybody(scores))
    assert torch.equal(mirror(mirror(x)), x)
    left, right = COCO_17.joints.index("left_wrist"), COCO_17.joints.index("right_wrist")
    torch.testing.assert_close(mirror(x)[..., left, :], x[..., right, :] * torch.tensor([-1.0, 1.0, 1.0]))


def test_augmentation_is_reproducible_and_bounded():
    keypoints, scores = clips()
    x = normalise(keypoints, scores, everybody(scores))
    x[1] = 0  # nobody
    a, b = (augment(x, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and torch.isfinite(a).all() and not a[1].any()
    assert not torch.equal(a, augment(x, torch.Generator().manual_seed(4)))
    still = augment(x, torch.Generator().manual_seed(0), mirrored=torch.zeros(3, dtype=torch.bool), strength=0.0)
    torch.testing.assert_close(still, x)
    flipped = augment(x, torch.Generator().manual_seed(0), mirrored=torch.ones(3, dtype=torch.bool), strength=0.0)
    torch.testing.assert_close(flipped, mirror(x))


def test_a_view_is_a_stretch_of_the_clip_in_its_own_time():
    """A ramp in the third channel, which nothing but time touches: 75 to 100 % of it, resampled to as many frames."""
    frames, ramp = 16, torch.linspace(0, 1, 16)
    x = torch.zeros(400, 1, frames, 17, 3)
    x[..., 2] = ramp[None, None, :, None]
    x[..., 5, 0] = 1  # somebody is there from the first frame on
    seen = augment(x, torch.Generator().manual_seed(0))[:, 0, :, 0, 2]  # [B, T]
    start, length = seen[:, 0], seen[:, -1] - seen[:, 0]
    torch.testing.assert_close(seen, start[:, None] + length[:, None] * ramp, atol=1e-5, rtol=0)
    assert (start >= 0).all() and (seen <= 1 + 1e-6).all()
    assert 0.75 <= length.min() < 0.76 and 0.99 < length.max() <= 1 and start.max() > 0.2


def test_frames_are_made_more_evenly_in_time():
    x = torch.arange(1.0, 6.0).view(1, 1, 5, 1, 1).expand(2, 3, 5, 17, 3)
    assert resample(x, 5) is x and resample(x, 9).shape == (2, 3, 9, 17, 3)
    torch.testing.assert_close(resample(x, 9)[1, 2, :, 4, 1], 1 + torch.arange(9) / 2)


def test_clips_of_more_frames_have_no_ghost_between_a_frame_with_a_person_and_one_without():
    x = torch.zeros(1, 2, 3, 17, 3)
    x[:, 0], x[:, 1, 1:] = 5, 5  # the second person comes at the second frame
    seen = resample(x, 9)
    assert (seen[:, 0] == 5).all() and set(seen[:, 1].unique().tolist()) == {0, 5}
    assert seen[0, 1, :, 0, 0].tolist() == [0, 0, 0, 5, 5, 5, 5, 5, 5]


def test_persons_who_are_there_change_places_in_every_order_and_nobody_else_does():
    there = torch.tensor([[True, True, True], [False, True, True], [True, False, True], [False, True, False]])
    generator, found = torch.Generator().manual_seed(0), [set(), set(), set(), set()]
    for _ in range(100):
        order = random_order(there, generator)
        assert torch.equal(there.gather(1, order), there)
        for clip, one in enumerate(order.tolist()):
            found[clip].add(tuple(one))
    assert found[0] == set(itertools.permutations(range(3)))
    assert found[1:] == [{(0, 1, 2), (0, 2, 1)}, {(0, 1, 2), (2, 1, 0)}, {(0, 1, 2)}]
    x = torch.randn(4, 3, 5)
    assert torch.equal(in_order(x, order)[2, 0], x[2, order[2, 0]])


def test_cues_of_fewer_or_of_more_persons_go_with_the_skeletons():
    order, x = torch.tensor([[2, 0, 1], [1, 2, 0]]), torch.arange(1.0, 11.0).view(2, 5)
    assert in_order(x[:, :3], order).tolist() == [[3, 1, 2], [7, 8, 6]]
    assert in_order(x[:, :2], order).tolist() == [[1, 2], [7, 6]], "who is known, in the order that they were given"
    assert in_order(x[:, :1], order).tolist() == [[1], [6]]
    assert in_order(x, order).tolist() == [[3, 1, 2, 4, 5], [7, 8, 6, 9, 10]], "who is not named stays"


@pytest.mark.parametrize("kind", [Dense, ShiftGCN, LightShiftGCN])
def test_a_batch_of_one_vector_trains_by_the_statistics_of_before(kind):
    """The last clip of an epoch, or the only second person of a batch, at one moment."""
    torch.manual_seed(0)
    net = kind(17, 4, width=8, blocks=(1, 1, 1), persons=2).train()
    x, both = torch.randn(3, 2, 1, 17, 3), torch.tensor([[True, True], [True, False], [True, False]])
    net(x, both)  # a single second person of one frame
    before = {name: value.clone() for name, value in net.state_dict().items() if "running" in name}
    net(x[:1], both[1:2]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    after = net.state_dict()
    alone = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert alone and (kind is not Dense or len(alone) == len(before)), "one vector has no statistics"
    if kind is ShiftGCN:
        assert not before["input_norm.1.running_mean"].any() and before["input_norm.0.running_mean"].any()


def test_time_is_interpolated_between_frames_with_a_person_and_the_nearer_frame_is_taken_at_an_edge():
    x = torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 1.0], [4.0, 8.0, 0.5]])[None, None, :, None]  # nobody, then somebody
    seen = resample_at(x, torch.tensor([[0.25, 0.75, 1.25, 2.0]]))[0, 0, :, 0]
    torch.testing.assert_close(seen, torch.tensor([[0, 0, 0], [2, 4, 1], [2.5, 5, 0.875], [4, 8, 0.5]]))


def test_a_turn_about_the_vertical_by_hand():
    turn = _about_the_vertical(torch.tensor([0.0, torch.pi / 2]))
    moved = turn @ torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(moved, torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, -1.0]]))


def test_a_view_is_turned_sheared_and_scaled_as_far_as_said():
    """The map of the plane is found again from a still pose: x' = A x, A = (rotation + shear) scale."""
    torch.manual_seed(0)
    pose = torch.randn(17, 2)
    x = torch.cat([pose, torch.ones(17, 1)], -1).expand(600, 1, 8, 17, 3).clone()
    x[:, :, :, 5, 2] = 0  # a joint that nobody saw takes no noise
    generator, plain = torch.Generator().manual_seed(1), torch.zeros(600, dtype=torch.bool)
    seen = augment(x, generator, mirrored=plain)[:, 0, ..., :2]  # [B, T, V, 2]
    a = torch.linalg.lstsq(pose.expand(600, 17, 2), seen.mean(1)).solution.mT  # [B, 2, 2]
    angle, wide = torch.atan2(a[:, 1, 0], a[:, 0, 0]), a[:, :, 0].norm(dim=1)
    tall = a[:, 1, 1] / angle.cos()
    shear = a[:, 0, 1] / tall + angle.sin()
    for found, low, high in ((angle.rad2deg(), -12, 12), (wide, 0.8, 1.2), (tall, 0.8, 1.2), (shear, -0.2, 0.2)):
        margin = (high - low) / 20
        assert low - margin < found.min() < low + margin and high - margin < found.max() < high + margin
    noise = (seen - torch.einsum("bij,vj->bvi", a, pose)[:, None]).std((0, 1, 3))  # [V]
    others = torch.arange(17) != 5
    assert noise[others].min() > 0.005 and noise[others].max() < 0.02 and noise[5] < 0.005
    mirrored = augment(torch.cat([x[..., :1] * 0 + 1, x[..., 1:]], -1), generator)[:, 0, 0, :, 0].mean(1) < 0
    assert 0.4 < mirrored.float().mean() < 0.6, "one half"


def test_the_spatial_shift_is_the_papers_and_its_inverse_undoes_it():
    x = torch.randn(2, 5, 7, requires_grad=True)  # V=5, C=7
    y = SpatialShift(5, 7)(x)
    for v in range(5):
        for c in range(7):
            assert torch.equal(y[:, v, c], x[:, (v + c) % 5, c])
    assert torch.equal(SpatialShift(5, 7, back=True)(y), x)
    weight = torch.randn_like(y)
    (grad,) = torch.autograd.grad((y * weight).sum(), x)
    torch.testing.assert_close(SpatialShift(5, 7)(grad), weight)


def test_the_temporal_shift_interpolates_and_learns():
    shift = TemporalShift(2)
    shift.shift.data = torch.tensor([1.0, -0.25])
    x = torch.arange(5.0)[None, :, None, None].expand(1, 5, 1, 2)
    y = shift(x)[0, :, 0].T
    torch.testing.assert_close(y[0], torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]))  # from outside: zero
    torch.testing.assert_close(y[1, 1:], torch.tensor([0.75, 1.75, 2.75, 3.75]))
    y.sum().backward()
    assert shift.shift.grad.abs().sum() > 0
    assert TemporalShift(2, stride=2)(x).shape == (1, 3, 1, 2)


def plain_shift(x, shift, stride=1):
    """Every value looked up by hand: x [P, T, V, C], shift [C]."""
    frames = x.shape[1]

    def at(t, c):
        low = math.floor(float(t.detach()))
        part = [x[:, f, :, c] if 0 <= f < frames else 0 * x[:, 0, :, c] for f in (low, low + 1)]
        return part[0] * (low + 1 - t) + part[1] * (t - low)

    return torch.stack([
        torch.stack([at(t + shift[c], c) for c in range(x.shape[3])], -1) for t in range(0, frames, stride)
    ], 1)  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("far", [0.4, 1.7, 30.0])
def test_a_temporal_shift_is_the_same_by_taps_and_by_a_matrix_however_far_it_goes(stride, far):
    torch.manual_seed(0)
    module, x = TemporalShift(6, stride).double(), torch.randn(2, 7, 3, 6, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        module.shift.mul_(far)
    weight = torch.randn(2, -(-7 // stride), 3, 6, dtype=torch.float64)
    expected = plain_shift(x, module.shift, stride)
    wanted = torch.autograd.grad((expected * weight).sum(), (x, module.shift))
    for way in (module.by_taps, module.by_matrix):
        found = way(x)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        for a, b in zip(torch.autograd.grad((found * weight).sum(), (x, module.shift)), wanted, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_a_shift_that_is_no_number_is_left_for_the_loop_to_find():
    module, x = TemporalShift(2), torch.randn(1, 4, 2, 2)
    torch.nn.init.constant_(module.shift, torch.nan)
    assert module(x).isnan().all()
    torch.nn.init.constant_(module.shift, torch.inf)
    assert not module(x).any(), "all that comes from outside the clip is zero"


def plain_norm(norm, y):
    mean, variance = y.mean((0, 1, 2)), y.var((0, 1, 2), unbiased=False)
    return (y - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def plain_project(path, x):
    if isinstance(path, torch.nn.Identity):
        return x
    return plain_norm(path.norm, x[:, :: path.stride] @ path.linear.weight.T)


def plain_block(block, x):
    """Two convolutions, each with a path around it."""
    joints = x.shape[2]

    def spatial_shift(x, step):
        return torch.stack([
            torch.stack([x[:, :, (v + step * c) % joints, c] for c in range(x.shape[3])], -1) for v in range(joints)
        ], 2)  # fmt: skip

    y = spatial_shift(x, 1) * (1 + block.mask.tanh()) @ block.spatial.weight.T
    y = (plain_norm(block.spatial_norm, spatial_shift(y, -1)) + plain_project(block.spatial_skip, x)).relu()
    y = plain_shift(y, block.shift_in.shift, block.shift_in.stride) @ block.temporal.weight.T
    y = plain_norm(block.temporal_norm, plain_shift(y, block.shift_out.shift))
    return (y + plain_project(block.skip, x)).relu()


def plain_map(net, x, person):
    """[B, 256, T', V], person by person."""
    y = torch.stack([x[b, m] for b, m in person.nonzero().tolist()])
    y = plain_norm(net.input_norm, y.flatten(2)[:, :, None])[:, :, 0].view_as(y)
    for block in net.blocks:
        y = plain_block(block, y) if isinstance(block, Block) else plain_project(block[0], y).relu()
    clips = []
    for b in range(len(x)):
        own = [y[i] for i, (clip, _) in enumerate(person.nonzero().tolist()) if clip == b]
        clips.append(sum(own) / len(own) if own else 0 * y[0])
    return torch.stack(clips).permute(0, 3, 1, 2)


def test_the_light_encoder_is_as_worked_out_plainly_and_so_is_every_gradient():
    torch.manual_seed(0)
    net = LightShiftGCN(5, 3, width=4, blocks=(2, 1), inputs=3).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, 0.5)
    x, person = (
        torch.randn(3, 2, 7, 5, 3, dtype=torch.float64),
        torch.tensor([[1, 1], [0, 1], [0, 0]], dtype=torch.bool),
    )
    expected = plain_map(net, x, person)
    torch.testing.assert_close(net.feature_map(x, person), expected, atol=1e-9, rtol=0)
    scores = net(x, person)
    torch.testing.assert_close(scores, net.classifier(expected.mean((2, 3))), atol=1e-9, rtol=0)
    weight = torch.randn_like(scores)
    wanted = torch.autograd.grad((net.classifier(expected.mean((2, 3))) * weight).sum(), list(net.parameters()))
    found = torch.autograd.grad((scores * weight).sum(), list(net.parameters()))
    for (name, _), a, b in zip(net.named_parameters(), found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=name)


def test_the_names_and_shapes_of_weights_are_those_of_encoders_trained_before():
    weights = {name: tuple(value.shape) for name, value in Block(17, 8, 16, 2).state_dict().items()}
    norm = {"weight": (16,), "bias": (16,), "running_mean": (16,), "running_var": (16,), "num_batches_tracked": ()}
    norms = ("spatial_norm", "temporal_norm", "spatial_skip.norm", "skip.norm")
    assert weights == {
        "mask": (17, 8), "spatial.weight": (16, 8),
        "spatial_skip.linear.weight": (16, 8), "skip.linear.weight": (16, 8),
        "shift_in.shift": (16,), "temporal.weight": (16, 16), "shift_out.shift": (16,),
    } | {f"{name}.{part}": shape for name in norms for part, shape in norm.items()}  # fmt: skip


@pytest.mark.parametrize("joints", [17, 25])
def test_the_map_has_256_channels_whatever_the_width(joints):
    x, person = torch.randn(2, 2, 12, joints, 3), torch.ones(2, 2, dtype=torch.bool)
    for width in (8, 64):
        net = LightShiftGCN(joints, 4, width=width, blocks=(1, 1, 1)).eval()
        assert net.feature_map(x, person).shape == (2, 256, 3, joints)
        assert net(x, person).shape == (2, 4)


ENCODERS = {
    "light": lambda: LightShiftGCN(17, 4, width=8, blocks=(1, 1, 1)),
    "shift_gcn": lambda: ShiftGCN(17, 4, width=8, blocks=(1, 1, 1), persons=2),
    "dense": lambda: Dense(17, 4, width=8),
    "st_gcn": lambda: STGCN(COCO_17, (8, 16), 32),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_map_is_the_mean_over_persons_who_are_there(kind):
    net = ENCODERS[kind]().eval()
    x, person = torch.randn(2, 2, 8, 17, 3), torch.tensor([[True, False], [False, False]])
    x[0, 1], x[1] = torch.nan, torch.inf  # of nobody, whatever it is
    alone = net.feature_map(x[:1, :1], torch.ones(1, 1, dtype=torch.bool))
    both = net.feature_map(x, person)
    torch.testing.assert_close(both[:1], alone)
    assert not both[1].any()  # nobody: zeros, not NaN
    x, person = torch.randn(1, 2, 8, 17, 3), torch.ones(1, 2, dtype=torch.bool)
    each = [net.feature_map(x[:, [m]], person[:, :1]) for m in (0, 1)]
    torch.testing.assert_close(net.feature_map(x, person), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("kind", ["light", "dense", "st_gcn"])  # the published one has norms for each person
def test_in_training_statistics_are_of_those_who_are_there(kind):
    torch.manual_seed(0)
    net, x = ENCODERS[kind]().train(), torch.randn(3, 2, 8, 17, 3) + 5
    person = torch.tensor([[True, False], [False, False], [True, True]])
    before = copy.deepcopy(net.state_dict())
    net.feature_map(x, person)
    after = copy.deepcopy(net.state_dict())
    net.load_state_dict(before)
    net.feature_map(x.flatten(0, 1)[person.flatten()][:, None], torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(net.state_dict(), after)
    net.load_state_dict(before)
    net.feature_map(x, torch.zeros_like(person)).sum().backward()  # a batch of nobody
    seen = {name: value for name, value in net.state_dict().items() if "num_batches" not in name}
    torch.testing.assert_close(seen, {name: before[name] for name in seen}, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_clip_has_the_same_map_in_every_batch(kind):
    torch.manual_seed(0)
    net, x = ENCODERS[kind]().double().eval(), torch.randn(5, 2, 8, 17, 3, dtype=torch.float64)
    person = torch.tensor([[True, False], [True, True], [False, False], [False, True], [True, True]])
    whole = net.feature_map(x, person)
    for rows in ([0], [2], [3, 2], [4, 1, 0]):
        torch.testing.assert_close(net.feature_map(x[rows], person[rows]), whole[rows], atol=1e-12, rtol=0)


def test_the_dense_encoder_sees_every_joint_at_four_moments_and_tells_no_joint_apart():
    torch.manual_seed(0)
    net, x = Dense(17, 4, width=8).eval(), torch.randn(2, 1, 2, 17, 3)
    person = torch.ones(2, 1, dtype=torch.bool)
    found = net.feature_map(x, person)
    assert found.shape == (2, 256, 1, 17) and torch.equal(found, found[..., :1].expand_as(found))
    share = torch.tensor([0, 1 / 3, 2 / 3, 1])[:, None, None]
    seen = x[:, 0, :1] + share * (x[:, 0, 1:] - x[:, 0, :1])  # [2, 4, 17, 3]
    torch.testing.assert_close(found[:, :, 0, 0], net.layers(seen.flatten(1)))
    assert net(x, person).shape == (2, 4)


def test_only_persons_who_are_there_are_computed():
    net, seen = ENCODERS["light"]().eval(), []
    net.blocks.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    net.feature_map(torch.randn(3, 2, 8, 17, 3), torch.tensor([[True, False], [False, False], [True, True]]))
    assert seen == [3]


def test_order_of_clips_in_a_batch_does_not_matter():
    net = LightShiftGCN(17, 4, width=8, blocks=(1, 1, 1)).eval()
    x, person = torch.randn(4, 1, 8, 17, 3), torch.ones(4, 1, dtype=torch.bool)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(x[order], person), net(x, person)[order])

"""Validity, range, edges and colours of what leaves the network."""

import numpy as np
import pytest

from dar_ros.backends.base import Prediction
from dar_ros.bundle import BEYOND, IN_RANGE, TOO_NEAR
from dar_ros.postprocess import BLEND_LIMIT, colorize, flying_pixels, real_depth, resize_depth
from dar_ros.preprocess import ResizeSpec

SAME = ResizeSpec.fit((8, 8), (8, 8))


def prediction(depth=2.0, classes=IN_RANGE, scale=0.1):
    full = np.full((8, 8), 1.0, np.float32)
    return Prediction(full * depth, np.full((8, 8), classes, np.uint8), full * scale, 1)


def test_canonical_depth_is_divided_by_the_scale_once():
    depth, sigma = real_depth(prediction(6.0), SAME, 2.0, (0.1, 10), 1.5)
    assert depth == pytest.approx(3.0)
    assert sigma == pytest.approx(3.0 * np.sqrt(2) * 0.1 * 1.5)


@pytest.mark.parametrize('classes, expected', [(BEYOND, np.inf), (TOO_NEAR, -np.inf)])
def test_classes_become_infinities(classes, expected):
    depth, sigma = real_depth(prediction(classes=classes), SAME, 1.0, (0.1, 10), 1)
    assert (depth == expected).all() and np.isnan(sigma).all()


@pytest.mark.parametrize('policy, expected', [('inf', np.inf), ('nan', np.nan), ('clamp', 10.0)])
def test_beyond_range_policies(policy, expected):
    depth, _ = real_depth(prediction(classes=BEYOND), SAME, 1.0, (0.1, 10), 1, policy)
    assert np.array_equal(depth, np.full((8, 8), expected), equal_nan=True)


def test_depth_outside_the_range_counts_as_its_class():
    assert (real_depth(prediction(12.0), SAME, 1.0, (0.1, 10), 1)[0] == np.inf).all()
    assert (real_depth(prediction(0.05), SAME, 1.0, (0.1, 10), 1)[0] == -np.inf).all()


def test_uncertain_pixels_become_nan():
    limit = 0.1 * np.sqrt(2)
    assert np.isfinite(
        real_depth(prediction(), SAME, 1.0, (0.1, 10), 1, 'inf', limit * 1.01)[0]
    ).all()
    assert np.isnan(
        real_depth(prediction(), SAME, 1.0, (0.1, 10), 1, 'inf', limit * 0.99)[0]
    ).all()
    unknown = prediction()
    unknown.scale[:] = np.nan  # no number: not to be trusted
    assert np.isnan(real_depth(unknown, SAME, 1.0, (0.1, 10), 1, 'inf', limit * 1.01)[0]).all()


@pytest.mark.parametrize('uncertainty', [0.05, 0.5])
def test_what_is_beyond_is_so_however_uncertain_it_is(uncertainty):
    """Whatever stands for it: a planner frees the same lines of sight by +inf as by the limit."""
    classes = np.full((8, 8), IN_RANGE, np.uint8)
    classes[:4] = BEYOND
    far = Prediction(*(prediction().__dict__ | {'range_class': classes}).values())
    far.scale[:] = uncertainty
    found, clamped = (
        real_depth(far, SAME, 1.0, (0.1, 10), 1, policy, 0.2)[0] for policy in ('inf', 'clamp')
    )
    assert (found[:4] == np.inf).all() and (clamped[:4] == 10).all()
    assert np.array_equal(found[4:], clamped[4:], equal_nan=True)
    assert np.isnan(found[4:]).all() == (uncertainty > 0.2)


def test_resize_invents_no_depth_between_two_surfaces():
    depth = np.full((48, 64), 1.0, np.float32)
    depth[:, 32:] = 5.0
    fine = resize_depth(depth, ResizeSpec.fit((480, 640), (48, 64)))
    assert (np.minimum(np.abs(fine / 1 - 1), np.abs(fine / 5 - 1)) <= BLEND_LIMIT).all()


def test_resize_is_smooth_on_a_surface():
    ramp = np.tile(np.linspace(2, 4, 64, dtype=np.float32), (48, 1))
    fine = resize_depth(ramp, ResizeSpec.fit((480, 640), (48, 64)))
    assert np.abs(np.diff(fine[:, 10:-10], axis=1)).max() < 0.01


def test_flying_pixels_lie_between_surfaces():
    depth = np.full((9, 9), 1.0, np.float32)
    depth[:, 5:] = 3.0
    assert not flying_pixels(depth, 0.05).any()  # a clean edge has none
    depth[:, 4] = 2.0
    flying = flying_pixels(depth, 0.05)
    assert flying[:, 4].all() and flying.sum() == 9
    assert not flying_pixels(depth, 0.0).any()


def test_the_threshold_is_a_share_of_the_depth():
    """A slope far away is no edge, however many centimetres a pixel of it spans."""
    slope = np.tile(np.linspace(10, 12, 9, dtype=np.float32), (9, 1))
    assert not flying_pixels(slope, 0.05).any() and flying_pixels(slope, 0.01).any()
    assert np.array_equal(flying_pixels(slope / 100, 0.015), flying_pixels(slope, 0.015))


def test_a_thin_thing_is_not_flying():
    depth = np.full((9, 9), 3.0, np.float32)
    depth[:, 4] = 1.0
    assert not flying_pixels(depth, 0.05).any()


def test_invalid_depth_is_never_a_jump():
    depth = np.array([[np.nan, 1, np.inf], [1, 1, 1], [-np.inf, 1, np.nan]], np.float32)
    assert not flying_pixels(depth, 0.05).any()


def test_what_has_no_depth_has_colours_of_its_own():
    """Beyond the range dark grey, anything else invalid black: neither is in the scale."""
    found = colorize(np.array([[np.inf, -np.inf, np.nan]], np.float32), 0.5, 8.0)
    assert found[0].tolist() == [[45] * 3, [0] * 3, [0] * 3]


def test_colors_have_a_fixed_scale():
    near, far = (
        colorize(np.array([[0.5]]), 0.5, 8)[0, 0],
        colorize(np.array([[8.0]]), 0.5, 8)[0, 0],
    )
    assert near[0] > near[2] and far[2] > far[0]  # red near, blue far
    alone, beside = colorize(np.array([[2.0]]), 0.5, 8), colorize(np.array([[2.0, 7.0]]), 0.5, 8)
    assert (alone[0, 0] == beside[0, 0]).all()
    assert (colorize(np.array([[np.nan]]), 0.5, 8) == 0).all()


@pytest.mark.parametrize('scale', [0.5, 2.0])
def test_the_range_is_of_real_metres(scale):
    """Through lenses whose canonical metres are shorter or longer than the real ones."""
    for metres, expected in ((9.0, 9.0), (11.0, np.inf), (0.15, 0.15), (0.07, -np.inf)):
        depth, _ = real_depth(prediction(metres * scale), SAME, scale, (0.1, 10), 1)
        assert depth == pytest.approx(expected)


@pytest.mark.parametrize('row', [101, 102])  # at both sides of the border of two blocks of rows
def test_flying_pixels_are_found_in_every_direction(row):
    depth = np.full((200, 640), 1.0, np.float32)
    depth[row], depth[row + 1 :] = 2.0, 3.0
    expected = np.zeros(depth.shape, bool)
    expected[row] = True
    for turns in range(4):  # rows and columns, rising and falling
        found = flying_pixels(np.rot90(depth, turns), 0.05)
        assert np.array_equal(found, np.rot90(expected, turns))


@pytest.mark.parametrize('turns', range(4))  # a floor, walls along which one looks, a ceiling
def test_a_plane_at_a_grazing_angle_is_not_flying(turns):
    """A floor 0.1 m below a small image's camera: a row of it is 5 % farther from 1.2 m on."""
    below = np.arange(240, dtype=np.float32)[:, None] - 119.5
    floor = np.where(below > 0, 0.1 * 228 / np.maximum(below, 1), np.inf) * np.ones((1, 320))
    floor = np.rot90(floor.astype(np.float32), turns)
    flying = flying_pixels(floor, 0.05)
    assert not flying[floor < 5].any()
    assert flying[floor > 5].any()  # beside the sky no plane can be told: only some rows
    # A box on it, and pixels between it and the floor behind: they fly all the same.
    box = np.rot90(floor, -turns).copy()
    box[100:165, 100:140] = 0.5
    box[140:165, [99, 140]] = (box[140:165, [98, 141]] + 0.5) / 2
    flying = np.rot90(flying_pixels(np.rot90(box, turns), 0.05), -turns)
    between = np.abs(box[140:165, 98] / 0.5 - 1) > 0.12
    assert between.sum() > 10 and flying[140:165, [99, 140]][between].all()


@pytest.mark.parametrize('wide', range(1, 6))
@pytest.mark.parametrize('far', [1.5, 3.0, 12.0])
def test_a_wide_edge_flies_whatever_its_slope(wide, far):
    """Linear in Z or in 1/Z: a network's edges are soft."""
    part = np.clip((np.arange(40) - 19) / (wide + 1), 0, 1)
    for depth in (1 + (far - 1) * part, 1 / (1 + (1 / far - 1) * part)):
        depth = np.tile(depth.astype(np.float32), (9, 1))
        step = np.abs(np.diff(depth[0]))
        expected = np.zeros(40, bool)
        expected[1:-1] = np.minimum(step[1:], step[:-1]) > 0.05 * depth[0, 1:-1]
        assert (flying_pixels(depth, 0.05) == expected).all()


FINER = ResizeSpec.fit((480, 640), (48, 64))


def test_nothing_lies_between_too_near_and_beyond():
    """The mean of both classes is `in range`: a phantom around what is near, before the sky."""
    classes = np.full((48, 64), BEYOND, np.uint8)
    classes[:, 32:] = TOO_NEAR
    full = np.ones((48, 64), np.float32)
    depth, _ = real_depth(Prediction(2 * full, classes, 0.1 * full, 1), FINER, 1.0, (0.1, 10), 1)
    assert np.isposinf(depth[:, :320]).all() and np.isneginf(depth[:, 320:]).all()


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_no_depth_is_without_an_uncertainty(value):
    """One pixel of the network's without a number, and what a resize makes of it around."""
    classes = np.full((48, 64), IN_RANGE, np.uint8)
    for spoiled in ('depth', 'scale'):
        maps = {'depth': np.full((48, 64), 2, np.float32), 'scale': np.ones((48, 64), np.float32)}
        maps[spoiled][20, 30] = value
        predicted = Prediction(range_class=classes, step=1, **maps)
        depth, sigma = real_depth(predicted, FINER, 1.0, (0.1, 10), 1)
        assert np.isnan(depth[200:210, 300:310]).all()
        assert np.array_equal(np.isfinite(depth), np.isfinite(sigma))
        assert np.isfinite(depth).mean() > 0.99

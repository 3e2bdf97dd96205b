"""What training varies: crops, cameras, surfaces and light."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')

from dar_ros.datasets.frames import Frame
from dar_ros.geometry import Intrinsics
from dar_ros.model.presets import preset
from dar_ros.training.datasets import (
    AugmentConfig,
    RangeConfig,
    TrainingSamples,
    convolved,
    crop_and_flip,
    exposed,
    photometric,
    relit,
    sampled,
    to_canonical,
)

MODEL = replace(preset('dar_tiny'), canonical_focal=40.0)
NOTHING = AugmentConfig(
    min_crop=1.0, max_shift=0, reshape=0, flip=0, gray=0, color=0, noise=0, blur=0, jpeg=0
)


def picture(size=(60, 80)):
    """Smooth noise of middling contrast, with one edge down the middle."""
    rng = np.random.default_rng(0)
    image = rng.normal(90, 4, (*size, 3))
    image[:, size[1] // 2 :] += 60
    return image.astype(np.uint8)


def test_a_sample_depends_on_its_number_only():
    image, depth = picture(), np.full((60, 80), 2.0, np.float32)
    frames = [Frame(image, depth + n, Intrinsics(50, 50, 39.5, 29.5)) for n in range(6)]
    augment = AugmentConfig(surfaces=0.5, light=0.5)
    samples = [
        TrainingSamples(frames, (32, 48), MODEL, RangeConfig(), augment, (0, 0), 40)
        for _ in range(2)
    ]
    samples[1][3]
    for a, b in zip(samples[0][17], samples[1][17]):
        assert torch.equal(
            a.nan_to_num(-1.0) if a.is_floating_point() else a,
            b.nan_to_num(-1.0) if b.is_floating_point() else b,
        )
    assert not torch.equal(samples[0][17][0], samples[0][18][0])


def test_a_near_limit_that_is_not_drawn_tells_the_lens():
    """The model's own limit times s, as the pipeline hands it to the network."""
    frames = [
        Frame(picture(), np.full((60, 80), 2.0, np.float32), Intrinsics(f, f, 39.5, 29.5))
        for f in (40, 80)
    ]
    ranges = RangeConfig(depth_min=())
    data = TrainingSamples(frames, (32, 48), MODEL, ranges, AugmentConfig(), (0, 0), 20)
    found = set()
    for _, depth, depth_min, _ in map(data.__getitem__, range(20)):
        scale = float(depth.nanmedian()) / 2.0
        assert float(depth_min) == pytest.approx(scale * MODEL.depth_range[0])
        found.add(float(depth_min))
    assert len(found) > 10  # every crop is a lens of its own


def test_cropping_and_flipping_keep_the_geometry():
    """
    A depth map that codes its own rays: after crop and flip the intrinsics still give |x| of every
    pixel.
    """
    camera = Intrinsics(50, 60, 39.5, 29.5)
    rays = np.tile(np.abs((np.arange(80, dtype=np.float32) - camera.cx) / camera.fx), (60, 1))
    image = np.zeros((60, 80, 3), np.uint8)
    for seed in range(8):
        _, found, moved = crop_and_flip(
            image, rays, camera, AugmentConfig(), np.random.default_rng(seed)
        )
        expected = np.abs((np.arange(found.shape[1]) - moved.cx) / moved.fx)
        assert np.allclose(found[0], expected, atol=1e-5)


def test_crops_stay_near_the_middle_and_vary_in_shape():
    """The network is not told the principal point; other aspects are what padding is learnt by."""
    camera, config, shapes = Intrinsics(50, 60, 39.5, 29.5), AugmentConfig(), []
    for seed in range(60):
        image, depth = np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.float32)
        _, found, moved = crop_and_flip(image, depth, camera, config, np.random.default_rng(seed))
        for side, center, full in zip(found.shape, (moved.cy, moved.cx), (60, 80)):
            assert abs(center - (side - 1) / 2) <= config.max_shift * (full - side) / 2 + 1
        shapes.append(found.shape[1] / found.shape[0])
    assert min(shapes) < 1.1 and max(shapes) > 1.7
    assert abs(np.median(shapes) - 80 / 60) < 0.05


def test_no_crop_is_narrower_than_asked():
    config = AugmentConfig(min_crop=0.3, min_fov=50.0, reshape=0)
    for focal, least in ((50, 50.0), (200, np.degrees(2 * np.arctan(0.2)))):
        image, depth = np.zeros((60, 80, 3), np.uint8), np.ones((60, 80), np.float32)
        camera = Intrinsics(focal, focal, 39.5, 29.5)
        seen = []
        for seed in range(80):
            _, found, _ = crop_and_flip(image, depth, camera, config, np.random.default_rng(seed))
            seen.append(np.degrees(2 * np.arctan(found.shape[1] / (2 * focal))))
        assert least - 1 <= min(seen) < least + 3  # a camera narrower than that is left whole


def test_what_contrast_alone_would_cut_off_a_darker_exposure_shows():
    """One table for both: of a ramp as many levels survive as after the last step alone."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, 2)
    both = replace(NOTHING, contrast=1.0, color=1.0)
    dark = bright = 0
    for seed in range(40):
        varied = exposed(ramp, both, np.random.default_rng(seed))
        if varied.max() < 250:  # darker than the sensor's limit: nothing was cut off at the top
            top = varied[0, :, 0]
            dark += 1
            bright += len(np.unique(top[-20:])) > 3
    assert dark >= 3 and bright == dark


@pytest.mark.parametrize(
    'name', ['gray', 'color', 'noise', 'blur', 'jpeg', 'surfaces', 'light', 'contrast', 'sharpen']
)
def test_each_photometric_setting_has_an_effect_and_only_where_it_is_set(name):
    image = picture()
    image[..., 2] //= 2
    assert (photometric(image, NOTHING, np.random.default_rng(0)) == image).all()
    varied = photometric(image, replace(NOTHING, **{name: 1.0}), np.random.default_rng(1))
    assert varied.shape == image.shape and varied.dtype == np.uint8
    assert (varied != image).mean() > 0.2


def test_random_convolutions_leave_edges_and_brightness():
    image, changes = picture(), []
    for seed in range(20):
        varied = convolved(image, np.random.default_rng(seed)).astype(float)
        assert abs(varied.mean() - image.mean()) < 12
        edge = np.abs(np.diff(varied, axis=1)).mean((0, 2))
        # A convolution may take an edge's contrast, and put none elsewhere; 2 pixels at the sides.
        assert edge[2:-2].argmax() + 2 in range(36, 43) or edge.max() < 12
        changes.append(np.abs(varied - image).mean())
    assert max(changes) > 10


def test_light_varies_smoothly_and_keeps_colours():
    image = np.full((60, 80, 3), (60, 90, 120), np.uint8)
    for seed in range(10):
        ratio = relit(image, np.random.default_rng(seed)) / image.astype(float)
        unclipped = ratio.max() * 120 < 255
        assert ratio.max() - ratio.min() > 0.1
        if unclipped:
            assert np.abs(ratio - ratio.mean(2, keepdims=True)).max() < 0.02
        assert np.abs(np.diff(ratio[..., 0], axis=1)).max() < 0.3


def test_labels_lie_where_the_image_does():
    """A depth that is the column's number, at the network's size: that of a pixel's middle."""
    depth = np.tile(np.arange(320, dtype=np.float32), (240, 1))
    image = np.zeros((240, 320, 3), np.uint8)
    for size in ((192, 256), (96, 128)):
        _, small, _ = to_canonical(image, depth, Intrinsics(100, 100, 159.5, 119.5), size, None)
        middle = (np.arange(size[1]) + 0.5) * 320 / size[1] - 0.5
        assert abs((small[0] - middle).mean()) < 0.05


def test_image_and_depth_are_cropped_and_flipped_together():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    camera, depth = Intrinsics(50, 60, 39.5, 29.5), image[..., 0].astype(np.float32)
    for seed in range(8):
        varied, found, _ = crop_and_flip(
            image, depth, camera, AugmentConfig(), np.random.default_rng(seed)
        )
        assert np.array_equal(varied[..., 0], found)


@pytest.mark.parametrize(
    'shape, content', [((360, 640), np.s_[24:168, :]), ((640, 360), np.s_[:, 74:182])]
)
def test_labels_of_another_aspect_lie_where_the_image_does(shape, content):
    """A bright wall 5 m away behind a dark one: padding has no depth, and no depth is blended."""
    depth = np.ones(shape, np.float32)
    depth[101:, 201:] = 5.0
    image = np.where(depth > 1, 255, 0).astype(np.uint8)[..., None].repeat(3, 2)
    network, small, _ = to_canonical(image, depth, Intrinsics(9, 9, 9, 9), (192, 256), None)
    assert np.isfinite(small).sum() == small[content].size
    assert set(np.unique(small[content])) == {1.0, 5.0}
    bright = network[content][..., 0] > 127
    assert (bright == (small[content] > 3)).mean() > 0.99


def test_what_a_lidar_measured_is_kept():
    """Of one pixel in eight plain sampling at a third of the size keeps one in eight."""
    rng = np.random.default_rng(0)
    depth = np.tile(np.linspace(5, 50, 600, dtype=np.float32), (180, 1))
    points = np.where(rng.random(depth.shape) < 1 / 8, depth, np.nan)
    small = sampled(points, (60, 200))
    assert np.isfinite(small).mean() > 0.65  # a cell of nine pixels has a point in 70 of 100
    known = np.isfinite(small)
    # Each is a depth of its own cell.
    cells = depth.reshape(60, 3, 200, 3)
    assert (small[known] >= cells.min((1, 3))[known]).all()
    assert (small[known] <= cells.max((1, 3))[known]).all()
    assert np.array_equal(sampled(depth, (60, 200)), depth[1::3, 1::3])
    assert np.isnan(sampled(np.full((180, 600), np.nan, np.float32), (60, 200))).all()


@pytest.mark.parametrize('size', [(96, 128), (720, 960)])
def test_noise_is_as_strong_at_the_network_whatever_the_camera(size):
    """At the camera's own pixels the resize would average it away."""
    frame = Frame(
        np.full((*size, 3), 128, np.uint8),
        np.ones(size, np.float32),
        Intrinsics.from_fov(70, size[1], size[0]),
    )
    noise = replace(NOTHING, noise=1.0)
    samples = TrainingSamples([frame], (96, 128), MODEL, RangeConfig(), noise, 0, 40)
    deviation = np.mean([samples[n][0].float().std().item() for n in range(40)])
    assert 3.5 < deviation < 5.5  # of 1 to 8

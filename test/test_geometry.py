"""Intrinsics under resize, crop and unprojection."""

import numpy as np
import pytest

from dar_ros.geometry import Intrinsics, unproject
from dar_ros.preprocess import PAD_COLOR, ResizeSpec, canonical_scale, prepare, restore


def test_field_of_view():
    camera = Intrinsics.from_fov(90, 640, 480)
    assert camera.fx == camera.fy == pytest.approx(320)
    assert (camera.cx, camera.cy) == (319.5, 239.5)


def test_a_centred_camera_is_its_own_mirror_image():
    camera = Intrinsics.centered(300, 640, 480)
    assert camera == Intrinsics(300, 300, 319.5, 239.5) == camera.mirrored(640)


def test_a_mirrored_camera_sees_the_same_point_on_the_other_side():
    camera = Intrinsics(400, 420, 300, 250)
    mirror, x = camera.mirrored(640), 101.0
    assert (639 - x - mirror.cx) / mirror.fx == -(x - camera.cx) / camera.fx
    assert mirror.mirrored(640) == camera and mirror.cy == camera.cy


def test_resize_keeps_rays():
    """
    The ray of a scene point is the same before and after; the image's borders map onto each other.
    """
    camera = Intrinsics(400, 420, 300, 250)
    x, y = 101.0, 57.0
    for sx, sy in ((0.5, 0.5), (0.5, 0.2), (1.0, 3.0)):
        small = camera.scale(sx, sy)
        x_small, y_small = (x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5
        assert (x_small - small.cx) / small.fx == pytest.approx((x - camera.cx) / camera.fx)
        assert (y_small - small.cy) / small.fy == pytest.approx((y - camera.cy) / camera.fy)
    assert camera.scale(0.5) == camera.scale(0.5, 0.5)


def test_crop_moves_the_principal_point():
    assert Intrinsics(400, 400, 300, 250).crop(10, -5) == Intrinsics(400, 400, 290, 255)


def test_unprojection_of_a_known_point():
    """REP 103: x right, y down, z forward."""
    depth = np.full((4, 6), 2.0, np.float32)
    points = unproject(depth, Intrinsics(2.0, 4.0, 1.0, 1.0))
    assert points.shape == (4, 6, 3)
    assert points[3, 5].tolist() == [2.0 * (5 - 1) / 2, 2.0 * (3 - 1) / 4, 2.0]
    assert points[1, 1].tolist() == [0, 0, 2]


def test_unprojection_with_a_stride_takes_the_same_points():
    depth = np.random.default_rng(0).uniform(1, 5, (7, 11)).astype(np.float32)
    camera = Intrinsics(5, 6, 4, 3)
    assert np.array_equal(unproject(depth, camera, 3), unproject(depth, camera)[::3, ::3])


@pytest.mark.parametrize(
    'size', [(480, 640), (640, 480), (720, 1280), (97, 333), (192, 256), (20, 30)]
)
def test_any_image_fits_and_comes_back(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    network, spec = prepare(image, (192, 256))
    assert network.shape == (192, 256, 3) and network.dtype == np.uint8
    assert spec.content_size[0] == 192 or spec.content_size[1] == 256
    assert restore(np.zeros((192, 256), np.float32), spec).shape == size
    outside = np.ones((192, 256), bool)
    outside[spec.window] = False
    assert (network[outside] == PAD_COLOR).all()


def test_resize_is_isotropic():
    spec = ResizeSpec.fit((720, 1280), (192, 256))
    assert spec.scale == pytest.approx(0.2)
    assert spec.content_size == (144, 256) and (spec.top, spec.left) == (24, 0)


def test_canonical_scale_is_the_ratio_of_focal_lengths():
    spec = ResizeSpec.fit((480, 640), (192, 256))
    assert canonical_scale(Intrinsics(550, 550, 0, 0), spec, 220) == pytest.approx(
        220 / (550 * 0.4)
    )
    assert canonical_scale(Intrinsics(275, 1100, 0, 0), spec, 220) == pytest.approx(
        220 / (550 * 0.4)
    )
    assert canonical_scale(None, spec, 220) == 1.0


@pytest.mark.parametrize('size', [(720, 1280), (640, 480)])
def test_depth_comes_back_to_the_pixels_it_is_of(size):
    """Maps that code the image's rows and columns; nothing of the padding gets in."""
    spec = ResizeSpec.fit(size, (192, 256))
    for axis, begin in enumerate((spec.top, spec.left)):
        network = np.full((192, 256), np.nan, np.float32)
        places = (np.indices((192, 256))[axis] - begin + 0.5) / spec.scale - 0.5
        network[spec.window] = places[spec.window]
        error = np.abs(restore(network, spec) - np.indices(size)[axis])
        assert error.max() <= 0.5 / spec.scale  # at the borders; NaN is not

"""The bundled model through the line without ROS."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from dar_ros.backends import open_backend
from dar_ros.backends.base import self_test
from dar_ros.bundle import BEYOND, TOO_NEAR
from dar_ros.errors import BackendError, FrameError, UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthPipeline, DepthSettings


@pytest.fixture(scope='module')
def image(bundle):
    return bundle.reference()['image'][0]


def camera(width, height, fov=60):
    return Intrinsics.from_fov(fov, width, height)


def test_self_test_passes_and_notices_wrong_depth(bundle):
    backend = open_backend(bundle)
    finish = backend.finish

    def wrong():
        result = finish()
        result.depth *= 1.05
        return result

    backend.finish = wrong
    with pytest.raises(BackendError, match='self-test: step 1'):
        self_test(backend)


@pytest.mark.parametrize('size', [(480, 640), (640, 480), (360, 640), (75, 101)])
def test_any_size_comes_back_at_its_own(pipeline, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    frame = pipeline(image, camera(size[1], size[0]))
    assert frame.depth.shape == frame.sigma.shape == size
    assert frame.depth.dtype == frame.sigma.dtype == np.float32
    finite = np.isfinite(frame.depth)
    near, far = pipeline.bundle.depth_range
    assert (frame.depth[finite] >= near).all() and (frame.depth[finite] <= far).all()
    assert (frame.sigma[finite] > 0).all() and np.isnan(frame.sigma[~finite]).all()
    assert frame.steps == pipeline.bundle.num_steps


def test_fewer_steps_equal_the_first_ones(pipeline, image):
    intrinsics = camera(256, 192)
    every = list(pipeline.per_step(image, intrinsics))
    assert [frame.steps for frame in every] == list(range(1, pipeline.bundle.num_steps + 1))
    for frame in every:
        short = pipeline(image, intrinsics, DepthSettings(num_steps=frame.steps))
        assert short.steps == frame.steps
        assert np.array_equal(short.depth, frame.depth, equal_nan=True)
    assert not np.array_equal(every[0].depth, every[-1].depth)


class Spy:
    """A backend that remembers the ranges it was given."""

    def __init__(self, backend):
        self.bundle, self.step, self.finish = backend.bundle, backend.step, backend.finish
        self._start, self.ranges = backend.start, []

    def start(self, image, depth_min, depth_max):
        self.ranges.append((depth_min, depth_max))
        self._start(image, depth_min, depth_max)


def test_the_network_receives_the_range_in_its_canonical_camera(pipeline, image):
    """
    The near limit is the model's whatever a user sets, so that it tells the lens and nothing else;
    the calibration factor belongs to the user's metres.
    """
    spy = Spy(pipeline.backend)
    of = DepthPipeline(spy)
    near, focal = pipeline.bundle.depth_range[0], pipeline.bundle.canonical_focal
    for length, settings, far in (
        (focal, DepthSettings(depth_max=10), 10),
        (focal, DepthSettings(depth_min=1, depth_max=10), 10),
        (focal, DepthSettings(depth_max=10, depth_scale=2), 5),
    ):
        for times in (1, 2):
            of(image, Intrinsics(times * length, times * length, 127.5, 95.5), settings)
            assert spy.ranges[-1] == pytest.approx((near / times, far / times))


def test_depth_scale_is_a_factor_on_depth_and_sigma(pipeline, image):
    plain = pipeline(image, camera(256, 192), DepthSettings(depth_max=10))
    scaled = pipeline(
        image, camera(256, 192), DepthSettings(depth_min=0.11, depth_max=11, depth_scale=1.1)
    )
    assert np.allclose(scaled.depth, 1.1 * plain.depth, rtol=1e-4)
    assert np.allclose(scaled.sigma, 1.1 * plain.sigma, rtol=1e-4, equal_nan=True)


def test_every_step_has_its_own_factor_on_sigma(pipeline, image):
    steps = pipeline.bundle.num_steps
    spy = Spy(pipeline.backend)
    spy.bundle = copy.copy(pipeline.bundle)
    sigmas = []
    for factors in ([1.0] * steps, [float(k) for k in range(1, steps + 1)]):
        spy.bundle.manifest = {**pipeline.bundle.manifest, 'sigma_factors': factors}
        frames = DepthPipeline(spy).per_step(image, camera(256, 192), DepthSettings())
        sigmas.append([frame.sigma for frame in frames])
    for k, (plain, told) in enumerate(zip(*sigmas), 1):
        assert np.allclose(told, k * plain, rtol=1e-5, equal_nan=True)


def test_depth_max_moves_the_far_limit(pipeline, image):
    frame = pipeline(image, camera(256, 192), DepthSettings(depth_max=1.0))
    finite = frame.depth[np.isfinite(frame.depth)]
    assert finite.size == 0 or finite.max() <= 1.0


def test_missing_intrinsics_and_untrained_range_are_warned_of(pipeline, image):
    assert any('intrinsics' in text for text in pipeline(image).warnings)
    assert not pipeline(image, camera(256, 192)).warnings
    wide = pipeline(image, camera(256, 192), DepthSettings(depth_max=900))
    assert any('trained' in text for text in wide.warnings)
    # Of a long lens the near limit, too, lies nearer in the canonical camera than any trained.
    near, focal = pipeline.bundle.depth_range[0], pipeline.bundle.canonical_focal
    for share, warned in ((1.1, False), (0.9, True)):
        long = focal * near / (share * pipeline.bundle.trained_span[0])
        tele = pipeline(image, Intrinsics(long, long, 127.5, 95.5), DepthSettings(depth_max=5))
        assert any('trained' in text for text in tele.warnings) == warned


@pytest.mark.parametrize(
    'bad',
    [
        {'num_steps': 99},
        {'num_steps': -1},
        {'depth_min': 5, 'depth_max': 2},
        {'depth_min': -1},
        {'depth_min': 0.05},  # nearer than the model sees
        {'depth_scale': 0},
        {'depth_scale': 60, 'depth_max': 5},  # nothing could be nearer than depth_max
        {'beyond_range': 'maybe'},
        {'latency_budget_ms': -1},
        {'depth_max': float('nan')},
    ],
)
def test_bad_settings_are_refused(pipeline, image, bad):
    with pytest.raises(UsageError):
        pipeline(image, None, replace(DepthSettings(), **bad))


@pytest.mark.parametrize(
    'bad',
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_bad_images_are_refused_and_the_next_is_served(pipeline, image, bad):
    with pytest.raises(FrameError):
        pipeline(bad)
    assert pipeline(image).depth.shape == (192, 256)


def test_a_step_too_many_is_refused(bundle, image):
    backend = open_backend(bundle)
    with pytest.raises(BackendError):
        backend.step()
    backend.start(image, 0.1, 10)
    for _ in range(bundle.num_steps):
        backend.step()
    with pytest.raises(BackendError):
        backend.step()


def test_what_is_nearer_than_depth_min_is_so_called(pipeline):
    """Not lifted to depth_min, where an obstacle would stand too far away."""
    image = pipeline.bundle.reference()['image'][0]
    camera = Intrinsics(220, 220, 127.5, 95.5)
    depth = pipeline(image, camera).depth
    limit = float(np.median(depth[np.isfinite(depth)]))
    limited = pipeline(image, camera, DepthSettings(depth_min=limit)).depth
    np.testing.assert_array_equal(limited, np.where(depth < limit, -np.inf, depth))


@pytest.mark.parametrize('field', ['depth', 'scale'])
def test_what_the_network_gives_no_number_for_is_invalid_and_told(bundle, image, field):
    """fp16 that overflows on one image: whatever its class says, no sky and no obstacle."""
    backend = open_backend(bundle)
    finish = backend.finish

    def spoiled():
        prediction = finish()
        values = getattr(prediction, field).copy()
        values[:96, :64] = np.nan
        classes = prediction.range_class.copy()
        classes[:48], classes[48:96] = BEYOND, TOO_NEAR
        return replace(prediction, range_class=classes, **{field: values})

    backend.finish = spoiled
    frame = DepthPipeline(backend)(image, camera(256, 192))
    assert np.isnan(frame.depth[:96, :64]).all() and np.isnan(frame.sigma[:96, :64]).all()
    assert np.isposinf(frame.depth[:48, 70:]).all()
    assert frame.warnings == ('the network gives no number for 12.5% of its pixels',)

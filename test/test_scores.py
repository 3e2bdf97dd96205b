"""What `dar evaluate` and `dar calibrate` make of a pipeline whose errors are known."""

import numpy as np
import pytest

from dar_ros.datasets.frames import Frame
from dar_ros.errors import UsageError
from dar_ros.evaluation.calibrate import fit_depth_scale
from dar_ros.evaluation.evaluate import evaluate
from dar_ros.evaluation.metrics import ause, bootstrap_interval
from dar_ros.geometry import Intrinsics

RNG = np.random.default_rng(5)


class Told:
    """A pipeline that says the truth times a factor, with a sigma, as told by the test."""

    def __init__(self, pipeline, frames, factor):
        self.bundle, self.backend, self.factor = pipeline.bundle, pipeline.backend, factor
        self.truth = {frame.image.tobytes(): frame.depth for frame in frames}

    def __call__(self, image, intrinsics, settings):
        from dar_ros.pipeline import DepthFrame

        depth = self.truth[np.ascontiguousarray(image).tobytes()] * self.factor
        return DepthFrame(depth, 0.2 * depth, intrinsics, 1)

    def per_step(self, image, intrinsics, settings):
        steps = settings.num_steps or self.bundle.num_steps
        return [self(image, intrinsics, settings) for _ in range(steps)]


def made_frames():
    frames = []
    for i in range(4):
        image = np.full((12, 16, 3), i, np.uint8)
        depth = np.full((12, 16), 1.5 + i, np.float32)
        frames.append(Frame(image, depth, Intrinsics.from_fov(70, 16, 12)))
    return frames


def test_the_report_of_a_model_that_is_off_by_a_factor(pipeline):
    """Depth 25 % too far: abs_rel 0.25, d1 0 at its border, nothing after median scaling."""
    frames = made_frames()
    report = evaluate(Told(pipeline, frames, 1.25), frames, progress=False)
    assert report['abs_rel'] == pytest.approx(0.25, abs=1e-6)
    assert report['abs_rel_median_scaled'] == pytest.approx(0, abs=1e-6)
    assert report['within_sigma'] == 1.0  # the error is sigma
    assert report['abs_rel_interval'] == pytest.approx([0.25, 0.25], abs=1e-6)
    by_depth = {b['from']: b for b in report['abs_rel_by_depth']}
    assert by_depth[1]['pixels'] == 12 * 16 and by_depth[3]['pixels'] == 2 * 12 * 16
    assert by_depth[1]['abs_rel'] == pytest.approx(0.25, abs=1e-6)
    assert by_depth[20]['abs_rel'] is None


def test_mirrored_images_are_averaged(pipeline):
    """1 to 1.5 m from left to right, in the mirror image the same things at 3 to 2.5 m: 2 m."""
    ramp = np.tile(np.linspace(0, 0.5, 16, dtype=np.float32), (12, 1))

    class Two(Told):
        def __call__(self, image, intrinsics, settings):
            frame = super().__call__(np.sort(image, 1), intrinsics, settings)
            frame.depth = 1 + ramp if image[0, 0, 0] == 0 else 3 - ramp[:, ::-1]
            self.principal = intrinsics.cx
            return frame

    image = np.repeat(np.repeat(np.arange(16, dtype=np.uint8)[None, :, None], 12, 0), 3, 2)
    frame = Frame(image, np.full((12, 16), 2.0, np.float32), Intrinsics(10, 10, 5, 6))
    told = Two(pipeline, [frame], 1.0)
    assert evaluate(told, [frame], progress=False)['abs_rel'] == pytest.approx(0.375)
    averaged = evaluate(told, [frame], progress=False, flip=True)
    assert averaged['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert told.principal == 10


def test_ause_by_hand():
    error = np.array([4.0, 1.0, 3.0, 2.0])
    assert ause(error, error, 4) == 0
    # Kept 4, 3, 2, 1 of the wrong order: means 2.5, 3, 3.5, 4; of the right one: 2.5, 2, 1.5, 1.
    assert ause(error, -error, 4) == pytest.approx(np.mean([0, 1, 2, 3]))


def test_the_bootstrap_covers_the_mean_and_narrows():
    few, many = (bootstrap_interval(list(RNG.normal(1, 0.5, n))) for n in (10, 1000))
    assert few[0] < 1.2 and few[1] > 0.8
    assert many[1] - many[0] < 0.5 * (few[1] - few[0])
    assert bootstrap_interval([]) is None


def test_calibrate_finds_the_factor(pipeline):
    frames = made_frames()
    report = fit_depth_scale(Told(pipeline, frames, 0.8), frames, progress=False)
    assert report['depth_scale'] == pytest.approx(1.25)
    assert report['abs_rel_before'] == pytest.approx(0.2)
    assert report['abs_rel_after'] == pytest.approx(0, abs=1e-6)
    assert report['frames'] == 4 and report['warnings'] == []
    (warning,) = fit_depth_scale(Told(pipeline, frames, 0.2), frames, progress=False)['warnings']
    assert warning['example'].startswith('a factor of 5 is more than a camera needs')
    for frame in frames:
        frame.depth[:] = np.nan
    with pytest.raises(UsageError, match='no frame has depth .* is it in metres'):
        evaluate(Told(pipeline, frames, 0.8), frames, progress=False)
    with pytest.raises(UsageError, match='no frame has depth'):
        fit_depth_scale(Told(pipeline, frames, 0.8), frames, progress=False)


def test_calibrate_looks_at_all_of_a_recording(pipeline):
    """A drive whose second half needs another factor: two frames of four see both halves."""
    frames = made_frames()
    told = Told(pipeline, frames, 1.0)
    for frame in frames[2:]:
        told.truth[frame.image.tobytes()] = frame.depth / 1.5
    report = fit_depth_scale(told, frames, count=2, progress=False)
    assert report['low'] == pytest.approx(1.05) and report['high'] == pytest.approx(1.45)

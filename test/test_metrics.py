"""
Metrics against values worked out by hand; evaluation against a predictor whose errors are known.
"""

import math

import numpy as np
import pytest

from dar_ros.backends.base import Backend, Prediction
from dar_ros.evaluation.evaluate import evaluate, row_median_depth
from dar_ros.evaluation.metrics import depth_metrics, mean_metrics
from dar_ros.evaluation.report import table
from dar_ros.geometry import Intrinsics
from dar_ros.pipeline import DepthPipeline


def test_metrics_by_hand():
    depth, truth = np.array([[2.0, 4.0, 9.9]]), np.array([[1.0, 5.0, 1.0]])
    found = depth_metrics(depth, truth, np.array([[True, True, False]]))
    logs = [math.log(2), math.log(0.8)]
    assert found['abs_rel'] == pytest.approx((1.0 + 0.2) / 2)
    assert found['rmse'] == pytest.approx(1.0)
    assert found['log10'] == pytest.approx((math.log10(2) + math.log10(1.25)) / 2)
    assert found['silog'] == pytest.approx(100 * abs(logs[0] - logs[1]) / 2)
    assert (found['d1'], found['d2'], found['d3']) == (
        0,
        0.5,
        0.5,
    )  # 1.25 itself is not below 1.25


def test_a_perfect_prediction():
    depth = np.random.default_rng(0).uniform(1, 5, (4, 4))
    found = depth_metrics(depth, depth, np.ones((4, 4), bool))
    assert found['abs_rel'] == found['rmse'] == found['silog'] == 0 and found['d1'] == 1


def test_mean_is_over_images():
    assert mean_metrics([])['abs_rel'] is None
    rows = [
        depth_metrics(np.full((n, 1), 1.0 + e), np.ones((n, 1)), np.ones((n, 1), bool))
        for n, e in ((1, 0.1), (9, 0.3))
    ]
    assert mean_metrics(rows)['abs_rel'] == pytest.approx(0.2)


class KnownBackend(Backend):
    """Says 2 m everywhere, 10 % more before the last step, and `beyond` in the upper half."""

    name = 'known'

    def start(self, image, depth_min, depth_max):
        self._step = 0

    def step(self):
        self._step += 1

    def finish(self):
        size = self.bundle.input_size
        depth = np.full(size, 2.0 if self._step == self.bundle.num_steps else 2.2, np.float32)
        classes = np.ones(size, np.uint8)
        classes[: size[0] // 2] = 2
        return Prediction(depth, classes, np.full(size, 0.1, np.float32), self._step)


class Frame:
    """A canonical camera's view: sky above, a floor at 2 m or nothing known below."""

    def __init__(self, bundle, known=True):
        rows, columns = bundle.input_size
        self.image = np.zeros((rows, columns, 3), np.uint8)
        self.depth = np.full((rows, columns), 2.0, np.float32)
        self.depth[: rows // 2] = np.inf if known else 2.0
        self.intrinsics = Intrinsics(
            bundle.canonical_focal, bundle.canonical_focal, columns / 2, rows / 2
        )


def test_evaluation_of_known_errors(bundle):
    report = evaluate(DepthPipeline(KnownBackend(bundle)), [Frame(bundle)] * 3, progress=False)
    assert report['abs_rel'] == pytest.approx(0, abs=1e-6) and report['frames'] == 3
    assert [row['abs_rel'] for row in report['per_step']] == pytest.approx(
        [0.1] * (bundle.num_steps - 1) + [0.0], abs=1e-6
    )
    assert report['valid'] == 1 and report['counts']
    assert report['beyond_precision'] == report['beyond_recall'] == 1
    assert report['within_sigma'] == 1


def test_unscored_pixels_are_counted(bundle):
    report = evaluate(
        DepthPipeline(KnownBackend(bundle)), [Frame(bundle, known=False)], progress=False
    )
    assert report['valid'] == pytest.approx(0.5) and not report['counts']
    assert [row['valid'] for row in report['per_step']] == pytest.approx([0.5] * bundle.num_steps)
    # 20 m, the range's end, where the truth is 2 m in half of the pixels: errors of 9 and 0.
    assert report['abs_rel'] == pytest.approx(0, abs=1e-6)
    assert report['clamped']['abs_rel'] == pytest.approx(4.5)


def test_beyond_by_what_was_said_and_by_what_was_there(bundle):
    """The upper half is called beyond, and a quarter of the image is: half of that is right."""
    frame = Frame(bundle)
    frame.depth[bundle.input_size[0] // 4 : bundle.input_size[0] // 2] = 2.0
    report = evaluate(DepthPipeline(KnownBackend(bundle)), [frame], progress=False)
    assert (report['beyond_precision'], report['beyond_recall']) == (0.5, 1.0)


def test_nothing_is_said_of_beyond_where_nothing_is_known_of_it(bundle):
    """Of a data set with a cap: what lies farther has no depth, and can confirm nothing."""
    frame = Frame(bundle, known=False)
    frame.depth[: bundle.input_size[0] // 4] = np.nan
    report = evaluate(DepthPipeline(KnownBackend(bundle)), [frame], progress=False)
    assert report['beyond_precision'] is report['beyond_recall'] is None


def test_a_frame_of_nothing_but_sky_counts_for_beyond(bundle):
    """Half of it is called beyond; it has no depth to score."""
    sky = Frame(bundle)
    sky.depth[:] = np.inf
    report = evaluate(DepthPipeline(KnownBackend(bundle)), [Frame(bundle), sky], progress=False)
    assert report['beyond_recall'] == pytest.approx(2 / 3) and report['frames'] == 1


def test_warnings_of_the_pipeline_are_reported(bundle):
    """Those of other numbers as one, with one of them as an example."""
    frames = [Frame(bundle) for _ in range(3)]
    frames[0].intrinsics, frames[1].intrinsics = (
        Intrinsics(f, f, 10, 10) for f in (9000.0, 9100.0)
    )
    report = evaluate(DepthPipeline(KnownBackend(bundle)), frames, progress=False)
    (warning,) = report['warnings']
    assert warning['frames'] == 2 and 'outside the trained' in warning['example']
    assert 'warning in 2 frames: the depth range is' in table(report)


def test_a_frame_without_any_answer_leaves_the_other_figures(bundle):
    nothing = Frame(bundle, known=False)
    nothing.depth[bundle.input_size[0] // 2 :] = np.nan  # valid only where `beyond` is answered
    report = evaluate(
        DepthPipeline(KnownBackend(bundle)), [Frame(bundle), nothing], progress=False
    )
    assert report['frames'] == 2 and report['valid'] == pytest.approx(0.5)
    assert report['within_sigma'] == 1 and report['abs_rel'] == pytest.approx(0, abs=1e-6)


def test_baseline_knows_the_camera(bundle):
    """The same row seen with twice the focal length is twice as far."""
    size = tuple(bundle.input_size)
    near, far = (row_median_depth(bundle, size, Intrinsics(f, f, 0, 0)) for f in (200.0, 400.0))
    assert np.allclose(far, 2 * near)
    at_home = row_median_depth(
        bundle, size, Intrinsics(bundle.canonical_focal, bundle.canonical_focal, 0, 0)
    )
    assert np.allclose(at_home[:, 0], bundle.baseline_row_medians)

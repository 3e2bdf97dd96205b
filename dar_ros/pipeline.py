"""The line without ROS: image and intrinsics in, metric depth and uncertainty out."""

import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from dar_ros.backends import cuda, open_backend
from dar_ros.bundle import is_checkpoint, open_bundle
from dar_ros.console import say
from dar_ros.errors import FrameError, UsageError, forget_frames
from dar_ros.geometry import Intrinsics
from dar_ros.postprocess import BEYOND_RANGE, finite_pixels, real_depth
from dar_ros.preprocess import canonical_scale, prepare
from dar_ros.scheduler import StepScheduler

WARM_UPS = 2  # frames through every step before the first is served


@dataclass(frozen=True)
class DepthSettings:
    """What may change from frame to frame; zeros stand for the model's own values."""

    num_steps: int = 0
    depth_min: float = 0.0  # metres
    depth_max: float = 0.0  # metres
    depth_scale: float = 1.0  # calibration factor on depth and sigma
    beyond_range: str = 'inf'
    max_relative_uncertainty: float = 0.0
    latency_budget_ms: float = 0.0  # 0: off

    def resolve(self, bundle):
        """
        Return (steps, (near, far)) in force for a bundle; UsageError with the reason if they make
        no sense.
        """
        steps = self.num_steps or bundle.num_steps
        near, far = (
            self.depth_min or bundle.depth_range[0],
            self.depth_max or bundle.depth_range[1],
        )
        if not 1 <= steps <= bundle.num_steps:
            raise UsageError(
                f'num_steps {steps} is not within 1..{bundle.num_steps} of {bundle.name}'
            )
        if not 0 < near < far < np.inf:
            raise UsageError(f'depth range [{near}, {far}] m: 0 < depth_min < depth_max is needed')
        if near < bundle.depth_range[0]:
            raise UsageError(
                f'depth_min {near} m: {bundle.name} sees nothing nearer than '
                f'{bundle.depth_range[0]} m'
            )
        if not 0 < self.depth_scale < np.inf:
            raise UsageError(f'depth_scale {self.depth_scale} must be above 0')
        nearest = bundle.depth_range[0] * self.depth_scale
        if nearest >= far:
            raise UsageError(
                f'depth_max {far} m: by depth_scale {self.depth_scale} {bundle.name} sees nothing '
                f'nearer than {nearest:g} m'
            )
        if self.beyond_range not in BEYOND_RANGE:
            raise UsageError(
                f'beyond_range {self.beyond_range!r} is none of {", ".join(BEYOND_RANGE)}'
            )
        if self.max_relative_uncertainty < 0 or self.latency_budget_ms < 0:
            raise UsageError('max_relative_uncertainty and latency_budget_ms must not be negative')
        return steps, (near, far)


@dataclass
class DepthFrame:
    """Depth of one image; see postprocess.real_depth for what is not finite."""

    depth: np.ndarray  # float32 (H, W), metres along optical Z
    sigma: np.ndarray  # float32 (H, W), metres, one standard deviation
    intrinsics: Intrinsics  # of the image; None if unknown
    steps: int
    timings: dict = field(default_factory=dict)  # stage -> seconds
    warnings: tuple = ()


class DepthPipeline:
    """One backend and the code around it. Not thread-safe: one thread owns it."""

    def __init__(self, backend, clock=time.perf_counter):
        self.backend, self.bundle = backend, backend.bundle
        self._clock, self._scheduler = clock, StepScheduler()

    def __call__(self, image, intrinsics=None, settings=DepthSettings(), began=None):
        """
        RGB uint8 (H, W, 3) -> DepthFrame at the image's size.

        Without intrinsics the canonical camera is assumed, and a warning says so. The latency
        budget counts from `began`, a reading of the clock (time.perf_counter), by default now:
        what the caller did for this frame before is then inside the budget.
        """
        return next(self._run(image, intrinsics, settings, False, began))

    def per_step(self, image, intrinsics=None, settings=DepthSettings()):
        """Yield the DepthFrame of every step: what evaluation compares."""
        yield from self._run(image, intrinsics, settings, every_step=True)

    def record_publish(self, seconds):
        """
        Tell how long the caller needed for the last frame after this pipeline: the latency budget
        then leaves room for as much.
        """
        self._scheduler.record('publish', seconds)

    def warm_up(self):
        """
        Take every step of the bundle's reference image, so that the budget of the first frame is
        kept by known times.
        """
        image = self.bundle.reference()['image'][0]
        for _ in range(WARM_UPS):
            self(image)

    def _run(self, image, intrinsics, settings, every_step, began=None):
        bundle, clock, timings = self.bundle, self._clock, {}
        steps, depth_range = settings.resolve(bundle)
        before = clock()
        began = before if began is None else began

        def timed(stage):
            nonlocal before
            now = clock()
            timings[stage] = timings.get(stage, 0.0) + now - before
            self._scheduler.record(stage, now - before)
            before = now

        def finish():
            prediction = self.backend.finish()
            timed('upsample')
            depth, sigma = real_depth(
                prediction,
                spec,
                scale,
                depth_range,
                bundle.sigma_factors[prediction.step - 1],
                settings.beyond_range,
                settings.max_relative_uncertainty,
            )
            timed('postprocess')
            warnings = tuple(self._warnings(intrinsics, canonical_range, prediction))
            return DepthFrame(depth, sigma, intrinsics, prediction.step, dict(timings), warnings)

        _check_image(image)
        self._scheduler.begin(image.shape[:2])
        network_image, spec = prepare(image, bundle.input_size)
        scale, canonical_range = self._canonical(intrinsics, spec, depth_range[1], settings)
        timed('preprocess')
        self.backend.start(network_image, *canonical_range)
        timed('encode')
        budget = settings.latency_budget_ms / 1000
        for step in range(1, steps + 1):
            if step > 1 and budget and not self._scheduler.fits(clock() - began, step, budget):
                break
            self.backend.step()
            timed(f'step_{step}')
            if every_step:
                yield finish()
                before = clock()  # what the caller did meanwhile is no part of the next step
        if not every_step:
            yield finish()

    def _canonical(self, intrinsics, spec, far, settings):
        """
        Return canonical over real metres, with the calibration factor, and the network's range in
        canonical metres, up to `far` real ones.
        """
        scale = canonical_scale(intrinsics, spec, self.bundle.canonical_focal)
        # The near limit is the network's own: it tells the lens, and told of a farther one the
        # network lifts what is nearer to it. What a user asks for, postprocessing compares.
        near = self.bundle.depth_range[0] * scale
        scale /= settings.depth_scale  # the factor makes real metres longer
        return scale, (near, far * scale)

    def _warnings(self, intrinsics, canonical_range, prediction):
        # The self-test at start is of one image: fp16 may overflow on another.
        found = finite_pixels(prediction)
        if not found.all():
            yield f'the network gives no number for {1 - found.mean():.1%} of its pixels'
        if intrinsics is None:
            yield 'no intrinsics: the scale of the depth is assumed'
        near, far = self.bundle.trained_span
        if canonical_range[0] < 0.999 * near or canonical_range[1] > 1.001 * far:
            yield (
                f'the depth range is [{canonical_range[0]:.2f}, {canonical_range[1]:.1f}] m in '
                f'the canonical camera, outside the trained [{near:.2f}, {far:.1f}] m'
            )


def _check_image(image):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise FrameError(f'expected an RGB uint8 image (H, W, 3), not {image.dtype} {image.shape}')


def open_pipeline(
    model=None, backend='auto', precision='auto', threads=None, progress=None, skip=()
):
    """
    Open a bundle folder (None: the bundled model) on a backend, see open_backend, and warm it up;
    or the checkpoint folder of a training run, which only torch serves.
    """
    if not is_checkpoint(model):
        loaded = open_backend(open_bundle(model), backend, precision, threads, progress, skip)
    elif backend in ('auto', 'torch') and 'torch' not in skip:
        from dar_ros.model.served import CheckpointBundle

        loaded = open_backend(CheckpointBundle(model), 'torch', precision, threads)
    else:
        raise UsageError(f'{model} is a checkpoint: torch serves it; {backend} needs `dar export`')
    pipeline = DepthPipeline(loaded)
    try:
        pipeline.warm_up()
    except BaseException as error:
        forget_frames(error)
        loaded.close()
        raise
    return pipeline


@contextmanager
def opened(model, backend='auto'):
    """
    Pipeline of a model while the block lasts; stderr is told of engines that are built and, where
    there is an NVIDIA driver, of what was passed over.
    """
    pipeline = open_pipeline(model, backend, progress=say)
    try:
        if cuda.has_driver():  # elsewhere nobody awaits another backend
            for note in pipeline.backend.notes:
                say(note)
        yield pipeline
    finally:
        pipeline.backend.close()  # what TensorRT made must go before the GPU's context does

"""
The contract of every backend: encode an image, take steps one at a time, finish after any of them.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from dar_ros.bundle import IN_RANGE
from dar_ros.errors import BackendError

PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')
SELF_TEST_TOLERANCE = 0.01  # relative depth: of a pixel that is right, and of the mean error
SELF_TEST_SHARES = 0.99, 0.9  # of pixels that must be right: after step 1, after later ones
SCALE_TOLERANCE = 0.1  # relative uncertainty
# What a step hands on: {input of step.onnx: the output of the step before that it gets}.
HANDED_ON = {
    'latent': 'next_latent',
    'low': 'next_low',
    'high': 'next_high',
    'past_keys': 'keys',
    'past_values': 'values',
}


@dataclass
class Prediction:
    """What the network says after `step` steps, at its input's size (h, w)."""

    depth: np.ndarray  # float32, canonical metres
    range_class: np.ndarray  # uint8: TOO_NEAR, IN_RANGE, BEYOND of dar_ros.bundle
    scale: np.ndarray  # float32, Laplace scale of the error of log depth
    step: int


class Backend(ABC):
    """
    One loaded model. Not thread-safe: one thread owns it.

    Order: start, step (1..K times), finish (after any step), start, ...

    `precision` is what it computes in, `library` by what and of which version, `on_gpu` whether on
    the GPU; `notes` are lines for people: what was passed over, and
    why; `refused` those of them that are of better backends.
    """

    name, precision, notes, refused = '', 'fp32', (), ()
    library, on_gpu = '', False

    def __init__(self, bundle):
        self.bundle = bundle
        self._steps = None  # taken of the image; None before the first image

    @abstractmethod
    def start(self, image, depth_min, depth_max):
        """
        Encode RGB uint8 (h, w, 3) of the bundle's input size; the range is in canonical metres.
        """

    @abstractmethod
    def step(self):
        """Take one autoregressive step; BackendError after the K-th."""

    @abstractmethod
    def finish(self):
        """
        Return the Prediction of the last step taken. Arrays may be reused by the next `start`.
        """

    def close(self):
        """Free what the backend holds; by default nothing."""
        return None

    def _next_step(self):
        """Index of the step to take, from 0; BackendError if there is none."""
        if self._steps is None:
            raise BackendError('a step before the first image: start an image first')
        if self._steps == self.bundle.num_steps:
            raise BackendError(f'all {self._steps} steps are taken: start the next image')
        return self._steps

    def _last_step(self):
        """Index of the last step taken, from 0; BackendError if none was."""
        if not self._steps:
            raise BackendError('finish before the first step')
        return self._steps - 1

    def _in_bin_space(self, depth):
        """Where a depth, canonical metres, lies in the space of the windows."""
        return math.log(depth) if self.bundle.bin_space == 'log' else depth


def check_image(bundle, image):
    """Raise BackendError unless an image is what the network takes."""
    if image.shape != (*bundle.input_size, 3) or image.dtype != np.uint8:
        raise BackendError(
            f'the network takes uint8 {(*bundle.input_size, 3)}, not {image.dtype} {image.shape}'
        )


def self_test(backend):
    """
    Replay the bundle's reference image; BackendError unless every step says what the reference
    says: the same pixels beyond range or too near, the same depth of all others, and about the
    same uncertainty.

    After step 1, 99 % of the pixels lie within 1 %: loose enough for fp16, far from what a
    miscompiled graph gives. Later a window may tip over at a bin's edge, by less than that, and
    move the pixels around it by a few percent: then 90 %, and a mean error of at most 1 %.
    """
    reference = backend.bundle.reference()
    backend.start(
        reference['image'][0], float(reference['depth_min'][0]), float(reference['depth_max'][0])
    )
    for k, expected in enumerate(reference['depth']):
        backend.step()
        found = backend.finish()
        with np.errstate(invalid='ignore'):
            error = np.abs(found.depth - expected) / expected
        right, in_range = error <= SELF_TEST_TOLERANCE, np.full(expected.shape, True)
        if 'range_class' in reference:
            range_class = reference['range_class'][k]
            in_range = range_class == IN_RANGE
            right |= ~in_range & np.isfinite(found.depth)
            right &= found.range_class == range_class
        right &= np.isfinite(found.scale)
        if 'scale' in reference:
            ratio = found.scale / reference['scale'][k].astype(np.float32)
            right &= np.abs(ratio - 1) <= SCALE_TOLERANCE
        share = right.mean()
        error = error[in_range].mean() if in_range.any() else 0.0
        # A mean that is not a number is not right either.
        if share < SELF_TEST_SHARES[k > 0] or not error <= SELF_TEST_TOLERANCE:
            raise BackendError(
                f'{backend.name} in {backend.precision} fails its self-test: step {k + 1} is '
                f'right on {share:.1%} of the pixels; choose another backend or precision'
            )

"""
The contract of every backend: encode an image, take steps one at a time, finish after any of them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from dar_ros.errors import BackendError

TOO_NEAR, IN_RANGE, BEYOND = 0, 1, 2
SELF_TEST_TOLERANCE, SELF_TEST_SHARE = 0.01, 0.99


@dataclass
class Prediction:
    """What the network says after `step` steps, at its input's size (h, w)."""

    depth: np.ndarray  # float32, canonical metres
    range_class: np.ndarray  # uint8: TOO_NEAR, IN_RANGE, BEYOND
    scale: np.ndarray  # float32, Laplace scale of the error of log depth
    step: int


class Backend(ABC):
    """
    One loaded model. Not thread-safe: one thread owns it.

    Order: start, step (1..K times), finish (after any step), start, ...
    """

    name = ''

    def __init__(self, bundle):
        self.bundle = bundle

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


def self_test(backend):
    """
    Replay the bundle's reference image; BackendError unless every step's depth is right.

    99 % of the pixels within 1 %: loose enough for fp16, far from what a miscompiled graph gives.
    """
    reference = backend.bundle.reference()
    backend.start(
        reference['image'][0], float(reference['depth_min'][0]), float(reference['depth_max'][0])
    )
    for k, expected in enumerate(reference['depth']):
        backend.step()
        found = backend.finish().depth
        with np.errstate(invalid='ignore'):
            right = np.abs(found - expected) <= SELF_TEST_TOLERANCE * expected
        if right.mean() < SELF_TEST_SHARE:
            raise BackendError(
                f'{backend.name} fails its self-test: step {k + 1} is right on '
                f'{right.mean():.1%} of the pixels; choose another backend or precision'
            )

"""
Image -> network input, and back: isotropic resize and centred padding; the canonical camera's
scale.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# ImageNet's mean; the bundles were trained with it, whatever their pixel_mean.
PAD_COLOR = (124, 116, 104)


@dataclass(frozen=True)
class ResizeSpec:
    """How an image of `source_size` lies in the network's input; sizes are (rows, columns)."""

    source_size: tuple
    network_size: tuple
    content_size: tuple
    scale: float  # network pixels per source pixel
    top: int
    left: int

    @classmethod
    def fit(cls, source_size, network_size):
        """Largest isotropic fit, centred."""
        height, width = source_size
        scale = min(network_size[0] / height, network_size[1] / width)
        content = (
            min(network_size[0], max(1, round(height * scale))),
            min(network_size[1], max(1, round(width * scale))),
        )
        return cls(
            tuple(source_size),
            tuple(network_size),
            content,
            scale,
            (network_size[0] - content[0]) // 2,
            (network_size[1] - content[1]) // 2,
        )

    @property
    def window(self):
        """Slices of the content in the network's input."""
        return (
            slice(self.top, self.top + self.content_size[0]),
            slice(self.left, self.left + self.content_size[1]),
        )


def prepare(image, network_size):
    """RGB uint8 (H, W, 3) -> network input uint8 (h, w, 3), ResizeSpec."""
    spec = ResizeSpec.fit(image.shape[:2], network_size)
    interpolation = cv2.INTER_AREA if spec.scale < 1 else cv2.INTER_LINEAR
    content = (
        image
        if spec.content_size == spec.source_size
        else cv2.resize(image, spec.content_size[::-1], interpolation=interpolation)
    )
    if spec.content_size == spec.network_size:
        return np.ascontiguousarray(content), spec
    network = np.empty((*spec.network_size, 3), np.uint8)
    network[:] = PAD_COLOR
    network[spec.window] = content
    return network, spec


def restore(array, spec, interpolation=cv2.INTER_LINEAR):
    """Network-size map (h, w) -> (H, W) of the source image: padding cut off, resized back."""
    content = np.ascontiguousarray(array[spec.window])
    if spec.content_size == spec.source_size:
        return content
    return cv2.resize(content, spec.source_size[::-1], interpolation=interpolation)


def canonical_scale(intrinsics, spec, canonical_focal):
    """
    Return s = f_c / f, f the focal length after the resize (Metric3D, ICCV 2023): canonical depth
    = s * metric depth.

    Without intrinsics the canonical camera is assumed: 1.0. A model without a canonical camera
    (`canonical_focal` None) has 1.0 too.
    """
    if intrinsics is None or canonical_focal is None:
        return 1.0
    return canonical_focal / (intrinsics.focal * spec.scale)

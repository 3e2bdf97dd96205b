"""
Training samples: frames of a data set, augmented, in the canonical camera.

Sample n of a run depends on (seed, n) only, whoever loads it: resuming at n is exact.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dar_ros.preprocess import ResizeSpec, canonical_scale, prepare


@dataclass(frozen=True)
class AugmentConfig:
    """What training varies; probabilities and extents."""

    min_crop: float = 0.6  # smallest share of the image's height that a crop keeps
    # Degrees, horizontal: no crop is smaller than a lens of so much would see (before `reshape`).
    min_fov: float = 0.0
    # How far from the middle a crop may lie, share of the margin it leaves. The network is told
    # the focal length, not the principal point: where crops lie anywhere, it cannot learn that a
    # floor seen lower in the image is nearer.
    max_shift: float = 0.2
    # Share of crops of another aspect, to log ratios of 0.35: of a 4:3 image 16:9 is 0.29. Cameras
    # have many, and what does not fit the network's input is padded.
    reshape: float = 0.5
    flip: float = 0.5
    gray: float = 0.5  # many robot cameras are monochrome
    color: float = 0.8  # exposure, contrast, white balance, gamma
    # In pixels of the network's input, not of the camera's image:
    noise: float = 0.4
    blur: float = 0.3
    jpeg: float = 0.2
    # What a renderer has and the world has not: its surfaces, and its light.
    surfaces: float = 0.0  # random convolutions (Xu et al., ICLR 2021): shapes stay
    light: float = 0.0  # a smooth random field of exposure
    contrast: float = 0.0  # more of it, mostly: photographs have half as much again as renderings
    sharpen: float = 0.0  # and edges twice as steep


@dataclass(frozen=True)
class RangeConfig:
    """Canonical depth ranges drawn per image, log-uniform, in metres."""

    # Empty: not drawn, but the model's own near limit times s, as the pipeline has it. It then
    # tells the network the lens, of which an image alone does not say how far it looks.
    depth_min: tuple[float, ...] = ()
    depth_max: tuple[float, ...] = (3.0, 120.0)


class TrainingSamples(torch.utils.data.Dataset):
    """An endless, seeded sequence of augmented samples; map-style, indexed by sample number."""

    def __init__(self, frames, size, model, ranges, augment, seed, length):
        self.frames, self.size, self.model = frames, tuple(size), model
        self.ranges, self.augment, self.seed, self.length = ranges, augment, seed, length

    def __len__(self):
        """Return the number of samples of the whole run."""
        return self.length

    def __getitem__(self, n):
        """
        Return image uint8 (h, w, 3), canonical depth float32 (1, h, w), depth_min, depth_max.
        """
        epoch, position = divmod(n, len(self.frames))
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.frames))
        rng = np.random.default_rng((self.seed, 2, n))
        frame = self.frames[int(order[position])]
        image, depth, intrinsics = crop_and_flip(
            np.asarray(frame.image), np.asarray(frame.depth), frame.intrinsics, self.augment, rng
        )
        window = ResizeSpec.fit(depth.shape, self.size).window
        image, depth, scale = to_canonical(image, depth, intrinsics, self.size, self.model.focal)
        # At the network's own pixels: of noise and blur of a 1080p camera's the resize leaves
        # little, whatever they were; and there are far fewer of them.
        image[window] = photometric(image[window], self.augment, rng)
        near = scale * self.model.depth_range[0]
        depth_min, depth_max = (
            np.exp(rng.uniform(*np.log(bounds)))
            for bounds in (self.ranges.depth_min or (near, near), self.ranges.depth_max)
        )
        return (
            torch.from_numpy(image),
            torch.from_numpy(depth)[None],
            torch.tensor(depth_min, dtype=torch.float32),
            torch.tensor(depth_max, dtype=torch.float32),
        )


def to_canonical(image, depth, intrinsics, size, canonical_focal):
    """
    Image (H, W, 3) and metric depth (H, W) -> network image (h, w, 3), canonical depth (h, w), s.

    Padding is NaN. s is canonical over real metres. The image is the caller's own, to write on.

    The loss is at the network's size: truth comes down to it, where the published training brings
    depth up to the truth's. `dar evaluate` scores at the truth's size.
    """
    network_image, spec = prepare(image, size)
    scale = canonical_scale(intrinsics, spec, canonical_focal)
    canonical = np.full(size, np.nan, np.float32)
    canonical[spec.window] = sampled(depth, spec.content_size) * scale
    return np.array(network_image), canonical, scale


def sampled(depth, size):
    """
    Depth (H, W), NaN where unknown, at `size` (h, w): sampled, never blended.

    Where the sample is unknown, the known pixel of the same cell that is nearest to its centre: of
    a LiDAR's points plain sampling would leave a few in a hundred.
    """
    # Exact: INTER_NEAREST is off by up to half a pixel.
    found = cv2.resize(depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    step = np.divide(depth.shape, size)  # pixels of a cell, rows and columns
    lacks = np.isnan(found)
    if (step <= 1).all() or not lacks.any():
        return found
    rows, columns = (((np.arange(n) + 0.5) / s).astype(int) for n, s in zip(depth.shape, step))
    known = np.argwhere(~np.isnan(depth) & lacks[np.ix_(rows, columns)])  # (n, 2)
    off = (known + 0.5) / step % 1 - 0.5  # from the middle of the cell
    known = known[np.argsort(-np.square(off).sum(1), kind='stable')]  # the nearest last: it stays
    found[rows[known[:, 0]], columns[known[:, 1]]] = depth[tuple(known.T)]
    return found


def crop_and_flip(image, depth, intrinsics, config, rng):
    """
    Random isotropic zoom (a crop, of the same or another aspect) and horizontal flip.
    """
    height, width = depth.shape
    narrowest = np.tan(np.radians(config.min_fov) / 2) / (width / (2 * intrinsics.fx))
    share = rng.uniform(min(1.0, max(config.min_crop, narrowest)), 1.0)
    aspect = np.exp(rng.uniform(-0.35, 0.35)) if rng.random() < config.reshape else 1.0
    rows = round(height * share / max(aspect, 1.0))
    columns = round(width * share * min(aspect, 1.0))
    top, left = (
        round(margin / 2 * (1 + rng.uniform(-config.max_shift, config.max_shift)))
        for margin in (height - rows, width - columns)
    )
    image, depth = (a[top : top + rows, left : left + columns] for a in (image, depth))
    intrinsics = intrinsics.crop(left, top)
    if rng.random() < config.flip:
        image, depth = image[:, ::-1], depth[:, ::-1]
        intrinsics = intrinsics.mirrored(columns)
    return np.ascontiguousarray(image), np.ascontiguousarray(depth), intrinsics


def photometric(image, config, rng):
    """Vary what a camera varies; uint8 (H, W, 3) in and out."""
    if rng.random() < config.surfaces:
        image = convolved(image, rng)
    if rng.random() < config.light:
        image = relit(image, rng)
    if rng.random() < config.sharpen:
        soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.2))
        amount = rng.uniform(0.3, 2.0)
        image = cv2.addWeighted(image, 1 + amount, soft, -amount, 0)
    image = exposed(image, config, rng)
    if rng.random() < config.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    if rng.random() < config.noise:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 8)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        image = cv2.imdecode(cv2.imencode('.jpg', image, quality)[1], cv2.IMREAD_COLOR)
    return image


def exposed(image, config, rng):
    """
    Contrast, exposure, white balance and gamma; uint8 (H, W, 3) in and out.

    White walls burn out and dark corners are lost, as in real cameras, but once: what contrast
    alone would cut off a darker exposure still shows.
    """
    levels = np.linspace(0, 1, 256)[:, None].repeat(3, 1)  # (256, 3)
    if rng.random() < config.contrast:
        mean = image.mean() / 255
        levels = (levels - mean) * np.exp(rng.normal(0.35, 0.35)) + mean
    if rng.random() < config.color:
        gain = np.exp(rng.normal(0.12, 0.35)) * np.exp(rng.normal(0, 0.06, 3))
        gamma, offset = np.exp(rng.normal(0, 0.3)), rng.normal(-4, 15) / 255
        levels = levels.clip(0) ** gamma * gain + offset
    table = (levels * 255).round().clip(0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(256, 1, 3))


def convolved(image, rng):
    """
    Mix an image with a random convolution of it, as bright and as contrasty; uint8 (H, W, 3) in
    and out.

    Textures and colours change, edges stay where they are (Xu et al., Robust and generalizable
    visual representation learning via random convolutions, ICLR 2021, mixing variant).
    """
    size = int(rng.choice([1, 3, 5]))
    spread = 1 / np.sqrt(3 * size * size)
    other = np.zeros(image.shape, np.float32)
    for channel in range(3):
        kernel = rng.normal(0, spread, (3, size, size)).astype(np.float32)
        for source in range(3):
            other[..., channel] += cv2.filter2D(
                np.ascontiguousarray(image[..., source]), cv2.CV_32F, kernel[source]
            )
    mean, deviation = (s.reshape(1, 1, 3) for s in cv2.meanStdDev(other))
    own_mean, own_deviation = (s.reshape(1, 1, 3) for s in cv2.meanStdDev(image))
    other = (other - mean) * (own_deviation / (deviation + 1)) + own_mean
    share = rng.uniform(0, 0.8)
    return np.clip(image * (1 - share) + other * share, 0, 255).astype(np.uint8)


def relit(image, rng):
    """Multiply by a smooth random field, as lamps and windows would; uint8 (H, W, 3)."""
    rows, columns = rng.integers(2, 6, 2)
    field = np.exp(rng.normal(0, 0.35, (rows, columns))).astype(np.float32)
    field = cv2.resize(field, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image * field[..., None], 0, 255).astype(np.uint8)

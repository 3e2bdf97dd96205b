"""
Network depth -> depth and uncertainty of the image, validity (REP 117), flying pixels, colours.
"""

import math

import cv2
import numpy as np

from dar_ros.bundle import BEYOND, TOO_NEAR
from dar_ros.preprocess import restore

BEYOND_RANGE = ('inf', 'nan', 'clamp')
EDGE_THRESHOLD = 0.05  # relative jump of depth that makes a flying pixel, by default
BLOCK = 1 << 16  # pixels that are worked on at a time
# A plane by its 1/Z: the least of four slopes in a line, as a share of the largest, between pixels
# so many apart. Measured (docs/nav2.md): more planes stay if it is less, and more of what flies.
SAME_SLOPE, STRIDE = 0.6, 2
BLEND_LIMIT = 0.08  # relative difference of neighbours above which a resize must not blend them


def real_depth(
    prediction,
    spec,
    scale,
    depth_range,
    sigma_factor,
    beyond_range='inf',
    max_relative_uncertainty=0.0,
):
    """
    Prediction (h, w) in canonical metres -> depth, sigma, float32 (H, W) in metres of the source
    image.

    `scale` is canonical over real metres (s, divided by the calibration factor); `depth_range`
    real metres. Depth is +inf beyond the range and -inf too near (REP 117), NaN where the
    uncertainty of what lies within is above the limit or the network gave no number;
    `beyond_range` 'nan' or 'clamp' (to the far limit) replaces +inf. sigma = depth * sqrt(2) *
    Laplace scale * sigma_factor; it is NaN where the depth is not finite.
    """
    depth = prediction.depth * np.float32(1 / scale)
    relative = prediction.scale * np.float32(math.sqrt(2) * sigma_factor)
    depth = resize_depth(depth, spec)
    relative = restore(relative, spec)
    classes = restore(prediction.range_class, spec, cv2.INTER_NEAREST_EXACT)
    near, far = depth_range
    beyond, too_near = (classes == BEYOND) | (depth > far), (classes == TOO_NEAR) | (depth < near)
    sigma = depth * relative
    depth[beyond] = {'inf': np.inf, 'nan': np.nan, 'clamp': far}[beyond_range]
    depth[too_near & ~beyond] = -np.inf
    if max_relative_uncertainty > 0:
        # Not `>`: an uncertainty that is no number is none that can be trusted.
        uncertain = ~(relative <= max_relative_uncertainty)
        depth[np.isfinite(depth) & ~beyond & uncertain] = np.nan
    lost = ~finite_pixels(prediction)
    if lost.any():
        depth[restore(lost.astype(np.uint8), spec, cv2.INTER_NEAREST_EXACT) > 0] = np.nan
        # A resize spreads what is no number to its neighbours: no depth without an uncertainty.
        depth[np.isfinite(depth) & ~np.isfinite(sigma)] = np.nan
    sigma[~np.isfinite(depth)] = np.nan
    return depth, sigma


def finite_pixels(prediction):
    """Boolean (h, w): pixels of a Prediction whose depth and scale are numbers, as all should."""
    return np.isfinite(prediction.depth) & np.isfinite(prediction.scale)


def resize_depth(depth, spec):
    """
    Network depth (h, w) -> (H, W): bilinear on surfaces, nearest across edges.

    A blend of two surfaces lies on neither: it would be a phantom obstacle in the air.
    """
    if spec.content_size == spec.source_size:
        return restore(depth, spec)
    smooth = restore(depth, spec)
    nearest = restore(depth, spec, cv2.INTER_NEAREST_EXACT)
    with np.errstate(invalid='ignore'):
        return np.where(np.abs(smooth - nearest) > BLEND_LIMIT * nearest, nearest, smooth)


def row_blocks(height, width):
    """
    Slices that cover `height` rows, about BLOCK pixels each.

    What a block needs in between stays in the cache, and no fresh pages are asked for: several
    times as fast as whole images.
    """
    count = max(1, BLOCK // width)
    return [slice(top, min(height, top + count)) for top in range(0, height, count)]


def flying_pixels(depth, threshold):
    """
    Boolean (H, W): pixels whose depth jumps, relative to itself, to both sides of a row or of a
    column, where no plane goes on.

    A pixel between two surfaces differs from both; the pixels of a surface's own border differ on
    one side only and stay. So does a floor far away, which jumps from row to row, but evenly.
    `threshold` 0 marks none.
    """
    flying = np.zeros((2, *depth.shape), bool)  # along the rows, along the columns
    if threshold <= 0:
        return flying[0]
    height, width = depth.shape
    for rows in row_blocks(height, width):
        # With a row above and below, where there is one: the columns' neighbours.
        above, below = max(rows.start - 1, 0), min(rows.stop + 1, height)
        found = _ramps(depth[above:below], threshold)
        flying[:, rows] = found[:, rows.start - above : rows.stop - above]
    for marks, apart in zip(flying.reshape(2, -1), (1, width)):
        places = np.flatnonzero(marks)  # few: what is asked of them costs next to nothing
        along, length = (places % width, width) if apart == 1 else (places // width, height)
        inside = (along >= 2 * STRIDE) & (along < length - 2 * STRIDE)
        marks[_of_planes(depth.reshape(-1), places[inside], STRIDE * apart)] = False
    return np.logical_or(*flying, out=flying[0])


def _ramps(depth, threshold):
    """
    Boolean (2, H, W): the jumps along the rows and along the columns of some rows; the first and
    last know their row's neighbours only.
    """
    flying = np.zeros((2, *depth.shape), bool)
    with np.errstate(invalid='ignore'):  # inf - inf, NaN: never a jump
        limit = threshold * depth
        # A ramp: further on one side, nearer on the other. A thin thing in front of a wall is no
        # ramp.
        for part, step, middle in (
            (flying[0, :, 1:-1], depth[:, 1:] - depth[:, :-1], limit[:, 1:-1]),
            (flying[1, 1:-1].T, (depth[1:] - depth[:-1]).T, limit[1:-1].T),
        ):
            before, after = step[:, :-1], step[:, 1:]
            # The lesser of two rises, or of two falls; negative where one of each.
            rise, fall = np.minimum(before, after), np.maximum(before, after)
            np.greater(np.maximum(rise, np.negative(fall, out=fall), out=rise), middle, out=part)
    return flying


def _of_planes(depth, places, apart):
    """
    Return those of some places in flat depth about which 1/Z is linear, as that of a plane is:
    over two pixels `apart` on both sides. Across an occlusion edge it is flat, steep, flat.
    """
    near = depth[places + apart * np.arange(-2, 3)[:, None]]  # (5, n)
    near[~np.isfinite(near)] = np.nan
    with np.errstate(invalid='ignore', divide='ignore'):
        slopes = np.diff(1 / near, axis=0)
        slopes *= np.sign(slopes[0])
        return places[slopes.min(axis=0) > SAME_SLOPE * slopes.max(axis=0)]


def colorize(depth, near, far):
    """
    Depth (H, W) in metres -> RGB uint8 (H, W, 3); the scale is fixed: log from `near` (red) to
    `far` (blue).

    Invalid pixels are black, those beyond the range dark grey.
    """
    finite = np.isfinite(depth)
    with np.errstate(invalid='ignore', divide='ignore'):
        place = (np.log(np.maximum(depth, 1e-6)) - math.log(near)) / (
            math.log(far) - math.log(near)
        )
    level = np.where(finite, np.clip(1 - place, 0, 1) * 255, 0).astype(np.uint8)
    color = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    color[~finite] = 0
    color[np.isposinf(depth)] = 45
    return color

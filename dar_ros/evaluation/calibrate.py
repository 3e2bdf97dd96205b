"""`dar calibrate`: the factor `depth_scale` that a camera and its surroundings need."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dar_ros.datasets.frames import spread
from dar_ros.errors import UsageError
from dar_ros.evaluation.report import count_warnings, warning_lines, warnings_of
from dar_ros.files import read_rgb
from dar_ros.pipeline import DepthSettings

FAR_OFF = 3.0  # a depth_scale beyond it, or below its inverse, has another cause
REACH = 2  # pixels around a measured one whose median depth counts


@dataclass(frozen=True)
class KnownPoint:
    """A measured place in an image file: pixel (column x, row y), metres."""

    image: str
    x: float
    y: float
    metres: float


def fit_depth_scale(pipeline, frames, count=None, settings=None, progress=True):
    """Fit to `count` frames with true depth, spread over all; plain data, see `fit`."""
    settings = settings or DepthSettings()
    _, (near, far) = settings.resolve(pipeline.bundle)
    pairs, warnings = [], {}
    for i in tqdm(spread(frames, count), disable=not progress):
        frame = frames[i]
        result = pipeline(np.array(frame.image), frame.intrinsics, settings)
        count_warnings(warnings, [result])
        depth = result.depth
        with np.errstate(invalid='ignore'):
            scored = np.isfinite(depth) & (frame.depth >= near) & (frame.depth <= far)
        if scored.any():
            pairs.append((depth[scored], np.asarray(frame.depth)[scored]))
    if not pairs:
        raise UsageError(f'no frame has depth within {near:g}-{far:g} m to compare with')
    return fit(pairs, warnings)


def fit_to_points(pipeline, points, camera, straight_line=False, settings=None):
    """
    Fit to KnownPoints; plain data, see `fit`.

    `camera` gives the Intrinsics of an image (H, W, 3). Metres are along the optical axis, or
    from the camera to the point if `straight_line`.
    """
    settings = settings or DepthSettings()
    pairs, warnings = [], {}
    for path in dict.fromkeys(point.image for point in points):
        image = read_rgb(path)
        intrinsics = camera(image)
        result = pipeline(image, intrinsics, settings)
        count_warnings(warnings, [result])
        depth = result.depth
        found, true = [], []
        for point in (p for p in points if p.image == path):
            found.append(_depth_at(depth, point))
            x = (point.x - intrinsics.cx) / intrinsics.fx
            y = (point.y - intrinsics.cy) / intrinsics.fy
            true.append(point.metres / (np.sqrt(1 + x * x + y * y) if straight_line else 1.0))
        pairs.append((np.array(found), np.array(true)))
    return fit(pairs, warnings)


def fit(pairs, warnings=()):
    """
    Median over images of each image's median of true over predicted depth; plain data.

    `pairs` are (predicted, true) arrays (n,) of images. The median, for a factor has to survive
    frames that are wrong altogether. `low` and `high` hold the middle 80 % of the images: where
    they are far apart, one factor does not help much. `warnings` are those of the images, counted.
    """
    factors = [float(np.median(true / depth)) for depth, true in pairs]
    scale = float(np.median(factors))
    warnings = dict(warnings)
    if not 1 / FAR_OFF < scale < FAR_OFF:
        text = (
            f'a factor of {scale:.3g} is more than a camera needs: are focal length and principal '
            'point of this image, and depth in metres?'
        )
        warnings['far off'] = [len(pairs), text]

    def abs_rel(factor):
        return float(np.mean([np.abs(depth * factor / true - 1).mean() for depth, true in pairs]))

    low, high = np.quantile(factors, (0.1, 0.9))
    return {
        'depth_scale': scale,
        'low': float(low),
        'high': float(high),
        'frames': len(pairs),
        'abs_rel_before': abs_rel(1.0),
        'abs_rel_after': abs_rel(scale),
        'warnings': warnings_of(warnings),
    }


def table(report):
    """Render the report for people."""
    return '\n'.join(
        [
            *warning_lines(report),
            'depth_scale: {depth_scale:.3f}'.format(**report),
            '{frames} frames need {low:.3f} to {high:.3f} (80 %), abs_rel {abs_rel_before:.3f} '
            'becomes {abs_rel_after:.3f}'.format(**report),
        ]
    )


def parse_point(text):
    """IMAGE:X,Y=METRES -> KnownPoint."""
    match = re.fullmatch(r'(.+):([^:,=]+),([^:,=]+)=([^:,=]+)', text)
    return _point(match.groups() if match else (), f'{text!r} is not IMAGE:X,Y=METRES')


def read_csv(path):
    """Lines image,x,y,metres, perhaps under a heading -> [KnownPoint]; images by the file."""
    try:
        with Path(path).open(newline='') as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f'{path} cannot be read ({error})') from None
    if rows and [cell.strip() for cell in rows[0]] == ['image', 'x', 'y', 'metres']:
        rows = rows[1:]
    if not rows:
        raise UsageError(f'{path} holds no line image,x,y,metres')
    return [
        _point(
            (str(Path(path).parent / row[0].strip()), *row[1:]),
            f'{path}: {",".join(row)!r} is not image,x,y,metres',
        )
        for row in rows
    ]


def _point(parts, wrong):
    try:
        image, *numbers = parts
        x, y, metres = map(float, numbers)
    except ValueError:
        raise UsageError(wrong) from None
    if not 0 < metres < np.inf:
        raise UsageError(f'{wrong}: metres must be above 0')
    return KnownPoint(image, x, y, metres)


def _depth_at(depth, point):
    row, column = round(point.y), round(point.x)
    name = f'{point.image}:{point.x:g},{point.y:g}'
    if not (0 <= row < depth.shape[0] and 0 <= column < depth.shape[1]):
        raise UsageError(f'{name} lies outside the image of {depth.shape[1]}x{depth.shape[0]}')
    around = depth[
        max(row - REACH, 0) : row + REACH + 1, max(column - REACH, 0) : column + REACH + 1
    ]
    around = around[np.isfinite(around)]
    if not around.size:
        raise UsageError(f'{name}: the model gives no depth there; leave the point out')
    return float(np.median(around))

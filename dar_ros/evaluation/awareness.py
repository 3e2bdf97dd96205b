"""
Whether depth stays what it is when only the range asked for, or the lens, changes.

A model that knows its range and its camera makes about the same error of a pixel whatever they
are: abs_rel on the pixels common to all may change by 15 % of itself.
"""

from dataclasses import replace

import numpy as np
from tqdm import tqdm

from dar_ros.datasets.frames import spread
from dar_ros.pipeline import DepthSettings

LIMIT = 0.15  # (largest - smallest) / smallest abs_rel
DEPTH_MAXIMA = (5.0, 10.0, 30.0)  # metres
FOVS = (50.0, 65.0, 80.0, 95.0)  # horizontal, degrees


def range_awareness(pipeline, frames, count=None, settings=None, progress=True):
    """
    Error on the same pixels with depth_max 5, 10 and 30 m; plain data as of `compared`.

    Common are the pixels whose true depth lies in the smallest range.
    """
    settings = settings or DepthSettings()
    choices = [replace(settings, depth_max=far) for far in DEPTH_MAXIMA]
    ranges = [choice.resolve(pipeline.bundle)[1] for choice in choices]
    near, far = max(low for low, _ in ranges), min(high for _, high in ranges)
    pairs = []
    for i in tqdm(spread(frames, count), desc='ranges', unit='frame', disable=not progress):
        frame = frames[i]
        image, truth = np.array(frame.image), np.array(frame.depth)
        depths = [pipeline(image, frame.intrinsics, choice).depth.copy() for choice in choices]
        pairs.append((depths, [truth] * len(choices), (truth >= near) & (truth <= far)))
    return {'depth_max': list(DEPTH_MAXIMA), **compared(pairs)}


def focal_awareness(pipeline, scenes, settings=None, count=None, progress=True):
    """
    Error on the same surfaces seen through several lenses from one place; as of `compared`.

    `scenes` yields lists of views (image, depth, intrinsics), the narrowest first: common is what
    that one sees. The others are looked up at its rays, prediction and truth alike.
    """
    settings = settings or DepthSettings()
    _, (near, far) = settings.resolve(pipeline.bundle)
    pairs, fovs = [], None
    for views in tqdm(scenes, total=count, desc='lenses', unit='scene', disable=not progress):
        fovs = [_fov(view) for view in views]
        depths, truths = [], []
        for view in views:
            rows, columns = same_rays(views[0], view)
            depth = pipeline(view.image, view.intrinsics, settings).depth
            depths.append(depth[rows, columns])
            truths.append(view.depth[rows, columns])
        common = np.all([(truth >= near) & (truth <= far) for truth in truths], 0)
        pairs.append((depths, truths, common))
    return {'hfov': fovs, **compared(pairs)}


def same_rays(narrow, wide):
    """
    Rows and columns (H, W) of `wide`'s pixels nearest to the rays of `narrow`'s pixels.

    Both look from one place in one direction, the wide one around all that the narrow one sees.
    """
    height, width = narrow.depth.shape
    a, b = narrow.intrinsics, wide.intrinsics
    columns = (np.arange(width) - a.cx) / a.fx * b.fx + b.cx
    rows = (np.arange(height) - a.cy) / a.fy * b.fy + b.cy
    return np.meshgrid(rows.round().astype(int), columns.round().astype(int), indexing='ij')


def compared(pairs):
    """
    Compare [(depths, truths, common)] of images: lists over the conditions, and a mask (H, W).

    Returns abs_rel of every condition (mean over images, over pixels that are finite in all), the
    `change` of the largest from the smallest, whether it is `ok`, and the `valid` share of the
    common pixels that could be compared.

    Of the error's nature: `bias`, the geometric mean over images of the median ratio of depth to
    truth, less 1, is what a model gets wrong that misreads the condition; the same ratio of each
    image divided out leaves `abs_rel_median_scaled`. What differs in neither is scale that the
    images themselves leave open.
    """
    rows, scaled, ratios, shares = [], [], [], []
    for depths, truths, common in pairs:
        scored = common & np.all([np.isfinite(depth) for depth in depths], 0)
        if common.any():
            shares.append(scored.sum() / common.sum())
        if scored.any():
            relative = [d[scored] / t[scored] for d, t in zip(depths, truths)]
            rows.append([np.abs(r - 1).mean() for r in relative])
            ratios.append([np.median(r) for r in relative])
            scaled.append([np.abs(r / np.median(r) - 1).mean() for r in relative])
    if not rows:
        return {'abs_rel': None, 'change': None, 'limit': LIMIT, 'ok': False, 'images': 0}
    abs_rel = np.mean(rows, 0)
    change = float(abs_rel.max() / max(abs_rel.min(), 1e-9) - 1)
    return {
        'abs_rel': abs_rel.tolist(),
        'bias': np.expm1(np.log(ratios).mean(0)).tolist(),
        'abs_rel_median_scaled': np.mean(scaled, 0).tolist(),
        'change': change,
        'limit': LIMIT,
        'ok': change < LIMIT,
        'images': len(rows),
        'valid': float(np.mean(shares)),
    }


def _fov(view):
    return float(np.degrees(2 * np.arctan(view.image.shape[1] / 2 / view.intrinsics.fx)))


def table(report):
    """Render {'range': ..., 'focal': ...} for people."""
    lines = []
    for name, key, unit in (('range', 'depth_max', 'm'), ('focal', 'hfov', 'deg')):
        part = report[name]
        if part['abs_rel'] is None:
            lines.append(f'{name}: no pixel in common')
            continue
        fields = (part[key], part['abs_rel'], part['abs_rel_median_scaled'], part['bias'])
        lines += [
            f'{name} {c:.0f} {unit}: abs_rel {v:.4f}, median-scaled {m:.4f}, bias {b:+.1%}'
            for c, v, m, b in zip(*fields)
        ]
        lines.append(
            f'{name}: abs_rel changes by {part["change"]:.1%} of itself (limit '
            f'{part["limit"]:.0%}), {part["images"]} images, {part["valid"]:.1%} of the pixels'
        )
    return '\n'.join(lines)

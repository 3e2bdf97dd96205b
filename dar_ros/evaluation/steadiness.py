"""
Temporal steadiness: how much depth changes from frame to frame beyond what the motion explains.

A surface point seen at pixel p of one frame and at p' of the next has true depths z and z'. What
the prediction D changes more or less than that, |log D'(p') / D(p) - log z' / z|, is flicker. A
scale that is wrong but steady is none.
"""

import numpy as np
from tqdm import tqdm

from dar_ros.geometry import unproject
from dar_ros.pipeline import DepthSettings

VISIBLE = 0.01  # relative difference of true depth above which the point is hidden in the next


def steadiness(pipeline, clips, settings=None, count=None, progress=True):
    """
    Score `clips`, lists of consecutive views (simulation.clips.View); plain data.

    Per step: the median and the 90th percentile over pixels of the unexplained change, as means
    over pairs of frames; `visible`, the mean share of pixels that two frames both see.
    """
    settings = settings or DepthSettings()
    steps, depth_range = settings.resolve(pipeline.bundle)
    rows, shares = [[] for _ in range(steps)], []
    for views in tqdm(clips, total=count, desc='steadiness', unit='clip', disable=not progress):
        depths = [
            [frame.depth.copy() for frame in pipeline.per_step(v.image, v.intrinsics, settings)]
            for v in views
        ]
        for i in range(len(views) - 1):
            before, after = views[i], views[i + 1]
            pixels, moved = correspondence(before, after, depth_range)
            shares.append(len(pixels[0]) / before.depth.size)
            for row, first, second in zip(rows, depths[i], depths[i + 1]):
                change = unexplained(before, after, first, second, pixels, moved)
                if change.size:
                    row.append([float(np.quantile(change, q)) for q in (0.5, 0.9)])
    means = [np.mean(row, 0).tolist() if row else [None, None] for row in rows]
    return {
        'per_step': [
            {'step': k, 'median_log_change': median, 'p90_log_change': high}
            for k, (median, high) in enumerate(means, 1)
        ],
        'pairs': len(rows[-1]),
        'visible': float(np.mean(shares)) if shares else 0.0,
    }


def correspondence(before, after, depth_range):
    """
    Pixels of `before`, (rows, columns), and where `after` sees the same points, likewise.

    Only points within `depth_range` in both that nothing hides and that stay in the picture.
    """
    near, far = depth_range
    rows, columns = np.nonzero((before.depth >= near) & (before.depth <= far))
    points = unproject(before.depth, before.intrinsics)[rows, columns].astype(np.float64)
    world = points @ before.rotation.T + before.position
    x, y, z = ((world - after.position) @ after.rotation).T
    camera, (height, width) = after.intrinsics, after.depth.shape
    ahead = z > near
    z = np.where(ahead, z, 1.0)
    u, v = (
        np.rint(np.clip(value, -1, 1e6)).astype(int)
        for value in (x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy)
    )
    inside = ahead & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    seen = after.depth[np.where(inside, v, 0), np.where(inside, u, 0)]
    with np.errstate(invalid='ignore'):
        kept = inside & (seen <= far) & (np.abs(seen - z) < VISIBLE * z)
    return (rows[kept], columns[kept]), (v[kept], u[kept])


def unexplained(before, after, first, second, pixels, moved):
    """Absolute log change (n,) of the depths `first`, `second` (H, W) beyond the true one."""
    with np.errstate(invalid='ignore', divide='ignore'):
        change = np.log(second[moved] / first[pixels])
        change -= np.log(after.depth[moved] / before.depth[pixels])
    return np.abs(change[np.isfinite(change)])


def table(report):
    """Render the report for people."""
    lines = [f'{report["pairs"]} pairs of frames, {report["visible"]:.1%} of the pixels in both']
    lines += [
        f'step {row["step"]}: log depth changes by {row["median_log_change"]:.4f} (median), '
        f'{row["p90_log_change"]:.4f} (90 %) beyond the motion'
        for row in report['per_step']
        if row['median_log_change'] is not None
    ]
    return '\n'.join(lines)

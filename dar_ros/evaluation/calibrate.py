"""`dar calibrate`: the factor `depth_scale` that a camera and its surroundings need."""

import numpy as np
from tqdm import tqdm

from dar_ros.errors import UsageError
from dar_ros.pipeline import DepthSettings


def fit_depth_scale(pipeline, frames, count=None, settings=None, progress=True):
    """
    Median over images of each image's median of true over predicted depth; plain data.

    The median, for a factor has to survive frames that are wrong altogether. `low` and `high` hold
    the middle 80 % of the images: where they are far apart, one factor does not help much.
    """
    settings = settings or DepthSettings()
    _, (near, far) = settings.resolve(pipeline.bundle)
    pairs = []
    for i in tqdm(range(min(len(frames), count or len(frames))), disable=not progress):
        frame = frames[i]
        depth = pipeline(np.array(frame.image), frame.intrinsics, settings).depth
        with np.errstate(invalid='ignore'):
            scored = np.isfinite(depth) & (frame.depth >= near) & (frame.depth <= far)
        if scored.any():
            pairs.append((depth[scored], np.asarray(frame.depth)[scored]))
    if not pairs:
        raise UsageError(f'no frame has depth within {near:g}-{far:g} m to compare with')
    factors = [float(np.median(true / depth)) for depth, true in pairs]
    scale = float(np.median(factors))

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
    }

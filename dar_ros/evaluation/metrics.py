"""Depth metrics of one image; reports average them over images."""

import numpy as np

NAMES = ('abs_rel', 'rmse', 'log10', 'silog', 'd1', 'd2', 'd3')


def depth_metrics(depth, truth, scored):
    """
    Metrics over the pixels `scored` (H, W); depth and truth in metres.

    silog is 100 * sqrt(var(log D - log D_gt)), as KITTI reports it.
    """
    predicted, true = depth[scored].astype(np.float64), truth[scored].astype(np.float64)
    ratio = predicted / true
    log_error = np.log(ratio)
    worst = np.maximum(ratio, 1 / ratio)
    return {
        'abs_rel': np.abs(ratio - 1).mean(),
        'rmse': np.sqrt(np.square(predicted - true).mean()),
        'log10': np.abs(log_error).mean() / np.log(10),
        'silog': 100 * log_error.std(),
        'd1': (worst < 1.25).mean(),
        'd2': (worst < 1.25**2).mean(),
        'd3': (worst < 1.25**3).mean(),
    }


def mean_metrics(rows):
    """Mean of every metric over a list of dicts; None where there is no row."""
    return {name: float(np.mean([row[name] for row in rows])) if rows else None for name in NAMES}

"""Depth metrics of one image; reports average them over images."""

import numpy as np

NAMES = ('abs_rel', 'rmse', 'log10', 'silog', 'd1', 'd2', 'd3')
BUCKETS = (0.1, 1, 2, 3, 5, 10, 20, 40, 80)  # metres of true depth


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


def beyond_counts(depth, truth, farther):
    """
    Pixels (3,) that are `farther` (H, W) than the range and called so (+inf), called so, and so.

    Where nothing is known of the truth, NaN, nothing is called either.
    """
    called = np.isposinf(depth) & ~np.isnan(truth)
    return np.array([(called & farther).sum(), called.sum(), farther.sum()])


def ause(error, uncertainty, fractions=20):
    """
    Area under the sparsification error, of pixels' errors (n,) ordered by their uncertainty (n,).

    Mean error of what is left after dropping the most uncertain share, less the same after
    dropping the worst, over shares 0 to 0.95 (Ilg et al., ECCV 2018). 0: uncertainty orders as
    error does.
    """
    kept = [max(1, round(len(error) * (1 - i / fractions))) for i in range(fractions)]
    curves = [
        (np.cumsum(error[np.argsort(order, kind='stable')]) / np.arange(1, len(error) + 1))
        for order in (uncertainty, error)
    ]
    return float(np.mean([curves[0][n - 1] - curves[1][n - 1] for n in kept]))


def bootstrap_interval(values, draws=2000):
    """95 % interval of the mean of `values` over images drawn with replacement."""
    if not values:
        return None
    rng = np.random.default_rng(0)
    means = np.mean(np.array(values)[rng.integers(len(values), size=(draws, len(values)))], 1)
    return [float(v) for v in np.quantile(means, (0.025, 0.975))]

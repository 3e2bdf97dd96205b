"""What is fitted once training is over: uncertainty factors, and the row-median baseline."""

import math

import numpy as np
import torch

from dar_ros.evaluation.datasets import spread
from dar_ros.model.mtbin import from_bin_space
from dar_ros.training.datasets import to_canonical
from dar_ros.training.losses import IN_RANGE, range_classes
from dar_ros.training.validation import predictions

# A Laplace distribution has 75.7 % of its mass within one standard deviation, a normal one 68.3 %.
# The factors put 70 % of the validation pixels within one sigma.
ONE_SIGMA_SHARE = 0.70


def sigma_factors(model, frames, frames_used=200):
    """
    Factor a_k of every step, so that |D - D_gt| <= sigma = D * sqrt(2) * scale * a_k for 70 % of
    the pixels.
    """
    ratios = [[] for _ in range(model.config.num_steps)]
    subset = torch.utils.data.Subset(frames, spread(frames, frames_used))
    for steps, depth, low, high in predictions(model, subset, model.config.input_size):
        valid = range_classes(depth, low, high) == IN_RANGE
        for found, step in zip(ratios, steps):
            predicted = from_bin_space(step.depth, model.config.bin_space)
            sigma = predicted * math.sqrt(2) * torch.exp(step.log_scale)
            found.append(((predicted - depth).abs() / sigma)[valid][::97].cpu())
    return [
        round(float(torch.quantile(torch.cat(found)[:1_000_000], ONE_SIGMA_SHARE)), 4)
        for found in ratios
    ]


def row_medians(frames, config, frames_used=2000):
    """
    Median canonical depth (metres) of every network row over the training set: the baseline to
    beat.
    """
    size, limit = config.input_size, config.depth_range[1]
    columns = []
    for i in spread(frames, frames_used):
        frame = frames[i]
        _, depth, scale = to_canonical(
            np.asarray(frame.image), np.asarray(frame.depth), frame.intrinsics, size, config.focal
        )
        columns.append(np.where(depth < limit * scale, depth, np.nan)[:, ::8])
    found = np.concatenate(columns, 1)
    rows = np.flatnonzero(np.isfinite(found).any(1))  # not those that a protocol crops, or padding
    medians = np.interp(np.arange(size[0]), rows, np.nanmedian(found[rows], axis=1))
    return [round(float(z), 4) for z in medians]

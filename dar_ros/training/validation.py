"""The network on whole data sets during training; the pipeline's figures are evaluation's."""

import math
import time

import numpy as np
import torch

from dar_ros.bundle import IN_RANGE
from dar_ros.datasets.frames import spread
from dar_ros.errors import UsageError
from dar_ros.model.mtbin import from_bin_space
from dar_ros.training.datasets import to_canonical
from dar_ros.training.losses import range_classes

# A Laplace distribution has 75.7 % of its mass within one standard deviation, a normal one 68.3 %.
# The factors put 70 % of the validation pixels within one sigma.
ONE_SIGMA_SHARE = 0.70
STRIDE = 97  # of the pixels it is fitted to; prime, so that it falls on every column
QUANTILE_LIMIT = 1_000_000  # values; torch.quantile takes 16 million


def require_depth(frames, depth_range, name, looked_at=16):
    """UsageError if no pixel of some frames of a data set lies within a (near, far) in metres."""
    near, far = depth_range
    for i in spread(frames, looked_at):
        depth = np.asarray(frames[i].depth)
        if ((depth >= near) & (depth <= far)).any():
            return
    raise _out_of_range(name, depth_range)


def _out_of_range(name, depth_range):
    near, far = depth_range
    return UsageError(
        f'no frame of the {name} has depth within {near:g}-{far:g} m: is it in metres?'
    )


@torch.inference_mode()
def predictions(model, frames, size, batch=8):
    """
    Yield (Upsampled per step, canonical depth, minimum, maximum) for every batch of a data set.
    """
    model.eval()
    device = model.position.device
    focal = model.config.focal
    for begin in range(0, len(frames), batch):
        chosen = [frames[i] for i in range(begin, min(begin + batch, len(frames)))]
        images, depths, scales = zip(
            *(
                to_canonical(np.asarray(f.image), np.asarray(f.depth), f.intrinsics, size, focal)
                for f in chosen
            )
        )
        image = torch.from_numpy(np.stack(images)).to(device)
        depth = torch.from_numpy(np.stack(depths))[:, None].to(device)
        scale = torch.tensor(scales, dtype=torch.float32, device=device)
        low, high = (scale * limit for limit in model.config.depth_range)
        outputs, encoded = model(image, low, high)
        yield (
            [model.upsample(output, encoded.upsample_mask) for output in outputs],
            depth,
            low,
            high,
        )


def validate(model, frames, size):
    """
    Per-step abs_rel and d1 on in-range pixels: means over images. UsageError if no frame has any.

    And `sigma_factors`, a_k of every step, so that |D - D_gt| <= sigma = D * sqrt(2) * scale * a_k
    for ONE_SIGMA_SHARE of the pixels.
    """
    began, sums, count = time.monotonic(), None, 0
    errors = [[] for _ in range(model.config.num_steps)]  # in sigmas of factor 1
    for steps, depth, low, high in predictions(model, frames, size):
        valid = range_classes(depth, low, high) == IN_RANGE
        truth = torch.where(valid, depth, 1.0)
        pixels = valid.sum((1, 2, 3))
        scored = pixels > 0
        rows = []
        for step, found in zip(steps, errors):
            ratio = from_bin_space(step.depth, model.config.bin_space) / truth
            sigma = ratio * math.sqrt(2) * torch.exp(step.log_scale)
            found.append(((ratio - 1).abs() / sigma)[valid][::STRIDE].cpu())
            d1 = (torch.maximum(ratio, 1 / ratio) < 1.25) & valid
            error = torch.where(valid, (ratio - 1).abs(), 0.0)
            rows.append(
                torch.stack(
                    [(t.sum((1, 2, 3)) / pixels.clamp(min=1))[scored].sum() for t in (error, d1)]
                )
            )
        batch = torch.stack(rows)  # (steps, 2)
        sums = batch if sums is None else sums + batch
        count += int(scored.sum())
    if not count:
        raise _out_of_range('validation set', model.config.depth_range)
    abs_rel, d1 = (sums / count).T.tolist()
    factors = [
        round(float(torch.quantile(torch.cat(found)[:QUANTILE_LIMIT], ONE_SIGMA_SHARE)), 4)
        for found in errors
    ]
    return {
        'abs_rel': abs_rel,
        'd1': d1,
        'frames': count,
        'seconds': time.monotonic() - began,
        'sigma_factors': factors,
    }

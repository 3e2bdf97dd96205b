"""
Losses: scale-invariant log depth per step, out-of-range class, Laplace uncertainty.
"""

import os
import shutil
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from dar_ros.bundle import BEYOND, IN_RANGE, TOO_NEAR
from dar_ros.errors import UsageError
from dar_ros.model.dar import Upsampled, convex_upsample

UNKNOWN = 255  # of a pixel's class, beside those of a bundle


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss; alpha and beta as in DAR, section 3.5."""

    alpha: float = 10.0
    beta: float = 0.85
    l1_weight: float = 0.0  # of mean |g|, which an edge or an outlier moves less than the rest
    class_weight: float = 1.0
    scale_weight: float = 0.2
    step_weights: tuple[float, ...] = ()  # one per step; empty: all 1
    # Upsampling and losses by torch.compile: half a minute for every input size, then faster.
    compile: bool = False


def range_classes(depth, depth_min, depth_max):
    """
    Class of every pixel, uint8 (B, 1, H, W), of true depth (B, 1, H, W) in canonical metres.

    NaN (no ground truth) is UNKNOWN, +inf (sky) is BEYOND.
    """
    low, high = depth_min.view(-1, 1, 1, 1), depth_max.view(-1, 1, 1, 1)
    classes = torch.full_like(depth, IN_RANGE, dtype=torch.uint8)
    classes[depth < low] = TOO_NEAR
    classes[depth > high] = BEYOND
    classes[torch.isnan(depth)] = UNKNOWN
    return classes


def silog(error, valid, alpha, beta):
    """
    Scale-invariant log loss, mean over images of alpha * sqrt(mean(g^2) - beta * mean(g)^2).

    `error` g = log D - log D_gt and `valid` are (B, 1, H, W). Per image, so that the global batch
    may be cut over processes. An image without valid pixels costs nothing.
    """
    count = valid.sum((1, 2, 3))
    error = torch.where(valid, error, 0.0)
    divisor = count.clamp(min=1)
    mean, square = error.sum((1, 2, 3)) / divisor, error.square().sum((1, 2, 3)) / divisor
    loss = alpha * torch.sqrt((square - beta * mean.square()).clamp(min=0) + 1e-6)
    return torch.where(count > 0, loss, 0.0).mean()


def laplace_nll(error, log_scale, valid):
    """Negative log likelihood of the log-depth error (detached) under a Laplace distribution."""
    nll = error.detach().abs() * torch.exp(-log_scale) + log_scale
    return image_mean(nll, valid)


def image_mean(values, counted):
    """Mean over images of the mean over `counted` pixels; (B, 1, H, W) both."""
    total = torch.where(counted, values, 0.0).sum((1, 2, 3))
    return (total / counted.sum((1, 2, 3)).clamp(min=1)).mean()


def step_losses(upsampled, depth, depth_min, depth_max, bin_space, config):
    """
    Losses of one step at the ground truth's size.

    `upsampled` is the step's output at the size of `depth` (B, 1, H, W), canonical metres. Returns
    a dict of scalars: depth, range, scale.
    """
    classes = range_classes(depth, depth_min, depth_max)
    valid = classes == IN_RANGE
    target = torch.log(torch.where(valid, depth, 1.0))
    predicted = (
        upsampled.depth if bin_space == 'log' else torch.log(upsampled.depth.clamp(min=1e-3))
    )
    error = predicted - target
    known = classes != UNKNOWN
    target_class = torch.where(known, classes, 0).squeeze(1).long()
    cross_entropy = F.cross_entropy(upsampled.range_logits, target_class, reduction='none')[
        :, None
    ]
    return {
        'depth': silog(error, valid, config.alpha, config.beta)
        + config.l1_weight * image_mean(error.abs(), valid),
        'range': image_mean(cross_entropy, known),
        'scale': laplace_nll(error, upsampled.log_scale, valid),
    }


def total_loss(per_step, config):
    """Weighted sum over the steps' dicts."""
    weights = config.step_weights or (1.0,) * len(per_step)
    return sum(
        weight
        * (
            terms['depth']
            + config.class_weight * terms['range']
            + config.scale_weight * terms['scale']
        )
        for weight, terms in zip(weights, per_step, strict=True)
    )


class LossModule(torch.nn.Module):
    """The network and its losses in one forward, as data-parallel training wants it."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss
        self.of_steps = self._of_steps
        if loss.compile:
            if shutil.which(os.environ.get('CXX', 'g++')) is None:
                raise UsageError('loss: compile needs a C++ compiler: apt-get install g++')
            # Bound by memory at the input's size: a third of an iteration on a CPU otherwise.
            self.of_steps = torch.compile(self._of_steps, dynamic=False)

    def _of_steps(self, maps, mask, depth, depth_min, depth_max):
        space = self.model.config.bin_space
        # Steps as channels: the mask's softmax is taken once for all.
        fine = convex_upsample(torch.cat(maps, 1), mask.float()).split(maps[0].shape[1], 1)
        return [
            step_losses(Upsampled.of(m), depth, depth_min, depth_max, space, self.loss)
            for m in fine
        ]

    def forward(self, image, depth, depth_min, depth_max):
        """Return the loss of a batch, and the last step's terms."""
        outputs, encoded = self.model(image, depth_min, depth_max)
        mask = encoded.upsample_mask
        maps = [output.maps_at(mask.shape[-2:]) for output in outputs]
        per_step = self.of_steps(maps, mask, depth, depth_min, depth_max)
        return total_loss(per_step, self.loss), per_step[-1]

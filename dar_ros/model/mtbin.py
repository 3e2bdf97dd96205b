"""
Multiway tree bins (MTBin): per-pixel depth windows that narrow from step to step (DAR, section
3.3).

All bins of a pixel are equal in bin space (z, or log z), so its state is two numbers: the low and
the high edge of its window, each (B, 1, h, w). No gradient flows through the choice of a window.
"""

import torch
from torch.nn import functional as F


def to_bin_space(depth, bin_space):
    """Metres -> bin space."""
    return torch.log(depth) if bin_space == 'log' else depth


def from_bin_space(u, bin_space):
    """Bin space -> metres."""
    return torch.exp(u) if bin_space == 'log' else u


def expected_value(low, high, bin_probs):
    """
    D = sum_i c^i p^i, (B, 1, h, w), in bin space; a bin's centre c^i = (b^i + b^(i+1)) / 2.

    In log space this is the geometric mean: the arithmetic one lets a few percent of probability
    on the far end of [0.1, 100] m move a near pixel by metres.
    """
    num_bins = bin_probs.shape[1]
    # Of the window [0, 1]: there they are the same for every pixel.
    bin_centers = (torch.arange(num_bins, device=low.device, dtype=low.dtype) + 0.5) / num_bins
    fraction = (bin_probs * bin_centers.view(1, -1, 1, 1)).sum(1, keepdim=True)
    return low + (high - low) * fraction


def narrow(low, high, u, num_bins, neighbors=1):
    """
    Window of the next step: the bin that holds u and `neighbors` bins on each side, within [low,
    high].

    With t counted from 1 and one neighbour: [b^max(t-1,1), b^min(t+2,N+1)].
    """
    width = (high - low) / num_bins
    chosen = torch.floor((u - low) / width).clamp(0, num_bins - 1)  # t - 1
    new_low = low + (chosen - neighbors).clamp(min=0) * width
    new_high = low + (chosen + neighbors + 1).clamp(max=num_bins) * width
    return new_low.detach(), new_high.detach()


def hull(low, high, size):
    """
    Windows on a finer grid `size`: the hull of a pixel's 3x3 coarse neighbours' windows.

    Interpolated edges would, across a depth edge, bound a window that holds neither surface.
    """
    low = -F.max_pool2d(-low, 3, stride=1, padding=1)
    high = F.max_pool2d(high, 3, stride=1, padding=1)
    return F.interpolate(low, size=size, mode='nearest'), F.interpolate(
        high, size=size, mode='nearest'
    )

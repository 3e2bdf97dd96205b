"""
Bins injection: the window's candidates enter the latent token map through a ConvGRU (DAR, section
3.4).
"""

import torch
from torch import nn

from dar_ros.model.mtbin import from_bin_space


class ConvGRU(nn.Module):
    """One update of hidden (B, C, h, w) by input (B, D, h, w)."""

    def __init__(self, hidden_width, input_width):
        super().__init__()
        self.gates = nn.Conv2d(hidden_width + input_width, 2 * hidden_width, 3, padding=1)
        self.candidate = nn.Conv2d(hidden_width + input_width, hidden_width, 3, padding=1)

    def forward(self, hidden, x):
        """Return the new hidden state."""
        update, reset = torch.sigmoid(self.gates(torch.cat([hidden, x], 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat([reset * hidden, x], 1)))
        return (1 - update) * hidden + update * candidate


class BinsInjection(nn.Module):
    """
    f_bin = Conv3x3(c_k), r_k = ConvGRU(hidden = y_out_k, input = f_bin).

    The N centres normalised to their window are the same for every pixel, so what c_k says of a
    pixel is two numbers: the log of its window's centre and the log of its width.
    """

    def __init__(self, config):
        super().__init__()
        self.bin_space = config.bin_space
        width = config.latent_width // 2
        self.embed = nn.Sequential(nn.Conv2d(2, width, 3, padding=1), nn.GELU())
        self.gru = ConvGRU(config.latent_width, width)

    def forward(self, hidden, low, high):
        """Hidden (B, C, h, w) and window edges (B, 1, h, w) in bin space -> r_k (B, C, h, w)."""
        center, width = (low + high) / 2, (high - low).clamp(min=1e-4)
        if self.bin_space == 'linear':
            center = torch.log(from_bin_space(center, 'linear'))
        return self.gru(hidden, self.embed(torch.cat([center, torch.log(width)], 1)))

"""
DAR, the depth autoregressive model (CVPR 2025, arXiv 2411.11361), with a canonical camera.

Image -> encode -> step 1..K -> upsample. Everything here is in canonical metres or in bin space;
the focal length and the image's own size are the caller's.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from dar_ros.model import mtbin
from dar_ros.model.bins_injection import BinsInjection
from dar_ros.model.encoder import ImageEncoder, resize
from dar_ros.model.transformer import DARTransformer, KeyValues

UPSAMPLING = 4  # from the last depth grid (1/4 of the input) to the input


class EncodedImage(NamedTuple):
    """What the steps need of an image; computed once."""

    memory: KeyValues  # of the M image tokens, at 1/memory_stride of the input
    detail: torch.Tensor  # (B, latent_width, H/4, W/4)
    start: torch.Tensor  # (B, latent_width, h_1, w_1)
    upsample_mask: torch.Tensor  # (B, 9 * 16, H/4, W/4) logits


class StepState(NamedTuple):
    """What a step hands to the next."""

    latent: torch.Tensor  # r_{k-1} (B, latent_width, h, w) on the depth grid; first the start
    low: torch.Tensor  # (B, 1, h, w), bin space
    high: torch.Tensor
    cache: KeyValues


class StepOutput(NamedTuple):
    """What a step says, on its depth grid (h, w)."""

    depth: torch.Tensor  # (B, 1, h, w), bin space
    range_logits: torch.Tensor  # (B, 3, h, w): too near, in range, beyond
    log_scale: torch.Tensor  # (B, 1, h, w): log of the Laplace scale of the log-depth error

    def maps_at(self, size):
        """Return what is upsampled, (B, 5, rows, columns): depth, range logits, log scale."""
        return resize(torch.cat([self.depth, self.range_logits, self.log_scale], 1), size)


class Upsampled(NamedTuple):
    """A step's output at the input's size."""

    depth: torch.Tensor  # (B, 1, H, W), bin space
    range_logits: torch.Tensor  # (B, 3, H, W)
    log_scale: torch.Tensor  # (B, 1, H, W)

    @classmethod
    def of(cls, maps):
        """Name the channels of upsampled StepOutput.maps_at, (B, 5, H, W)."""
        return cls(maps[:, :1], maps[:, 1:4], maps[:, 4:])


class DAR(nn.Module):
    """The network. `forward` is what training calls; export traces encode, step and upsample."""

    def __init__(self, config, pretrained_encoder=False):
        super().__init__()
        self.config = config
        width, latent = config.width, config.latent_width
        self.encoder = ImageEncoder(config, pretrained_encoder)
        self.transformer = DARTransformer(config)
        rows, columns = config.grid_sizes()[-1]
        self.position = nn.Parameter(
            torch.randn(1, width, max(1, rows // 2), max(1, columns // 2)) * 0.02
        )
        self.memory_position = nn.Parameter(
            torch.randn(1, config.memory_width, max(1, rows // 2), max(1, columns // 2)) * 0.02
        )
        self.step_embedding = nn.Parameter(torch.randn(config.num_steps, width) * 0.02)
        self.start_embedding = nn.Parameter(torch.zeros(1, latent, 1, 1))
        self.start_proj = nn.Conv2d(config.memory_width, latent, 1)
        self.token_in = nn.Conv2d(latent, width, 1)
        self.token_out = nn.Linear(width, latent)
        self.injection = BinsInjection(config) if config.use_injection else None
        self.bin_head = nn.Conv2d(latent, config.num_bins if config.use_bins else 1, 1)
        self.range_head = nn.Conv2d(latent, 3, 1)
        self.scale_head = nn.Conv2d(latent, 1, 1)
        self.mask_head = nn.Sequential(
            nn.Conv2d(latent, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 9 * UPSAMPLING**2, 1)
        )
        nn.init.constant_(self.scale_head.bias, -1.5)  # a relative error of 0.2
        with torch.no_grad():
            self.range_head.bias.copy_(torch.tensor([-2.0, 2.0, 0.0]))

    def encode(self, image):
        """RGB uint8 (B, H, W, 3) -> EncodedImage."""
        memory, detail = self.encoder(image)
        grid = self.config.grid_sizes(image.shape[1:3])[0]
        kernel = tuple(side // n for side, n in zip(memory.shape[-2:], grid))
        pooled = resize(F.avg_pool2d(memory, kernel), grid)
        start = torch.tanh(self.start_proj(pooled) + self.start_embedding)
        stride = self.config.memory_stride
        tokens = resize(memory, (image.shape[1] // stride, image.shape[2] // stride))
        tokens = tokens + resize(self.memory_position, tokens.shape[-2:])
        tokens = tokens.flatten(2).transpose(1, 2)  # (B, C, h, w) -> (B, M, C)
        return EncodedImage(
            self.transformer.project_memory(tokens), detail, start, self.mask_head(detail)
        )

    def initial_state(self, encoded, depth_min, depth_max):
        """State before step 1; depth_min and depth_max (B,) in canonical metres."""
        low, high = (
            mtbin.to_bin_space(z.float(), self.config.bin_space)
            .view(-1, 1, 1, 1)
            .expand(-1, 1, *encoded.start.shape[-2:])
            for z in (depth_min, depth_max)
        )
        return StepState(encoded.start, low, high, self.transformer.empty_cache(encoded.memory))

    def tokens(self, latent, grid, step_index):
        """y_k: r_{k-1} on the token grid of step k, plus position and step -> (B, h * w, C)."""
        token_map = self.token_in(resize(latent, grid)) + resize(self.position, grid)
        embedding = self.step_embedding.index_select(0, step_index)  # (1, C)
        return token_map.flatten(2).transpose(1, 2) + embedding

    def step(self, state, encoded, grid, depth_grid, step_index):
        """
        One autoregressive step: StepState -> StepState, StepOutput.

        `grid` and `depth_grid` are the step's sizes (rows, columns); `step_index` is an int64
        tensor (1,), from 0.
        """
        y = self.tokens(state.latent, grid, step_index)
        y, cache = self.transformer(y, state.cache, encoded.memory)
        return self.decode(y, state, cache, encoded, grid, depth_grid)

    def decode(self, y, state, cache, encoded, grid, depth_grid):
        """Output tokens of a step (B, h * w, C) -> its latent, depth and the next windows."""
        config = self.config
        token_map = self.token_out(y).transpose(1, 2)
        token_map = token_map.reshape(
            y.shape[0], -1, *grid
        )  # (B, latent, h * w) -> (B, latent, h, w)
        # A GRU's state lies in [-1, 1]; so do r_k and what the heads and the next step see of it.
        hidden = torch.tanh(resize(token_map, depth_grid) + resize(encoded.detail, depth_grid))
        low, high = mtbin.hull(state.low, state.high, depth_grid)
        latent = hidden if self.injection is None else self.injection(hidden, low, high)
        logits = self.bin_head(latent).float()
        if config.use_bins:
            depth = mtbin.expected_value(low, high, torch.softmax(logits, 1))
        else:
            depth = low + (high - low) * torch.sigmoid(logits)
        next_low, next_high = low, high
        if config.refine_bins and config.use_bins:
            next_low, next_high = mtbin.narrow(
                low, high, depth, config.num_bins, config.window_neighbors
            )
        output = StepOutput(
            depth, self.range_head(latent).float(), self.scale_head(latent).float().clamp(-6, 1)
        )
        return StepState(latent, next_low, next_high, cache), output

    def upsample(self, output, mask):
        """
        StepOutput on any depth grid -> Upsampled at the input's size, by learned convex
        combinations.
        """
        return Upsampled.of(convex_upsample(output.maps_at(mask.shape[-2:]), mask.float()))

    def forward(self, image, depth_min, depth_max):
        """
        RGB uint8 (B, H, W, 3), canonical range (B,), (B,) -> [StepOutput] of the steps,
        EncodedImage.

        Steps are sequential in training too; the cache carries gradients.
        """
        encoded = self.encode(image)
        state = self.initial_state(encoded, depth_min, depth_max)
        outputs = []
        size = image.shape[1:3]
        grids = zip(self.config.grid_sizes(size), self.config.depth_grid_sizes(size))
        for k, (grid, depth_grid) in enumerate(grids):
            index = torch.tensor([k], device=image.device)
            state, output = self.step(state, encoded, grid, depth_grid, index)
            outputs.append(output)
        return outputs, encoded


def convex_upsample(x, mask):
    """
    Every fine pixel is a convex combination of the 3x3 coarse pixels around it (RAFT, ECCV 2020).

    x (B, C, h, w), mask logits (B, 9 * 16, h, w) -> (B, C, 4 h, 4 w).
    """
    batch, channels, h, w = x.shape
    mask = mask.view(batch, 1, 9, UPSAMPLING**2, h, w)
    # A softmax over the nine, divided once at the end: along an inner axis onnxruntime's Softmax
    # takes four times as long as all the rest here.
    weights = torch.exp(mask - mask.amax(2, keepdim=True))
    padded = F.pad(x, (1, 1, 1, 1), mode='replicate')
    neighbors = [padded[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    weights = weights.unbind(2)  # 9 x (B, 1, 16, h, w)
    fine = sum(neighbor.unsqueeze(2) * weight for neighbor, weight in zip(neighbors, weights))
    fine = fine / sum(weights)
    # (B, C, 16, h, w) -> (B, C * 16, h, w) -> (B, C, 4 h, 4 w)
    return F.pixel_shuffle(fine.reshape(batch, channels * UPSAMPLING**2, h, w), UPSAMPLING)

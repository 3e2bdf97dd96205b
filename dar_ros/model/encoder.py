"""
Image encoder: a timm backbone and a neck that fuses its features at 1/8 and 1/4 of the input.
"""

import functools

import timm
import torch
from torch import nn
from torch.nn import functional as F

from dar_ros.errors import UsageError

_CNN_STRIDES = (4, 8, 16, 32)
_DETAIL_STRIDES = (4, 8)


def resize(x, size):
    """Bilinear resize of (B, C, h, w) to size (rows, columns)."""
    static = not any(isinstance(side, torch.SymInt) for side in (*x.shape[-2:], *size))
    if static and tuple(x.shape[-2:]) == tuple(
        size
    ):  # a dynamic graph must not specialise on equality
        return x
    return F.interpolate(x, size=size, mode='bilinear', align_corners=False)


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, pointwise, activation: a full 3x3 costs nine times as much here."""

    def __init__(self, width):
        super().__init__(
            nn.Conv2d(width, width, 3, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
            nn.GELU(),
        )


class NeckBlock(nn.Module):
    """
    Residual block of a ConvNeXt (CVPR 2022), (B, C, h, w) in and out: depthwise 7x7, norm, and two
    pointwise layers.

    The last begins at zero: a new block changes nothing of a trained network, until trained.
    """

    def __init__(self, width):
        super().__init__()
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = ChannelNorm(width)
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.project = nn.Conv2d(2 * width, width, 1)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x):
        """See the class."""
        return x + self.project(F.gelu(self.expand(self.norm(self.spatial(x)))))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm of every pixel of (B, C, h, w) over its channels."""

    def forward(self, x):
        """See the class."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class DetailEncoder(nn.Module):
    """
    Shallow CNN beside a ViT: RGB uint8 (B, H, W, 3) -> (B, latent_width, H/4, W/4), (B,
    memory_width, H/8, W/8), to be added to the neck's features.

    A ViT has one token in 14 pixels, and its neck nothing to find an edge within them by. Deeper
    layers are left to the ViT: what they see is what a simulator teaches wrongly. The projections
    begin at zero, as NeckBlock's.
    """

    def __init__(self, config):
        super().__init__()
        if 'efficientnet' not in config.detail_backbone or not timm.is_model(
            config.detail_backbone
        ):
            raise UsageError(
                f'detail_backbone {config.detail_backbone}: expected an EfficientNet of timm'
            )
        self.backbone = timm.create_model(
            config.detail_backbone,
            features_only=True,
            out_indices=_indices(config.detail_backbone, _DETAIL_STRIDES),
        )
        last = self.backbone.feature_info.module_name()[-1]  # blocks.N; timm keeps what follows
        self.backbone.blocks = self.backbone.blocks[: int(last.removeprefix('blocks.')) + 1]
        channels = self.backbone.feature_info.channels()
        self.norms = nn.ModuleList(ChannelNorm(c) for c in channels)
        self.laterals = nn.ModuleList(
            nn.Conv2d(c, width, 1)
            for c, width in zip(channels, (config.latent_width, config.memory_width))
        )
        for lateral in self.laterals:
            nn.init.zeros_(lateral.weight)
            nn.init.zeros_(lateral.bias)
        trained = timm.get_pretrained_cfg(config.detail_backbone)
        self.pixels = Pixels(trained.mean, trained.std)

    def forward(self, image):
        """See the class."""
        features = self.backbone(self.pixels(image))
        return tuple(
            lateral(norm(feature))
            for lateral, norm, feature in zip(self.laterals, self.norms, features)
        )


class Adapter(nn.Module):
    """
    Residual bottleneck behind a ViT's block (Houlsby et al., ICML 2019), tokens (B, N, C) in and
    out: what a task needs and a frozen backbone lacks, in a hundredth of its weights.

    The last layer begins at zero, as NeckBlock's.
    """

    def __init__(self, channels, width):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x):
        """See the class."""
        return x + self.up(F.gelu(self.down(self.norm(x))))

    def behind(self, block):
        """Make `block` return what this adapter makes of its output; it keeps its parameters."""
        block.register_forward_hook(self._adapt)

    def _adapt(self, _block, _inputs, output):
        return self(output)


class Pixels(nn.Module):
    """RGB uint8 (B, H, W, 3) -> (B, 3, H, W) of the mean and deviation a backbone is used to."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer('scale', _column([1 / (255 * s) for s in std]), persistent=False)
        self.register_buffer(
            'offset', _column([-m / s for m, s in zip(mean, std)]), persistent=False
        )

    def forward(self, image):
        """See the class."""
        return image.float().permute(0, 3, 1, 2) * self.scale + self.offset


class ImageEncoder(nn.Module):
    """
    RGB uint8 (B, H, W, 3) -> memory (B, memory_width, H/8, W/8), detail (B, latent_width, H/4,
    W/4).

    The memory is what the transformer attends to. The detail feeds the depth grids, which are
    finer than the tokens, with edges that 1/8 cannot hold.

    Both leave normalised. A CNN's features have no scale of their own (a standard deviation of 6
    in EfficientNet-Lite with ImageNet's weights, and training may raise it), and what follows is a
    tanh: at ten times its range it passes on signs and no gradient.
    """

    def __init__(self, config, pretrained=False):
        super().__init__()
        self.is_vit = config.is_vit
        if self.is_vit:
            self.backbone = timm.create_model(
                config.backbone,
                img_size=tuple(config.input_size),
                num_classes=0,
                pretrained=pretrained,
            )
            self.layers = self._vit_layers(config.backbone)
            channels = [self.backbone.embed_dim] * len(self.layers)
        else:
            self.backbone = timm.create_model(
                config.backbone,
                features_only=True,
                pretrained=pretrained,
                out_indices=_indices(config.backbone, _CNN_STRIDES),
            )
            channels = self.backbone.feature_info.channels()
        # Beside the backbone, whose state dict stays that of its file.
        self.adapters = nn.ModuleList()
        if config.adapter_width:
            for block in self.backbone.blocks:
                self.adapters.append(Adapter(self.backbone.embed_dim, config.adapter_width))
                self.adapters[-1].behind(block)
        self.detail_encoder = DetailEncoder(config) if config.detail_backbone else None
        # The shallowest CNN feature (1/4) is the detail's; a plain ViT has one resolution only.
        self.detail_lateral = (
            None if self.is_vit else nn.Conv2d(channels[0], config.latent_width, 1)
        )
        coarse = channels if self.is_vit else channels[1:]
        self.laterals = nn.ModuleList(nn.Conv2d(c, config.memory_width, 1) for c in coarse)
        self.memory_conv = SeparableConv(config.memory_width)
        self.detail_proj = nn.Conv2d(config.memory_width, config.latent_width, 1)
        self.detail_conv = SeparableConv(config.latent_width)
        self.memory_blocks, self.detail_blocks = (
            nn.Sequential(*(NeckBlock(width) for _ in range(config.neck_blocks)))
            for width in (config.memory_width, config.latent_width)
        )
        self.memory_norm = ChannelNorm(config.memory_width)
        self.detail_norm = ChannelNorm(config.latent_width)
        self.pixels = Pixels(config.pixel_mean, config.pixel_std)

    @staticmethod
    def _vit_layers(backbone):
        depth = {'large': 24, 'giant': 40}.get(backbone.split('_')[1], 12)
        return [depth // 4 * (i + 1) - 1 for i in range(4)]

    def train(self, mode=True):
        """Keep batch norms on their pretrained statistics: batches are small, and sizes change."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def features(self, x):
        """
        (B, 3, H, W) -> backbone's features, from fine to coarse or from shallow to deep.

        A ViT's residual stream grows many times over from layer to layer: without a norm the neck
        would see its last layer only. Its own last norm serves all of them, as in DINOv2's and
        Depth Anything's decoders.
        """
        if not self.is_vit:
            return self.backbone(x)
        return self.backbone.forward_intermediates(
            x, self.layers, norm=True, output_fmt='NCHW', intermediates_only=True
        )

    def forward(self, image):
        """See the class."""
        rows, columns = image.shape[1:3]
        features = self.features(self.pixels(image))
        detail = None
        if self.detail_lateral is not None:
            detail, features = self.detail_lateral(features[0]), features[1:]
        fused = self.laterals[-1](features[-1])
        for lateral, feature in zip(reversed(self.laterals[:-1]), reversed(features[:-1])):
            lateral = lateral(feature)
            fused = lateral + resize(fused, lateral.shape[-2:])
        memory = resize(fused, (rows // 8, columns // 8))
        if self.detail_encoder is not None:
            detail, finer = self.detail_encoder(image)
            memory = memory + finer
        memory = self.memory_blocks(memory + self.memory_conv(memory))
        memory = self.memory_norm(memory)  # (B, memory_width, H/8, W/8)
        up = resize(self.detail_proj(memory), (rows // 4, columns // 4))
        detail = up if detail is None else detail + up
        detail = self.detail_blocks(detail + self.detail_conv(detail))
        return memory, self.detail_norm(detail)


@functools.cache
def _indices(backbone, strides):
    """Return which of a timm backbone's features have these strides."""
    probe = timm.create_model(backbone, features_only=True)
    return tuple(i for i, s in enumerate(probe.feature_info.reduction()) if s in strides)


def _column(values):
    return torch.tensor(values).view(1, -1, 1, 1)

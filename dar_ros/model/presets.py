"""Every network this package can build, as data."""

import math
import re
from dataclasses import asdict, dataclass, fields, replace

from dar_ros.errors import UsageError

BIN_SPACES = ('linear', 'log')
_POSITIVE = 'width layers heads mlp_ratio latent_width memory_width canonical_focal'.split()


@dataclass(frozen=True)
class ModelConfig:
    """
    Hyperparameters of one DAR network.

    The token grid of step k has `grid_fractions[k]` of the memory's rows and columns (the memory
    lies at 1/8 of the input), its depth grid `depth_fractions[k]` of those at 1/4: at least twice
    the token grid (each rounded), the last all of it. `canonical_focal` is in pixels of the
    input.
    """

    name: str
    backbone: str  # a model of timm: any that has features_only, or a plain ViT (vit_*)
    input_size: tuple[int, int] = (192, 256)  # rows, columns
    grid_fractions: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
    depth_fractions: tuple[float, ...] = (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
    num_bins: int = 16
    bin_space: str = 'linear'
    window_neighbors: int = 1  # bins kept on each side of the chosen one; the paper: 1
    refine_bins: bool = True  # False: every step sees the full range (an ablation)
    use_bins: bool = True  # False: each step regresses depth within the full range (an ablation)
    use_injection: bool = True  # False: no step sees its candidates, r_k = y_out_k (an ablation)
    canonical: bool = True  # False: the focal length is ignored, depth is real (an ablation)
    memory_width: int = 128
    memory_stride: int = 8  # input pixels per image token that the steps attend to
    detail_backbone: str = ''  # an EfficientNet whose 1/4 and 1/8 join a ViT's features; '': none
    adapter_width: int = 0  # channels of the bottleneck behind every block of a ViT; 0: none
    neck_blocks: int = 0  # residual convolutions of the encoder's features, at 1/8 and at 1/4
    width: int = 128
    layers: int = 2
    heads: int = 4
    mlp_ratio: float = 2.0
    latent_width: int = 48
    canonical_focal: float = 220.0
    # Of RGB, 0 to 1: what the backbone is used to.
    pixel_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    pixel_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    depth_range: tuple[float, float] = (0.1, 20.0)  # metres, a node's default
    # Canonical metres: extremes of the ranges drawn in training.
    trained_span: tuple[float, float] = (0.05, 120.0)

    def __post_init__(self):
        """Refuse what no network can be built from."""
        if self.bin_space not in BIN_SPACES:
            raise UsageError(f'bin_space {self.bin_space!r} is none of {", ".join(BIN_SPACES)}')
        # Of a side that its patches do not fill a ViT drops the rest and stretches what it saw.
        patch = re.search(r'patch(\d+)', self.backbone)
        multiple = math.lcm(8, int(patch[1])) if patch else 8
        if any(side < multiple or side % multiple for side in self.input_size):
            raise UsageError(
                f'input_size {self.input_size}: both sides must be multiples of {multiple} '
                f'for {self.backbone}'
            )
        if self.detail_backbone and not self.is_vit:
            raise UsageError(
                f'detail_backbone: {self.backbone} has its own features at 1/4 and 1/8'
            )
        if self.adapter_width and not self.is_vit:
            raise UsageError(f'adapter_width: {self.backbone} is no ViT')
        if self.memory_stride < 8:
            raise UsageError(f'memory_stride {self.memory_stride}: the memory itself lies at 8')
        if self.window_neighbors < 1 or self.num_bins < 2 * self.window_neighbors + 1:
            raise UsageError(
                f'num_bins {self.num_bins} is too small for {self.window_neighbors} neighbours'
            )
        last = tuple(self.depth_fractions)[-1:]
        if len(self.grid_fractions) != len(self.depth_fractions) or last != (1,):
            raise UsageError('depth_fractions needs one entry per step, the last of them 1')
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise UsageError(f'{name} is {getattr(self, name)}; more than 0 is expected')
        if self.width % self.heads:
            raise UsageError(f'heads: {self.heads} do not divide a width of {self.width}')
        for name in ('grid_fractions', 'depth_fractions', 'pixel_std'):
            if not all(0 < value <= 1 for value in getattr(self, name)):
                raise UsageError(f'{name}: each must be above 0 and at most 1')
        if min(self.adapter_width, self.neck_blocks) < 0:
            raise UsageError('adapter_width and neck_blocks: at least 0 is expected')
        near, far = self.depth_range
        if not 0 < near < far:
            raise UsageError(f'depth_range is {near} to {far}; 0 < NEAR < FAR is expected')
        for name in (
            'input_size',
            'grid_fractions',
            'depth_fractions',
            'depth_range',
            'trained_span',
            'pixel_mean',
            'pixel_std',
        ):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def is_vit(self):
        """Whether the backbone is a plain ViT: one resolution, and made for one input size."""
        return self.backbone.startswith('vit')

    @property
    def num_steps(self):
        """K, the number of autoregressive steps."""
        return len(self.grid_fractions)

    def grid_sizes(self, input_size=None):
        """Token grid (h, w) of every step for an input of (rows, columns)."""
        return _fractions_of(input_size or self.input_size, 8, self.grid_fractions)

    def depth_grid_sizes(self, input_size=None):
        """Depth grid (h, w) of every step for an input of (rows, columns)."""
        return _fractions_of(input_size or self.input_size, 4, self.depth_fractions)

    @property
    def focal(self):
        """
        Canonical focal length in pixels of the network's input, of any size; None if not
        `canonical`.

        In pixels, not as a field of view: a network takes so many pixels of a door for so many
        metres, at every size it is trained or run at.
        """
        return self.canonical_focal if self.canonical else None

    def to_dict(self):
        """Return plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data):
        """Build from plain data; an unknown key is an error."""
        unknown = set(data) - {field.name for field in fields(cls)}
        if unknown:
            raise UsageError(f'unknown model setting {", ".join(sorted(unknown))}')
        return cls(**data)


def _fractions_of(input_size, stride, fractions):
    rows, columns = (side // stride for side in input_size)
    return [(max(1, round(rows * f)), max(1, round(columns * f))) for f in fractions]


_PAPER = ModelConfig(
    name='dar_small',
    backbone='vit_large_patch14_dinov2',
    input_size=(448, 560),
    num_bins=16,
    bin_space='linear',
    memory_width=1536,
    width=1184,
    layers=5,
    heads=16,
    mlp_ratio=4.0,
    latent_width=256,
    canonical_focal=480.0,
    depth_range=(0.1, 10.0),
)

# Log bins, and windows of five bins of eight instead of the paper's three, won the bake-off of
# docs/accuracy.md: a window that narrows more slowly lets a late, finer step still mend an early
# mistake. The last token grids of dar_tiny stay small: on a CPU attention between 24x32 tokens
# costs more than the encoder, while the depth grids, fed by the encoder's detail, carry the
# resolution.
_TINY_GRIDS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8)

# A ViT's features come from one token in 14 pixels: resized to 1/8 they are no more, only more
# tokens to attend to. So dar_edge's steps attend to them at 1/14, and its last token grid is no
# finer than the encoder's: five steps then cost a quarter to a third of the encoder on a CPU.
PRESETS = {
    'dar_tiny': ModelConfig(
        'dar_tiny',
        'tf_efficientnet_lite0',
        grid_fractions=_TINY_GRIDS,
        neck_blocks=3,
        num_bins=8,
        bin_space='log',
        window_neighbors=2,
        pixel_mean=(0.5, 0.5, 0.5),  # as EfficientNet-Lite was trained, unlike EfficientNet
        pixel_std=(0.5, 0.5, 0.5),
    ),
    'dar_edge': ModelConfig(
        'dar_edge',
        'vit_small_patch14_dinov2',
        input_size=(224, 280),
        grid_fractions=(1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2),
        depth_fractions=(1 / 8, 1 / 4, 3 / 8, 1 / 2, 1.0),
        num_bins=8,
        bin_space='log',
        window_neighbors=2,
        memory_width=192,
        memory_stride=14,
        width=192,
        layers=2,
        heads=3,
        latent_width=48,
        canonical_focal=240.0,
    ),
    'dar_small': _PAPER,
    'dar_base': replace(_PAPER, name='dar_base', width=2560, layers=7),
    'dar_large': replace(_PAPER, name='dar_large', width=2944, layers=13),
}


def preset(name):
    """Return the preset of that name, or raise UsageError that lists them."""
    if name not in PRESETS:
        raise UsageError(f'no preset {name!r}; there are {", ".join(PRESETS)}')
    return PRESETS[name]

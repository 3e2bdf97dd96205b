"""The training configuration: one YAML file, strictly read."""

import functools
import json
import math
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import timm
import yaml

from dar_ros.errors import UsageError, first_line
from dar_ros.model.presets import ModelConfig, preset
from dar_ros.settings import build
from dar_ros.training.datasets import AugmentConfig, RangeConfig
from dar_ros.training.losses import LossConfig

# Least and most of a number.
_BOUNDS = {
    'seed': (0, math.inf),
    'workers': (0, math.inf),
    'validate_every': (1, math.inf),
    'validation_frames': (1, math.inf),
    'accumulate': (1, math.inf),
    'loss.beta': (0, 1),
    'optimizer.start': (0, math.inf),
    'optimizer.peak': (0, math.inf),
    'optimizer.end': (0, math.inf),
    'optimizer.warmup': (0, 1),
    'optimizer.encoder_scale': (0, math.inf),
    'optimizer.weight_decay': (0, math.inf),
    'optimizer.clip': (0, math.inf),
    **{f'augment.{item.name}': (0, 1) for item in fields(AugmentConfig)},
    'augment.min_fov': (0, 179),
}


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one input size."""

    size: tuple[int, int]
    iterations: int
    batch: int


@dataclass(frozen=True)
class OptimizerConfig:
    """
    AdamW; the rate rises linearly from `start` to `peak`, then falls linearly to `end` (DAR,
    section 4).
    """

    start: float = 3e-5
    peak: float = 5e-4
    end: float = 0.0
    warmup: float = 0.1  # share of all iterations
    encoder_scale: float = 1.0  # rate of the pretrained backbone relative to the rest
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on."""

    name: str
    model: ModelConfig
    # A folder, or a list of them; one that is named twice counts twice.
    train_data: str | tuple[str, ...]
    val_data: str | tuple[str, ...]
    out: str
    stages: tuple[Stage, ...]
    # imagenet, random, timm (downloads), a file of DINOv2 or Depth Anything, or the folder of a
    # checkpoint or of a bundle
    init: str = 'imagenet'
    # The backbone's file, where `init` is a checkpoint that comes without.
    encoder: str = ''
    # imagenet, random, or the folder of a checkpoint or of a bundle with that backbone: where a
    # model.detail_backbone begins that does not come from `init`.
    detail_init: str = 'imagenet'
    # Beginnings of the names of parameters: which do not come from `init`, which are not trained.
    fresh: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    dataset: str = 'sim'  # what train_data and val_data are: sim, or one of dar_ros.datasets
    train_split: str = ''  # list of frames, where the data set needs one, or a folder has one
    val_split: str = ''
    seed: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    ranges: RangeConfig = field(default_factory=RangeConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validate_every: int = 500
    validation_frames: int = 200
    workers: int = 0  # processes that load samples, for each process that trains
    strategy: Literal['ddp', 'fsdp'] = (
        'ddp'  # of several processes; fsdp: each holds a shard of the weights
    )
    precision: Literal['32-true', 'bf16-mixed', '16-mixed'] = '32-true'  # as Lightning Fabric's
    accumulate: int = 1  # parts that every process cuts its share of a batch into
    ema: float = 0.0  # decay of an average of the weights, which is validated and kept; 0: off

    @property
    def iterations(self):
        """Iterations of all stages."""
        return sum(stage.iterations for stage in self.stages)


def read_yaml(path):
    """Return the mapping that a YAML file holds; UsageError if it holds none."""
    try:
        data = yaml.safe_load(Path(path).read_text('utf-8-sig'))
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f'{path}: not a readable YAML file ({first_line(error)})') from None
    except UnicodeDecodeError:
        raise UsageError(f'{path} is no UTF-8: save it so') from None
    if not isinstance(data, dict):
        raise UsageError(f'{path}: expected a mapping of settings')
    return data


def load_config(path, overrides=None):
    """
    Read a YAML file into a TrainConfig; `overrides` replaces top-level settings. UsageError names
    the fault.
    """
    return parse_config({**read_yaml(path), **(overrides or {})}, str(path))


def parse_config(data, source='training configuration'):
    """Plain data -> TrainConfig; UsageError names a setting that no run can be made of."""
    try:
        if 'model' in data:
            data = {**data, 'model': _model(data['model'])}
        config = build(TrainConfig, data)
        _check(config)
    except UsageError as error:
        raise UsageError(f'{source}: {error}') from None
    # What a bundle warns of: a farther range than any that was drawn.
    near, far = (
        (*config.ranges.depth_min, *config.model.trained_span)[0],
        config.ranges.depth_max[1],
    )
    return replace(config, model=replace(config.model, trained_span=(near, far)))


def _model(data):
    """Return the ModelConfig of the settings `model`: a preset and what differs from it."""
    if not isinstance(data, dict) or not isinstance(data.get('preset'), str):
        name = data if isinstance(data, str) else 'dar_tiny'
        raise UsageError(f'model: {data} names no preset; write model: {{preset: {name}}}')
    settings = {key: value for key, value in data.items() if key != 'preset'}
    model = build(ModelConfig, settings, 'model.', preset(data['preset']))
    if not timm.is_model(model.backbone):
        raise UsageError(f'model.backbone: timm has no {model.backbone}')
    return model


def changed_settings(config, training):
    """
    Return the settings, but for `model`, in which a TrainConfig differs from a run's record of its
    own.

    Of a setting that is newer than the run it had the default.
    """
    defaults = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    now, before = (
        json.loads(json.dumps(data | {'model': None}))
        for data in (asdict(config), defaults | training)
    )
    return [key for key, value in now.items() if before.get(key) != value]


def _check(config):
    """UsageError for what no run can be made of."""
    for name, (low, high) in _BOUNDS.items():
        value = functools.reduce(getattr, name.split('.'), config)
        if not low <= value <= high:
            limits = f'{low} to {high}' if high < math.inf else f'at least {low}'
            raise UsageError(f'{name} is {value}; {limits} is expected')
    for name in ('name', 'train_data', 'val_data', 'out', 'stages', 'init', 'detail_init'):
        if not getattr(config, name):
            raise UsageError(f'{name} is empty')
    for name, counts in (('depth_min', (0, 2)), ('depth_max', (2,))):
        bounds = getattr(config.ranges, name)
        if len(bounds) not in counts or bounds and not 0 < bounds[0] <= bounds[1]:
            raise UsageError(f'ranges.{name} is {list(bounds)}; [LOW, HIGH] is expected')
    sizes = {stage.size for stage in config.stages}
    if config.model.is_vit and sizes != {config.model.input_size}:
        raise UsageError(
            f'{config.model.backbone} is trained at its input_size alone, '
            f'{config.model.input_size}, in every stage'
        )
    for stage in config.stages:
        if any(side < 8 or side % 8 for side in stage.size):
            raise UsageError(
                f'a stage is of size {list(stage.size)}; two multiples of 8 are needed'
            )
        if stage.iterations < 1 or stage.batch < 1:
            raise UsageError('a stage needs at least 1 iteration, of at least 1 image')
    weights, steps = config.loss.step_weights, config.model.num_steps
    if weights and len(weights) != steps:
        raise UsageError(
            f'step_weights has {len(weights)} numbers for {steps} steps of {config.model.name}'
        )
    if not 0 <= config.ema < 1:
        raise UsageError(f'ema is {config.ema}; at least 0 and below 1 is expected')
    if config.strategy == 'fsdp' and config.ema:
        raise UsageError('strategy fsdp keeps no average; set ema to 0')
    if (config.strategy, config.precision) == ('fsdp', '16-mixed'):
        raise UsageError('strategy fsdp has no 16-mixed; use bf16-mixed')
    if config.dataset == 'sim' and (config.train_split or config.val_split):
        raise UsageError('simulated data sets have no lists of frames')

"""The training configuration: one YAML file, strictly read."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml

from dar_ros.errors import UsageError, first_line
from dar_ros.model.presets import ModelConfig, preset
from dar_ros.training.datasets import AugmentConfig, RangeConfig
from dar_ros.training.losses import LossConfig

STRATEGIES = ('ddp', 'fsdp')
PRECISIONS = ('32-true', 'bf16-mixed', '16-mixed')


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one input size."""

    size: tuple
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
    train_data: str  # a folder, or a list of them; one that is named twice counts twice
    val_data: str
    out: str
    stages: tuple
    # imagenet, random, timm (downloads), a file of DINOv2 or Depth Anything, or the folder of a
    # checkpoint or of a bundle
    init: str = 'imagenet'
    # The backbone's file, where `init` is a checkpoint that comes without.
    encoder: str = ''
    # imagenet, random, or the folder of a checkpoint or of a bundle with that backbone: where a
    # model.detail_backbone begins that does not come from `init`.
    detail_init: str = 'imagenet'
    fresh: tuple = ()  # beginnings of the names of parameters that do not come from `init`
    freeze: tuple = ()  # beginnings of the names of parameters that keep their initial values
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
    strategy: str = 'ddp'  # of several processes; fsdp: each holds a shard of the weights
    precision: str = '32-true'  # or bf16-mixed, 16-mixed: Lightning Fabric's names
    accumulate: int = 1  # parts that every process cuts its share of a batch into
    ema: float = 0.0  # decay of an average of the weights, which is validated and kept; 0: off

    @property
    def iterations(self):
        """Iterations of all stages."""
        return sum(stage.iterations for stage in self.stages)


def load_config(path, overrides=None):
    """
    Read a YAML file into a TrainConfig; `overrides` replaces top-level settings. UsageError names
    the fault.
    """
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f'{path}: not a readable YAML file ({first_line(error)})') from None
    if not isinstance(data, dict):
        raise UsageError(f'{path}: expected a mapping of settings')
    return parse_config({**data, **(overrides or {})}, str(path))


def parse_config(data, source='training configuration'):
    """Plain data -> TrainConfig; unknown or missing keys are errors."""
    data = dict(data)
    try:
        model = dict(data.pop('model'))
        data['model'] = replace(preset(model.pop('preset')), **model)
        data['stages'] = tuple(
            Stage(**{**stage, 'size': tuple(stage['size'])}) for stage in data['stages']
        )
        for key, kind in (
            ('loss', LossConfig),
            ('ranges', RangeConfig),
            ('augment', AugmentConfig),
            ('optimizer', OptimizerConfig),
        ):
            data[key] = kind(**data.get(key, {}))
        config = TrainConfig(**data)
        _check(config, source)
    except KeyError as error:
        raise UsageError(f'{source}: setting {error} is missing') from None
    except TypeError as error:
        raise UsageError(f'{source}: {str(error).split("__init__() ")[-1]}') from None
    # What a bundle warns of: a farther range than any that was drawn.
    near, far = (
        (*config.ranges.depth_min, *config.model.trained_span)[0],
        config.ranges.depth_max[1],
    )
    return replace(config, model=replace(config.model, trained_span=(near, far)))


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


def _check(config, source):
    """UsageError for what no run can be made of."""
    _check_sections(config, source)
    sizes = {stage.size for stage in config.stages}
    if not sizes:
        raise UsageError(f'{source}: stages is empty')
    if config.model.is_vit and sizes != {config.model.input_size}:
        raise UsageError(
            f'{source}: {config.model.backbone} is trained at its input_size alone, '
            f'{config.model.input_size}, in every stage'
        )
    for stage in config.stages:
        if len(stage.size) != 2 or any(
            not isinstance(side, int) or side < 8 or side % 8 for side in stage.size
        ):
            raise UsageError(
                f'{source}: a stage is of size {list(stage.size)}; two multiples of 8 are needed'
            )
        if stage.iterations < 1 or stage.batch < 1:
            raise UsageError(f'{source}: a stage needs at least 1 iteration, of at least 1 image')
    weights, steps = config.loss.step_weights, config.model.num_steps
    if weights and len(weights) != steps:
        raise UsageError(
            f'{source}: step_weights has {len(weights)} numbers for {steps} steps of '
            f'{config.model.name}'
        )
    if config.strategy not in STRATEGIES:
        raise UsageError(f'{source}: strategy {config.strategy} is none of ddp, fsdp')
    if config.strategy == 'fsdp' and config.ema:
        raise UsageError(f'{source}: strategy fsdp keeps no average; set ema to 0')
    if config.accumulate < 1 or not 0 <= config.ema < 1:
        raise UsageError(f'{source}: accumulate must be at least 1, ema at least 0 and below 1')
    if config.validate_every < 1 or config.validation_frames < 1:
        raise UsageError(f'{source}: validate_every and validation_frames must be at least 1')
    if config.precision not in PRECISIONS:
        raise UsageError(
            f'{source}: precision {config.precision} is none of {", ".join(PRECISIONS)}'
        )
    if (config.strategy, config.precision) == ('fsdp', '16-mixed'):
        raise UsageError(f'{source}: strategy fsdp has no 16-mixed; use bf16-mixed')
    if config.dataset == 'sim' and (config.train_split or config.val_split):
        raise UsageError(f'{source}: simulated data sets have no lists of frames')


def _check_sections(config, source):
    """UsageError for a number that is text or out of its bounds, or one where two are needed."""
    for name in ('loss', 'augment', 'optimizer', 'ranges'):
        section = getattr(config, name)
        for item in fields(section):
            if isinstance(getattr(section, item.name), str):  # YAML reads 1e-4 as text
                raise UsageError(f'{source}: {item.name} is text; write 1.0e-4, not 1e-4')
    for item in fields(config.augment):
        value, most = getattr(config.augment, item.name), 179 if item.name == 'min_fov' else 1
        if not 0 <= value <= most:
            raise UsageError(f'{source}: augment.{item.name} is {value}; 0 to {most} is expected')
    for name in ('fresh', 'freeze'):
        if isinstance(getattr(config, name), str):
            raise UsageError(f'{source}: {name} is text; a list is expected')
    for name, counts in (('depth_min', (0, 2)), ('depth_max', (2,))):
        bounds = getattr(config.ranges, name)
        if not isinstance(bounds, (list, tuple)) or len(bounds) not in counts:
            raise UsageError(f'{source}: ranges.{name} is {bounds}; [LOW, HIGH] is expected')
        if bounds and not 0 < bounds[0] <= bounds[1]:
            raise UsageError(f'{source}: ranges.{name}: {bounds[0]} to {bounds[1]} is no range')

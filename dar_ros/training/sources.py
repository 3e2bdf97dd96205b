"""Where a run gets its frames and its first weights from."""

from pathlib import Path

import timm
import torch
from torch.utils.data import ConcatDataset

from dar_ros.bundle import MANIFEST, open_bundle
from dar_ros.datasets import DATASETS, open_dataset
from dar_ros.errors import DarError, UsageError, first_line
from dar_ros.model.checkpoint import load_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.from_bundle import config_of_bundle, load_bundle_weights
from dar_ros.model.pretrained import PYPI_ENCODERS, load_imagenet_encoder, load_imagenet_weights
from dar_ros.model.resized import resized
from dar_ros.simulation.dataset import SimDataset

DETAIL = 'encoder.detail_encoder.backbone.'

# What weights were trained for and what no tensor's shape tells.
_MEANING = ('pixel_mean', 'pixel_std', 'bin_space', 'canonical', 'canonical_focal', 'heads')


def open_frames(dataset, folder, split):
    """
    Frames of a simulated or a real data set, the latter with its protocol's crop, or of several
    folders.
    """
    if not isinstance(folder, str):
        return ConcatDataset([open_frames(dataset, one, split) for one in folder])
    if dataset != 'sim' and dataset not in DATASETS:
        raise UsageError(f'no data set {dataset!r}; there are sim, {", ".join(DATASETS)}')
    try:
        if dataset == 'sim':
            return SimDataset(folder)
        return open_dataset(dataset, folder, split or None)
    except UsageError as error:
        if Path(folder).is_absolute() or Path(folder).exists():
            raise
        raise UsageError(
            f'{error} (relative paths begin in the current folder, {Path.cwd()})'
        ) from None


def require_apart(train_frames, val_frames):
    """UsageError that names an image of a real data set which is in both."""
    shared = _images(train_frames) & _images(val_frames)
    if shared:
        raise UsageError(
            f'{len(shared)} images are trained on and validated with, {min(shared)} for one: '
            'name another val_data, or lists that share none as train_split and val_split'
        )


def _images(frames):
    parts = frames.datasets if isinstance(frames, ConcatDataset) else [frames]
    return {sample[0].resolve() for part in parts for sample in getattr(part, 'samples', ())}


def initial_model(config):
    """
    Return the DAR a run begins with: the weights of `init`, but for the parts in `fresh`, which
    `init` need not have.
    """
    model = timm_model(config.model) if config.init == 'timm' else DAR(config.model)
    for prefix in config.fresh:
        if not any(name.startswith(prefix) for name in model.state_dict()):
            raise UsageError(f'fresh: no parameter begins with {prefix}')
    new = [name for name in model.state_dict() if name.startswith(tuple(config.fresh))]
    goes_on = config.init not in ('timm', 'imagenet', 'random') and not Path(config.init).is_file()
    if config.encoder and not goes_on:
        raise UsageError(f'encoder: only for an `init` that comes without, not {config.init}')
    detail_is_new = not goes_on or any(name.startswith(DETAIL) for name in new)
    if config.model.detail_backbone and detail_is_new:
        load_detail_backbone(model, config.detail_init)
    fresh = {name: model.state_dict()[name].clone() for name in new}
    if config.init == 'imagenet':
        load_imagenet_encoder(model)
    elif goes_on:
        load_trained(model, config, fresh)
    elif config.init not in ('timm', 'random'):
        load_encoder_file(model, config.init)
    model.load_state_dict(model.state_dict() | fresh)
    return model


def load_trained(model, config, fresh):
    """Fill a DAR with the weights of the bundle or checkpoint that `init` names, and `fresh`."""
    source = trained_model(config.init, config.encoder)
    _require_same_meaning(config, source.config)
    source = resized(source, config.model.input_size)
    try:
        model.load_state_dict(source.state_dict() | fresh)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        if len(reason) > 200:  # names every key of a part
            reason = f'{reason[:200]} ...'
        raise UsageError(
            f'init: {config.init} is another network than `model` says ({reason}); parts that it '
            'has not can be named in `fresh`'
        ) from None


def trained_model(folder, encoder=''):
    """
    Return the DAR of a bundle or a checkpoint, at its own input size.

    `encoder` is the backbone's file of a checkpoint that comes without.
    """
    if not Path(folder).exists():
        raise UsageError(f'{folder} does not exist')
    if not (Path(folder) / MANIFEST).exists():
        return load_checkpoint(folder, encoder)[0]
    if encoder:
        raise UsageError(f'{folder} has its backbone: it needs no encoder file')
    bundle = open_bundle(folder)
    model = DAR(config_of_bundle(bundle))
    # Their batch norms' scales, to unfold with.
    if model.config.backbone in PYPI_ENCODERS:
        load_imagenet_encoder(model)
    if model.config.detail_backbone in PYPI_ENCODERS:
        load_detail_backbone(model, 'imagenet')
    return load_bundle_weights(model, bundle)


def load_detail_backbone(model, source):
    """Fill a DAR's detail_backbone from `detail_init`: its first layers are all that is needed."""
    name, target = model.config.detail_backbone, model.encoder.detail_encoder.backbone
    if source == 'random':
        return
    if source == 'imagenet':
        load_imagenet_weights(target, name)
        return
    try:
        trained = trained_model(source)
    except DarError as error:
        raise UsageError(f'detail_init: {error}') from None
    if trained.config.backbone != name:
        raise UsageError(f'detail_init: {source} has a {trained.config.backbone}, no {name}')
    used_to, given = trained.encoder.pixels, model.encoder.detail_encoder.pixels
    if not (torch.equal(used_to.scale, given.scale) and torch.equal(used_to.offset, given.offset)):
        raise UsageError(f'detail_init: {source} is used to pixels of another mean or deviation')
    weights = trained.encoder.backbone.state_dict()
    target.load_state_dict({key: weights[key] for key in target.state_dict()})


def _require_same_meaning(config, source):
    """UsageError that names the setting in which `init` was trained otherwise."""
    for name in _MEANING:
        theirs, ours = getattr(source, name), getattr(config.model, name)
        if theirs != ours:
            theirs = list(theirs) if isinstance(theirs, tuple) else theirs
            raise UsageError(
                f'init: {config.init} was trained with {name} {theirs}: set it so in `model`'
            )


def freeze(model, prefixes):
    """Train no parameter whose name begins with one of `prefixes`; UsageError if none does."""
    for prefix in prefixes:
        frozen = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not frozen:
            raise UsageError(f'freeze: no parameter begins with {prefix}')
        for parameter in frozen:
            parameter.requires_grad_(False)
    return model


def timm_model(config):
    """Return a DAR whose backbone has the weights that timm downloads."""
    trained = timm.get_pretrained_cfg(config.backbone)
    used_to = tuple(trained.mean), tuple(trained.std)
    if used_to != (tuple(config.pixel_mean), tuple(config.pixel_std)):
        raise UsageError(
            f'init: {config.backbone} was trained with pixel_mean {list(used_to[0])} and '
            f'pixel_std {list(used_to[1])}: set them so in `model`'
        )
    try:
        return DAR(config, pretrained_encoder=True)
    except Exception as error:  # each version of the hub's client has errors of its own
        raise UsageError(
            f'init: timm cannot get the weights of {config.backbone} ({first_line(error)}): go '
            'online, or name a file'
        ) from None

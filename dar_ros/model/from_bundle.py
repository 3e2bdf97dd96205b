"""The network of a bundle as a torch model: to go on training, or to compare with."""

from dataclasses import replace

import onnx
import torch

from dar_ros.bundle import GRAPHS
from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR
from dar_ros.model.onnx_weights import named_weights
from dar_ros.model.presets import ModelConfig

PREFIX = 'model.'  # of every weight in the graphs
_FOLDED = '_bias'  # what the exporter appends to a convolution's weight for its folded batch norm


def config_of_bundle(bundle):
    """ModelConfig that a bundle was exported from; UsageError if its model.json does not say."""
    training = bundle.provenance.get('training')
    if not isinstance(training, dict) or 'model' not in training:
        raise UsageError(
            f'{bundle.path} says no network configuration: export it from a checkpoint'
        )
    # `dar export --input-size` makes a bundle of another size than was trained.
    return replace(ModelConfig.from_dict(training['model']), input_size=tuple(bundle.input_size))


def load_bundle_weights(model, bundle):
    """
    Fill a DAR with a bundle's weights; UsageError names the first weight that is missing.

    The exporter folds batch norms into the convolutions before them. They are unfolded with the
    statistics that `model` has, which computes the same: a convolution W and norm (scale s, shift
    b - mean s) from the folded W' = s W and b'.
    """
    weights = {}
    for graph in GRAPHS:
        weights |= named_weights(onnx.load(bundle.file(f'{graph}.onnx')).graph)
    state = model.state_dict()

    def take(key, shape):
        if PREFIX + key not in weights:
            raise UsageError(f'{bundle.path} holds no weight {key}: another network')
        value = torch.from_numpy(weights[PREFIX + key].copy()).float()
        if value.shape != shape:
            raise UsageError(
                f'{bundle.path}: {key} is {tuple(value.shape)}, not {tuple(shape)}: '
                'another network'
            )
        return value

    norms = norms_after_convolutions(model)
    for conv, norm in norms.items():
        scale = norm_scale(model.get_submodule(norm))
        weight = take(f'{conv}.weight', state[conv + '.weight'].shape)
        bias = take(f'{conv}.weight{_FOLDED}', scale.shape)
        state[conv + '.weight'] = weight / scale[:, None, None, None]
        state[norm + '.bias'] = bias + state[norm + '.running_mean'] * scale
    for key in unfolded_keys(model):
        state[key] = take(key, state[key].shape)
    model.load_state_dict(state)
    return model


def model_from_bundle(bundle):
    """Return the DAR of an open bundle, in eval mode; it computes what the bundle computes."""
    return load_bundle_weights(DAR(config_of_bundle(bundle)), bundle).eval()


def unfolded_keys(model):
    """Return the names in a state dict that batch norms' folding does not concern."""
    norms = norms_after_convolutions(model)
    folded = tuple(f'{norm}.' for norm in norms.values())
    kernels = {f'{conv}.weight' for conv in norms}
    return [k for k in model.state_dict() if k not in kernels and not k.startswith(folded)]


def norm_scale(norm):
    """Return what a batch norm multiplies its channels by, (C,)."""
    return norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)


def norms_after_convolutions(model):
    """{convolution: batch norm that follows it} by module names; timm keeps the order of use."""
    pairs, last = {}, None
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            last = name
        elif isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and last:
            pairs[last], last = name, None
    return pairs

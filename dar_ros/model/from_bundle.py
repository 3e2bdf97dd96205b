"""The network of a bundle as a torch model: to go on training, or to compare with."""

from dataclasses import replace

import onnx
import torch

from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR
from dar_ros.model.onnx_weights import named_weights
from dar_ros.model.presets import ModelConfig

_GRAPHS = ('encoder.onnx', 'step.onnx', 'upsample.onnx')
_PREFIX = 'model.'  # of every weight in the graphs
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

    A ViT's bundle holds neither its class token nor its positions, but what became of them.

    The exporter folds batch norms into the convolutions before them. They are unfolded with the
    statistics that `model` has, which computes the same: a convolution W and norm (scale s, shift
    b - mean s) from the folded W' = s W and b'.
    """
    if model.encoder.is_vit:
        raise UsageError(
            f'{bundle.path} does not hold all of its {model.config.backbone}: name the checkpoint '
            'that it was exported from'
        )
    weights = {}
    for name in _GRAPHS:
        weights |= named_weights(onnx.load(bundle.file(name)).graph)
    state = model.state_dict()

    def take(key, shape):
        if _PREFIX + key not in weights:
            raise UsageError(f'{bundle.path} holds no weight {key}: another network')
        value = torch.from_numpy(weights[_PREFIX + key].copy()).float()
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
    done = {f'{conv}.weight' for conv in norms}
    done |= {key for key in state for norm in norms.values() if key.startswith(norm + '.')}
    for key, value in state.items():
        if key not in done:
            state[key] = take(key, value.shape)
    model.load_state_dict(state)
    return model


def model_from_bundle(bundle):
    """Return the DAR of an open bundle, in eval mode; it computes what the bundle computes."""
    return load_bundle_weights(DAR(config_of_bundle(bundle)), bundle).eval()


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

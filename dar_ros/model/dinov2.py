"""
Encoder weights from a file: DINOv2's own, timm's copies, Depth Anything's (V1 and V2), or an ONNX
export of Hugging Face's copy.

Every tensor of the backbone must be in the file, and every tensor of the file must be known.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

from dar_ros.errors import UsageError, first_line

ANYTHING = 'pretrained.'  # what Depth Anything puts before the names of its DINOv2
# Not part of an encoder: a token for masked pre-training, the head after the last layer, Depth
# Anything's own decoder.
LEFT_OUT = ('mask_token', 'head.')
DECODER = 'depth_head.'


def load_encoder_file(model, path):
    """
    Fill the backbone of a DAR (vit_*_patch14_dinov2) from a .pth, .safetensors or .onnx file.

    The position embedding is resampled to the input's grid, as timm does. UsageError otherwise.
    """
    backbone = model.encoder.backbone
    if not model.config.backbone.endswith('_patch14_dinov2'):
        raise UsageError(
            f'{path} cannot fill {model.config.backbone}: init from a file is for backbones '
            'vit_small, vit_base, vit_large or vit_giant_patch14_dinov2'
        )
    weights = dinov2_layout(read_tensors(path), path)
    target = backbone.state_dict()
    if 'pos_embed' in weights and weights['pos_embed'].dim() == 3:
        grid = backbone.patch_embed.grid_size
        weights['pos_embed'] = resample_abs_pos_embed(weights['pos_embed'], grid)
    for key, value in target.items():
        if key not in weights:
            raise UsageError(f'{path} lacks {key} of {model.config.backbone}')
        if weights[key].shape != value.shape:
            raise UsageError(
                f'{path}: {key} is {tuple(weights[key].shape)}, {model.config.backbone} needs '
                f'{tuple(value.shape)}'
            )
    unknown = sorted(set(weights) - set(target))
    if unknown:
        raise UsageError(f'{path} has {unknown[0]}, which {model.config.backbone} has not')
    backbone.load_state_dict(weights)


def dinov2_layout(tensors, path):
    """Names of any of the accepted files -> timm's, without what an encoder leaves out."""
    if any(key.startswith(ANYTHING) for key in tensors):
        other = [key for key in tensors if not key.startswith((ANYTHING, DECODER))]
        if other:
            raise UsageError(f'{path} is no Depth Anything checkpoint: it has {other[0]}')
        tensors = {
            key.removeprefix(ANYTHING): value
            for key, value in tensors.items()
            if key.startswith(ANYTHING)
        }
    if 'cls_token' not in tensors or 'pos_embed' not in tensors:
        first = next(iter(tensors), 'nothing')
        raise UsageError(
            f'{path} holds {first} ...: neither the layout of DINOv2 nor of Depth Anything'
        )
    # The giant's gated layers have other names in timm.
    names = {
        key: key.replace('.mlp.w12.', '.mlp.fc1.').replace('.mlp.w3.', '.mlp.fc2.')
        for key in tensors
        if not key.startswith(LEFT_OUT)
    }
    return {name: tensors[key] for key, name in names.items()}


def read_tensors(path):
    """
    Read a flat {name: tensor} from .safetensors, .onnx, or from .pth without unpickling anything.
    """
    if Path(path).suffix == '.onnx':
        from dar_ros.model.dinov2_onnx import read_dinov2_onnx

        return read_dinov2_onnx(path)
    try:
        if Path(path).suffix == '.safetensors':
            return load_file(path)
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise UsageError(f'{path} cannot be read as weights ({first_line(error)})') from None
    if not isinstance(tensors, dict) or not all(torch.is_tensor(v) for v in tensors.values()):
        raise UsageError(f'{path} is no flat dictionary of tensors')
    return tensors

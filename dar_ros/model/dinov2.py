"""
Encoder weights from a file: DINOv2's own, timm's copies, Depth Anything's (V1 and V2), Hugging
Face's copies of both, or an ONNX export of the latter.

Every tensor of the backbone must be in the file, and every tensor of the file must be known.
"""

import math
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

from dar_ros.errors import UsageError, first_line
from dar_ros.model.hugging_face import own_names

ANYTHING = 'pretrained.'  # what Depth Anything puts before the names of its DINOv2
# Not part of an encoder: a token for masked pre-training, the head after the last layer, Depth
# Anything's own decoder.
LEFT_OUT = ('mask_token', 'head.')
DECODER = 'depth_head.'
HUGGING_FACE = 'embeddings.cls_token'  # of its Dinov2Model; after `backbone.` in a depth model
WRAPPERS = ('model', 'state_dict')  # what training scripts save the weights under
PARALLEL = 'module.'  # what torch's data parallel puts before every name


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
    shape = tuple(weights['pos_embed'].shape)
    side = math.isqrt(shape[1] - 1) if len(shape) == 3 and shape[1] > 1 else 0
    if not side or shape[:-1] != (1, 1 + side**2):
        raise UsageError(
            f'{path}: pos_embed is {shape}; that of a class token and a square of patches is '
            'expected: take the DINOv2 without registers'
        )
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
    if f'backbone.{HUGGING_FACE}' in tensors:
        other = [k for k in tensors if not k.startswith(('backbone.', 'neck.', 'head.'))]
        if other:
            raise UsageError(f'{path} is no Depth Anything of Hugging Face: it has {other[0]}')
        tensors = {
            key.removeprefix('backbone.'): value
            for key, value in tensors.items()
            if key.startswith('backbone.')
        }
    if HUGGING_FACE in tensors:
        tensors = own_names(tensors, path)
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
    _require_binary(path)
    if Path(path).suffix == '.onnx':
        from dar_ros.model.dinov2_onnx import read_dinov2_onnx

        return read_dinov2_onnx(path)
    try:
        if Path(path).suffix == '.safetensors':
            return load_file(path)
        tensors = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError:  # torch's own text advises to unpickle it nevertheless
        raise UsageError(
            f'{path} cannot be read as weights: it is damaged, or holds more than tensors, which '
            'is never unpickled'
        ) from None
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise UsageError(f'{path} cannot be read as weights ({first_line(error)})') from None
    return _unwrapped(tensors, path)


def _require_binary(path):
    """UsageError for a text, as a download leaves in a file's place."""
    try:
        with Path(path).open('rb') as file:
            begins = file.read(24)
    except OSError as error:
        raise UsageError(f'{path} cannot be read as weights ({error})') from None
    if begins and all(byte in b'\t\r\n' or 32 <= byte < 127 for byte in begins):
        raise UsageError(
            f'{path} cannot be read as weights: it begins with {begins.decode()!r}, as a web page '
            'or a Git LFS pointer does; download the file itself'
        )


def _unwrapped(tensors, path):
    """Return the weights of what torch.load gave, out of one of WRAPPERS and without PARALLEL."""
    if isinstance(tensors, dict):
        wrapped = [key for key in WRAPPERS if isinstance(tensors.get(key), dict)]
        if len(wrapped) == 1 and not any(torch.is_tensor(value) for value in tensors.values()):
            tensors = tensors[wrapped[0]]
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in tensors.items()
    ):
        raise UsageError(f'{path} is no flat dictionary of tensors by name')
    if all(key.startswith(PARALLEL) for key in tensors):
        return {key.removeprefix(PARALLEL): value for key, value in tensors.items()}
    return tensors

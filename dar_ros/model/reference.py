"""
What a network says of one picture, step by step: what exported graphs are compared with, and what
backends replay.
"""

import numpy as np
import torch

from dar_ros.model.mtbin import from_bin_space


def reference_image(size):
    """
    Deterministic picture of blocks on the ground under a sky; uint8 (1, h, w, 3).

    Half of it is beyond any range: a backend that says so of nothing, or of all, is found out.
    """
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = y / rows, x / columns
    image = np.stack([0.55 + 0.3 * y, 0.7 + 0.2 * y, np.full_like(y, 0.95)], -1)  # (h, w, 3)
    horizon = 0.45
    below = np.maximum(y - horizon, 0)
    nearness = 1 / (below + 0.05)
    pattern = 0.06 * np.sin(40 * (x - 0.5) * nearness) * np.sin(6 * nearness)
    ground = (0.35 + 0.25 * below)[..., None] * np.array([1, 0.95, 0.85]) + pattern[..., None]
    image[y > horizon] = ground[y > horizon]
    for left, top, right, bottom, shade in (
        (0.05, 0.15, 0.3, 0.62, 0.3),
        (0.62, 0.3, 0.9, 0.7, 0.75),
        (0.45, 0.38, 0.5, 0.55, 0.2),
    ):
        block = (x > left) & (x < right) & (y > top) & (y < bottom)
        image[block] = shade * np.array([1, 0.9, 0.8])
    return torch.from_numpy((np.clip(image, 0, 1) * 255).astype(np.uint8))[None]


def reference_run(model):
    """Run torch once, keeping what every step saw and said."""
    config = model.config
    image = reference_image(config.input_size)
    depth_min, depth_max = (torch.tensor([z], dtype=torch.float32) for z in config.depth_range)
    encoded = model.encode(image)
    state = model.initial_state(encoded, depth_min, depth_max)
    states, outputs, depth, range_class, scale = [], [], [], [], []
    for k, sizes in enumerate(zip(config.grid_sizes(), config.depth_grid_sizes())):
        states.append(state)
        state, output = model.step(state, encoded, *sizes, torch.tensor([k]))
        outputs.append(output)
        fine = model.upsample(output, encoded.upsample_mask)
        depth.append(from_bin_space(fine.depth, config.bin_space)[0, 0])
        range_class.append(fine.range_logits[0].argmax(0))
        scale.append(fine.log_scale[0, 0].exp())
    return {
        'image': image,
        'depth_min': depth_min,
        'depth_max': depth_max,
        'encoded': encoded,
        'states': states,
        'outputs': outputs,
        'depth': depth,
        'range_class': range_class,
        'scale': scale,
    }


def reference_arrays(reference):
    """Return what reference.npz holds, of a reference run."""
    return {
        **{name: reference[name].numpy() for name in ('image', 'depth_min', 'depth_max')},
        # The self-test allows 1 %: fp16 resolves a twentieth of that, and packs to half the size.
        'depth': torch.stack(reference['depth']).numpy().astype(np.float16),
        'range_class': torch.stack(reference['range_class']).numpy().astype(np.uint8),
        'scale': torch.stack(reference['scale']).numpy().astype(np.float16),
    }


def step_inputs(model, reference, k):
    """
    Arguments of StepGraph at step k (from 0) of a reference run, in the order of STEP_INPUTS.
    """
    state, encoded = reference['states'][k], reference['encoded']
    return (
        state.latent,
        state.low.contiguous(),
        state.high.contiguous(),
        torch.zeros(model.config.grid_sizes()[k]),
        torch.zeros(model.config.depth_grid_sizes()[k]),
        torch.tensor([k]),
        *state.cache,
        *encoded.memory,
        encoded.detail,
    )

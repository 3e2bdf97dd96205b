"""The three graphs of a bundle as modules with flat inputs and outputs."""

import torch
from torch import nn

from dar_ros.model.dar import EncodedImage, StepOutput, StepState
from dar_ros.model.mtbin import from_bin_space
from dar_ros.model.transformer import KeyValues


class EncoderGraph(nn.Module):
    """DAR.encode with flat outputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        """Image uint8 (1, h, w, 3) -> memory_keys, memory_values, detail, start, upsample_mask."""
        encoded = self.model.encode(image)
        return (*encoded.memory, encoded.detail, encoded.start, encoded.upsample_mask)


class StepGraph(nn.Module):
    """
    DAR.step with flat inputs and outputs; sizes arrive as shapes of two otherwise unused inputs.
    """

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(
        self,
        latent,
        low,
        high,
        token_grid,
        depth_grid,
        step_index,
        past_keys,
        past_values,
        memory_keys,
        memory_values,
        detail,
    ):
        """See dar.DAR.step."""
        state = StepState(latent, low, high, KeyValues(past_keys, past_values))
        encoded = EncodedImage(KeyValues(memory_keys, memory_values), detail, None, None)
        state, output = self.model.step(
            state, encoded, tuple(token_grid.shape), tuple(depth_grid.shape), step_index
        )
        return (
            state.latent,
            state.low,
            state.high,
            *state.cache,
            output.depth,
            output.range_logits,
            output.log_scale,
        )


class UpsampleGraph(nn.Module):
    """DAR.upsample, depth in metres and the class decided."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, depth, range_logits, log_scale, upsample_mask):
        """
        Turn maps of any depth grid into what the backends return.

        Depth (1, h, w) in canonical metres, range_class uint8 (1, h, w), scale (1, h, w).
        """
        fine = self.model.upsample(StepOutput(depth, range_logits, log_scale), upsample_mask)
        return (
            from_bin_space(fine.depth, self.model.config.bin_space).squeeze(1),
            fine.range_logits.argmax(1).to(torch.uint8),
            torch.exp(fine.log_scale).squeeze(1),
        )


ENCODER_OUTPUTS = ('memory_keys', 'memory_values', 'detail', 'start', 'upsample_mask')
STEP_INPUTS = (
    'latent',
    'low',
    'high',
    'token_grid',
    'depth_grid',
    'step_index',
    'past_keys',
    'past_values',
    'memory_keys',
    'memory_values',
    'detail',
)
STEP_OUTPUTS = (
    'next_latent',
    'next_low',
    'next_high',
    'keys',
    'values',
    'depth',
    'range_logits',
    'log_scale',
)
UPSAMPLE_INPUTS = ('depth', 'range_logits', 'log_scale', 'upsample_mask')
UPSAMPLE_OUTPUTS = ('metric_depth', 'range_class', 'scale')

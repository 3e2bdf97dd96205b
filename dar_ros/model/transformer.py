"""
DAR transformer: masked self-attention over the steps' tokens, cross-attention to the image, MLP.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


class KeyValues(NamedTuple):
    """Keys and values of every layer, each (layers, B, heads, L, head width)."""

    keys: torch.Tensor
    values: torch.Tensor


def patchwise_causal_mask(lengths, device=None):
    """
    Boolean (L, L), True where a token (row) may attend: to tokens of its own and of earlier steps.

    `lengths` are the numbers of tokens of the steps, L their sum (DAR, section 3.2).
    """
    step = torch.cat([torch.full((n,), k, device=device) for k, n in enumerate(lengths)])
    return step[:, None] >= step[None, :]


class Attention(nn.Module):
    """
    Multi-head attention whose keys and values the caller projects, so that they can be cached.
    """

    def __init__(self, width, source_width, heads):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, source):
        """Source tokens (B, L, source_width) -> keys, values, each (B, heads, L, head width)."""
        batch, length, _ = source.shape
        pair = self.key_value(source).view(batch, length, 2, self.heads, -1)
        return pair.permute(2, 0, 3, 1, 4).unbind(0)  # (2, B, heads, L, d)

    def forward(self, x, keys, values, mask=None):
        """Attend with queries from x (B, L, C); result (B, L, C)."""
        batch, length, width = x.shape
        query = (
            self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        )  # (B, heads, L, d)
        x = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
        return self.out(x.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm: self-attention, cross-attention to the memory, MLP."""

    def __init__(self, config):
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, width, config.heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, config.memory_width, config.heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def forward(self, x, past, memory, mask=None):
        """
        Tokens x (B, L, C) -> the same, and this layer's keys and values of the prefix and x.

        `past` and `memory` are pairs of keys and values (B, heads, P or M, d). With a mask, x
        holds all steps.
        """
        normed = self.self_norm(x)
        keys, values = self.self_attention.project(normed)
        keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x = x + self.self_attention(normed, keys, values, mask)
        x = x + self.cross_attention(self.cross_norm(x), *memory)
        return x + self.mlp(x), (keys, values)


class DARTransformer(nn.Module):
    """A stack of blocks; its KV cache is an argument, never hidden state."""

    def __init__(self, config):
        super().__init__()
        self.memory_norm = nn.LayerNorm(config.memory_width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def project_memory(self, memory):
        """Image tokens (B, M, memory_width) -> KeyValues of every layer; once per image."""
        memory = self.memory_norm(memory)
        pairs = [block.cross_attention.project(memory) for block in self.blocks]
        return KeyValues(*(torch.stack(tensors) for tensors in zip(*pairs)))

    def empty_cache(self, like):
        """Cache of no steps, on the device and in the dtype of KeyValues `like`."""
        empty = like.keys[:, :, :, :0]
        return KeyValues(empty, empty)

    def forward(self, x, past, memory, mask=None):
        """
        Tokens of one step (B, L, C) and the cache of the earlier ones -> output tokens, grown
        cache.

        With `mask` (see patchwise_causal_mask) and an empty cache, x holds the tokens of all steps
        at once: the reference that cached stepping must equal.
        """
        pairs = []
        for i, block in enumerate(self.blocks):
            x, pair = block(
                x, (past.keys[i], past.values[i]), (memory.keys[i], memory.values[i]), mask
            )
            pairs.append(pair)
        return self.norm(x), KeyValues(*(torch.stack(tensors) for tensors in zip(*pairs)))

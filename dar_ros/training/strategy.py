"""How the processes of a run share the work: DDP, or weights and optimizer in shards (FSDP2)."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import ModelParallelStrategy
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def make_fabric(config):
    """Fabric of the processes that torchrun started, or of this one, by config.strategy."""
    strategy = 'auto'
    if 'LOCAL_WORLD_SIZE' in os.environ:
        strategy = config.strategy
        if strategy == 'fsdp':
            world = int(os.environ['WORLD_SIZE'])
            strategy = ModelParallelStrategy(
                shard, data_parallel_size=world, tensor_parallel_size=1
            )
    fabric = Fabric(
        devices=int(os.environ.get('LOCAL_WORLD_SIZE', 1)),
        num_nodes=int(os.environ.get('GROUP_WORLD_SIZE', 1)),
        strategy=strategy,
        precision=config.precision,
    )
    # Autocast rounds what it may; Fabric would round the ground truth as well.
    fabric.strategy.precision.convert_input = lambda data: data
    return fabric


def is_sharded(fabric):
    """Whether parameters are shards after fabric.setup_module."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def shard(losses, mesh):
    """
    Shard a LossModule over the processes, each block of a ViT by itself.

    The rest, whose parts are called several times an image and not through their forward alone,
    is one shard group: gathered for an iteration, but its gradients and optimizer state are not.
    """
    mesh = mesh['data_parallel']
    for parameter in losses.parameters():  # channels last cannot be cut
        parameter.data = parameter.data.contiguous()
    encoder = losses.model.encoder
    for block in encoder.backbone.blocks if encoder.is_vit else ():
        fully_shard(block, mesh=mesh)
    return fully_shard(losses, mesh=mesh)


def whole(tensors):
    """{name: tensor} with shards gathered; every process calls it."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in tensors.items()
    }


def like(value, parameter):
    """Cut a whole optimizer tensor as its parameter is cut."""
    if isinstance(parameter, DTensor) and torch.is_tensor(value) and value.dim():
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value

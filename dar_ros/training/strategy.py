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


def gather_shards(tensors, keeps):
    """
    Return {name: tensor} with shards gathered in main memory, or {} where not `keeps`; every
    process calls it.

    One after another: a device need not hold more than one of them beside its shards.
    """
    gathered = {}
    for name, value in tensors.items():
        if isinstance(value, DTensor):
            value = value.full_tensor().cpu()
        if keeps:
            gathered[name] = value
    return gathered


def laid_out_as(value, parameter):
    """Lay a whole optimizer tensor out, or cut it, as its parameter is."""
    if not torch.is_tensor(value) or not value.dim():
        return value
    if isinstance(parameter, DTensor):
        value = value.to(parameter.device)
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    # In other strides than the parameter's AdamW would go tensor by tensor on a GPU.
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)

"""AdamW, its rate, and its state as a flat dict of tensors."""

import torch

from dar_ros.training.strategy import laid_out_as

_BACKBONES = ('encoder.backbone.', 'encoder.detail_encoder.backbone.')


def make_optimizer(model, config):
    """
    AdamW; no decay on vectors (biases, norms), a rate of its own for the pretrained backbone.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone, decay = name.startswith(_BACKBONES), parameter.dim() > 1
        groups.setdefault((backbone, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                'params': parameters,
                'scale': config.encoder_scale if backbone else 1.0,
                'weight_decay': config.weight_decay if decay else 0.0,
            }
            for (backbone, decay), parameters in groups.items()
        ],
        lr=config.start,
    )


def learning_rate(iteration, iterations, config):
    """Linear rise from start to peak, then linear fall to end."""
    rise = max(1, round(iterations * config.warmup))
    if iteration < rise:
        return config.start + (config.peak - config.start) * iteration / rise
    return config.peak + (config.end - config.peak) * (iteration - rise) / max(
        1, iterations - rise
    )


def flat_state(optimizer):
    """Optimizer state as one flat dict of tensors."""
    state = optimizer.state_dict()['state']
    return {
        f'{index}.{name}': torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_state(optimizer, tensors):
    """Undo flat_state."""
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group['params']]
    for key, value in tensors.items():
        index, name = key.split('.')
        value = laid_out_as(value, parameters[int(index)])
        state['state'].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)

"""Checkpoints: a folder with model.safetensors and config.json; nothing is pickled."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR
from dar_ros.model.presets import ModelConfig


def save_checkpoint(folder, model, record=None):
    """
    Write the weights and, in config.json, the model's configuration and `record` (provenance,
    metrics).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / 'model.safetensors', model.state_dict())
    write_json(folder / 'config.json', {'model': model.config.to_dict(), **(record or {})})


def load_checkpoint(folder):
    """Return the DAR of a checkpoint folder, in eval mode, and its record."""
    folder = Path(folder)
    try:
        record = json.loads((folder / 'config.json').read_text())
        model = DAR(ModelConfig.from_dict(record['model']))
        model.load_state_dict(load_file(folder / 'model.safetensors'))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f'{folder} is no checkpoint ({reason}): expected the folder that `dar train` wrote'
        ) from None
    return model.eval(), record


def save_tensors(path, tensors):
    """
    Write a dict of tensors through a temporary file, so that an interruption leaves the old one
    whole.
    """
    path = Path(path)
    temporary = path.with_suffix('.tmp')
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)
    temporary.replace(path)


def write_json(path, data):
    """Write JSON through a temporary file."""
    path = Path(path)
    temporary = path.with_suffix('.tmp')
    temporary.write_text(json.dumps(data, indent=2) + '\n')
    temporary.replace(path)


def read_json(path):
    """Read JSON, or raise UsageError naming the file."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f'{path} is not readable ({str(error).splitlines()[0]})') from None

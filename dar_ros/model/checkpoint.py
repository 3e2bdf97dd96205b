"""Checkpoints: a folder with model.safetensors and config.json; nothing is pickled."""

import itertools
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR
from dar_ros.model.presets import ModelConfig

PIECE = 15 * 2**20  # bytes of a file, unless one tensor is larger: what many services let through


def save_checkpoint(folder, model, record=None):
    """
    Write the weights and, in config.json, the model's configuration and `record` (provenance,
    metrics).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder, 'model', model.state_dict())
    write_json(folder / 'config.json', {'model': model.config.to_dict(), **(record or {})})


def load_checkpoint(folder):
    """Return the DAR of a checkpoint folder, in eval mode, and its record."""
    folder = Path(folder)
    try:
        record = json.loads((folder / 'config.json').read_text())
        model = DAR(ModelConfig.from_dict(record['model']))
        model.load_state_dict(load_tensors(folder, 'model'))
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f'{folder} is no checkpoint ({reason}): expected the folder that `dar train` wrote'
        ) from None
    return model.eval(), record


def save_tensors(folder, name, tensors):
    """Write a dict of tensors as NAME.safetensors, NAME-1.safetensors ... of about PIECE bytes."""
    pieces, size = [{}], 0
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if pieces[-1] and size + tensor.nbytes > PIECE:
            pieces.append({})
            size = 0
        pieces[-1][key] = tensor
        size += tensor.nbytes
    for number, piece in enumerate(pieces):
        save_file(piece, Path(folder) / f'{name}{f"-{number}" if number else ""}.safetensors')


def load_tensors(folder, name):
    """Read what `save_tensors` wrote."""
    folder = Path(folder)
    tensors = load_file(folder / f'{name}.safetensors')
    for number in itertools.count(1):
        path = folder / f'{name}-{number}.safetensors'
        if not path.exists():
            return tensors
        tensors |= load_file(path)


@contextmanager
def replaced(folder):
    """
    Give a new folder to write into, which takes the place of `folder` once it is whole.

    Whoever is interrupted leaves the old one, or (between two renames) NAME.old, which
    `recovered` finds.
    """
    folder = Path(folder)
    new, old = (folder.with_name(f'{folder.name}.{end}') for end in ('new', 'old'))
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    yield new
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def recovered(folder):
    """Return `folder`, brought back from what an interruption of `replaced` left."""
    folder = Path(folder)
    old = folder.with_name(f'{folder.name}.old')
    if not folder.exists() and old.exists():
        old.rename(folder)
    return folder


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

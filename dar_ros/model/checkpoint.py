"""
Checkpoints: a folder with model.safetensors and config.json; nothing is pickled.

One whose backbone was frozen may come without it, far smaller: config.json then says whose
backbone it was, and whoever loads it names the file.
"""

import hashlib
import itertools
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dar_ros.errors import UsageError, first_line
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.presets import ModelConfig

_BACKBONE = 'encoder.backbone.'
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


def save_without_backbone(folder, model, record, source):
    """
    Write a checkpoint whose backbone is left out, in fp16; `source` says where to get the file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if not key.startswith(_BACKBONE)
    }
    save_tensors(folder, 'model', kept)
    backbone = {'source': source, 'sha256': backbone_hash(model)}
    write_json(
        folder / 'config.json',
        {**record, 'model': model.config.to_dict(), 'backbone_weights': backbone},
    )


def backbone_hash(model):
    """SHA-256 of a backbone's weights but for positions, which are resampled on loading."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.encoder.backbone.state_dict().items()):
        if key != 'pos_embed':
            digest.update(key.encode() + tensor.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def load_checkpoint(folder, encoder=None):
    """
    Return the DAR of a checkpoint folder, in eval mode, and its record.

    `encoder` is the backbone's file (see load_encoder_file) of a checkpoint that comes without.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / 'config.json').read_text())
        model = DAR(ModelConfig.from_dict(record['model']))
        tensors = load_tensors(folder, 'model')
        if encoder or 'backbone_weights' in record:
            tensors |= _backbone_tensors(model, folder, record, encoder)
        model.load_state_dict(tensors)
    except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f'{folder} is no checkpoint ({first_line(error)}): expected the folder that '
            '`dar train` wrote'
        ) from None
    return model.eval(), record


def _backbone_tensors(model, folder, record, encoder):
    """Return the entries of a state dict that a checkpoint left out, of the file `encoder`."""
    if 'backbone_weights' not in record:
        raise UsageError(f'{folder} has its backbone: it needs no encoder file')
    source = record['backbone_weights']['source']
    if not encoder:
        raise UsageError(
            f'{folder} comes without its backbone: `dar export --encoder FILE`, or a training '
            f"configuration's `encoder: FILE`, adds it ({source})"
        )
    load_encoder_file(model, encoder)
    if backbone_hash(model) != record['backbone_weights']['sha256']:
        raise UsageError(f'{encoder} is not the backbone that {folder} was trained on ({source})')
    return {k: v for k, v in model.state_dict().items() if k.startswith(_BACKBONE)}


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
    """Write JSON for people."""
    Path(path).write_text(json.dumps(data, indent=2) + '\n')


def read_json(path):
    """Read JSON, or raise UsageError naming the file."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f'{path} is not readable ({first_line(error)})') from None

"""
Checkpoints: a folder with model.safetensors and config.json; nothing is pickled.

One whose backbone was frozen may come without it, far smaller: config.json then says whose
backbone it was, and whoever loads it names the file.
"""

import hashlib
import json
import math
import shutil
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dar_ros.errors import UsageError, first_line
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.presets import ModelConfig

_BACKBONE = 'encoder.backbone.'
FILE = 16_000_000  # bytes of a file, its header included, at most: what many services let through
_PART = 15_000_000  # bytes of a tensor's part: leaves room for the header
_ENTRY = 200  # bytes of a header at most for one tensor, beside its name


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
    except (OSError, KeyError, ValueError, RuntimeError) as error:
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
    """
    Write a dict of tensors as NAME.safetensors, NAME-1.safetensors ... of at most FILE bytes.

    A tensor that is larger is flattened and cut into KEY@0, KEY@1 ...: by elements, since one row
    may be too large as well. The first file's metadata tells the shapes of those, and how many
    files there are.
    """
    cut = {key: list(t.shape) for key, t in tensors.items() if t.nbytes > _PART}
    index = {'cut': json.dumps(cut), 'files': '0000'}
    pieces, size = [{}], len(json.dumps(index)) + _ENTRY
    for key, tensor in _parts(tensors, cut):
        needed = tensor.nbytes + len(json.dumps(key)) + _ENTRY
        if pieces[-1] and size + needed > FILE:
            pieces.append({})
            size = _ENTRY
        pieces[-1][key] = tensor
        size += needed
    index['files'] = str(len(pieces))
    for number, piece in enumerate(pieces):
        save_file(piece, _file(folder, name, number), None if number else index)


def _parts(tensors, cut):
    for key, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if key not in cut:
            yield key, tensor
            continue
        pieces = tensor.view(-1).split(_PART // tensor.element_size())
        yield from ((f'{key}@{number}', piece) for number, piece in enumerate(pieces))


def _file(folder, name, number):
    return Path(folder) / f'{name}{f"-{number}" if number else ""}.safetensors'


def load_tensors(folder, name):
    """Read what `save_tensors` wrote; UsageError names a file that is missing or damaged."""
    tensors, index = _read(_file(folder, name, 0))
    count = int(index.get('files', 0))  # older ones do not tell
    number = 1
    while number < count or not count and _file(folder, name, number).exists():
        tensors |= _read(_file(folder, name, number))[0]
        number += 1
    for key, shape in json.loads(index.get('cut', '{}')).items():
        parts, size = [], 0
        while size < math.prod(shape):
            parts.append(tensors.pop(f'{key}@{len(parts)}'))
            size += parts[-1].numel()
        tensors[key] = torch.cat(parts).view(shape)
    return tensors


def _read(path):
    """Return the tensors of a file, and its metadata."""
    try:
        with safe_open(path, 'pt') as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        reason = 'missing' if isinstance(error, FileNotFoundError) else f'damaged ({error})'
        raise UsageError(f'{path} is {reason}: copy the whole folder again') from None


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

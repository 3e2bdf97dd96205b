"""Checkpoint folders: pieces of weights, saves that are cut off, folders that are none."""

import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.errors import UsageError
from dar_ros.model.checkpoint import (
    load_checkpoint,
    load_tensors,
    recovered,
    replaced,
    save_tensors,
)


def test_large_tensors_are_cut_into_files(tmp_path):
    tensors = {f't{i}': torch.full((1000, 1000), float(i)) for i in range(9)}
    save_tensors(tmp_path, 'model', tensors)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ['model-1.safetensors', 'model-2.safetensors', 'model.safetensors']
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 16e6
    read = load_tensors(tmp_path, 'model')
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)


def test_an_interrupted_save_leaves_the_old_checkpoint(tmp_path):
    folder = tmp_path / 'last'
    with replaced(folder) as new:
        (new / 'a').write_text('1')
    with pytest.raises(OSError), replaced(folder) as new:
        (new / 'a').write_text('2')
        raise OSError
    assert (recovered(folder) / 'a').read_text() == '1'
    folder.rename(tmp_path / 'last.old')  # between the two renames
    assert (recovered(folder) / 'a').read_text() == '1'


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(UsageError, match='dar train'):
        load_checkpoint(tmp_path)

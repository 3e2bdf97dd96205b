"""Averages of checkpoints."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.presets import PRESETS
from dar_ros.training.average import main

SMALL = replace(
    PRESETS['dar_tiny'], input_size=(64, 96), width=32, heads=2, latent_width=16, memory_width=32
)


@pytest.fixture
def data(tmp_path):
    """Return a data set of three frames, as `dar simulate` writes it."""
    shard = tmp_path / 'data' / 'shard-00000'
    shard.mkdir(parents=True)
    np.save(shard / 'images.npy', np.full((3, 64, 96, 3), 90, np.uint8))
    np.save(shard / 'depth.npy', np.full((3, 64, 96), 2.0, np.float32))
    np.save(shard / 'intrinsics.npy', np.array([[80.0, 80.0, 47.5, 31.5]] * 3))
    (tmp_path / 'data' / 'dataset.json').write_text(json.dumps({'frames': 3}))
    return str(tmp_path / 'data')


def test_the_mean_of_two_is_fitted_again_and_says_of_what(tmp_path, data, capsys):
    training = {'dataset': 'sim', 'val_data': data, 'val_split': '', 'validation_frames': 2}
    models, paths = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        models.append(DAR(SMALL))
        paths.append(str(tmp_path / f'run{seed}'))
        record = {'training': training, 'iteration': seed, 'sigma_factors': [9.0] * 5}
        if seed == 0:  # as the best checkpoint of a finished run, not its last one
            record['row_medians'] = [1.0, 2.0]
        save_checkpoint(paths[-1], models[-1], record)
    assert main([*paths, '--shares', '0.25', '0.75', '--out', str(tmp_path / 'out')]) == 0
    found, record = load_checkpoint(tmp_path / 'out')
    expected = 0.25 * models[0].position + 0.75 * models[1].position
    torch.testing.assert_close(found.position, expected)
    assert record['average'] == {paths[0]: 0.25, paths[1]: 0.75}
    assert record['sigma_factors'] != [9.0] * 5 and record['validation']['frames'] == 2
    assert record['row_medians'] == [1.0, 2.0]
    assert capsys.readouterr().out.startswith('abs_rel per step')

    other = DAR(replace(SMALL, memory_width=48))
    save_checkpoint(tmp_path / 'other', other, {'training': training})
    for arguments, reason in (
        ([paths[0], str(tmp_path / 'other')], 'different networks'),
        ([*paths, '--shares', '0.5', '0.6'], 'add up to 1'),
    ):
        with pytest.raises(SystemExit):
            main([*arguments, '--out', str(tmp_path / 'bad')])
        assert reason in capsys.readouterr().err

"""Samples, exact resume, the whole way from data to bundle."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('lightning_fabric', reason='lightning_fabric is not installed (extra: train)')

from tiny_training import MODEL, FakeFrames, tiny_config

from dar_ros.datasets.frames import Frame
from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.model.checkpoint import load_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.presets import PRESETS
from dar_ros.training import strategy
from dar_ros.training.config import OptimizerConfig, parse_config
from dar_ros.training.losses import LossConfig, LossModule
from dar_ros.training.optimizer import learning_rate
from dar_ros.training.statistics import row_medians
from dar_ros.training.train import Trainer
from dar_ros.training.validation import validate

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def test_learning_rate_rises_then_falls():
    config = OptimizerConfig(start=1.0, peak=5.0, end=0.0, warmup=0.5)
    assert [learning_rate(i, 8, config) for i in range(9)] == [1, 2, 3, 4, 5, 3.75, 2.5, 1.25, 0]


def rows(path):
    with path.open() as file:
        return [(row['iteration'], row['size'], row['loss']) for row in csv.DictReader(file)]


def test_a_vit_is_trained_at_its_own_size(config):
    """Its position embedding has one; the message says so before anything is loaded."""
    settings = {
        'name': 'edge',
        'train_data': 'a',
        'val_data': 'a',
        'out': 'a',
        'model': {'preset': 'dar_edge'},
        'stages': [{'size': [112, 140], 'iterations': 1, 'batch': 1}],
    }
    with pytest.raises(UsageError, match='at its input_size alone'):
        parse_config(settings)
    settings['stages'][0]['size'] = list(PRESETS['dar_edge'].input_size)
    parse_config(settings)


def test_rows_that_a_protocol_does_not_score_get_their_neighbours_medians():
    frames = FakeFrames().items
    cropped = []
    for image, depth, camera in frames:
        depth = depth.copy()
        depth[:10], depth[-10:] = np.nan, np.nan
        cropped.append(Frame(image, depth, camera))
    medians = row_medians(cropped, PRESETS['dar_tiny'])
    assert np.isfinite(medians).all() and medians[0] == medians[20] and medians[-1] == medians[-20]
    assert medians[96] not in (medians[0], medians[-1])


def test_row_medians_count_what_is_within_the_range_whatever_the_lens():
    """A wall at 15 m is in range through a long lens too, where it is canonically nearer."""
    config = PRESETS['dar_tiny']
    far = np.full((48, 64), 15.0, np.float32)
    for focal in (20.0, 110.0):  # of 64 columns: canonical 41 m and 7.5 m
        frame = Frame(np.zeros((48, 64, 3), np.uint8), far, Intrinsics(focal, focal, 31.5, 23.5))
        scale = config.canonical_focal / (4 * focal)
        assert row_medians([frame], config) == pytest.approx([15 * scale] * 192, rel=1e-3)


def test_validation_frames_out_of_range_are_refused(config):
    """In millimetres taken for metres, for instance: no score of 0 that would be the best."""
    trainer = Trainer(config)
    frames = [Frame(f.image, f.depth * 1000, f.intrinsics) for f in trainer.val_frames]
    with pytest.raises(UsageError, match='is it in metres'):
        validate(trainer.model, frames, (32, 48))


def test_a_run_of_before_a_setting_was_known_goes_on(config, capsys):
    Trainer(config).run()
    path = Path(config.out) / 'last' / 'config.json'
    record = json.loads(path.read_text())
    for model in (record['model'], record['training']['model']):
        del model['detail_backbone']
    del record['training']['detail_init']
    path.write_text(json.dumps(record))
    capsys.readouterr()
    Trainer(config, resume=True)
    assert 'resumed with other' not in capsys.readouterr().out


def test_resuming_another_configuration_is_noticed(config, capsys):
    Trainer(config).run()
    capsys.readouterr()
    Trainer(replace(config, seed=5, workers=1), resume=True)
    assert 'resumed with other seed, workers than before' in capsys.readouterr().out
    with pytest.raises(UsageError, match='another `model`'):
        Trainer(replace(config, model=replace(config.model, canonical_focal=9.0)), resume=True)
    # What the optimizer's state is of, and an average that is not there.
    for change in ({'freeze': ('encoder.backbone',)}, {'ema': 0.9}):
        with pytest.raises(UsageError, match=f'another {next(iter(change))}'):
            Trainer(replace(config, **change), resume=True)


def test_the_size_that_is_served_is_told_apart_from_the_one_that_is_trained(config, capsys):
    """tiny_config trains at 64x96 what would be served at 192x256."""
    Trainer(config)
    assert 'input_size, (192, 256), where its depth' in capsys.readouterr().out
    same = replace(config, model=replace(config.model, input_size=(64, 96)))
    Trainer(same)
    assert 'input_size' not in capsys.readouterr().out


def test_frozen_parameters_keep_their_values(config, tmp_path):
    kept = 'encoder.backbone.blocks.0'
    config = replace(config, freeze=(kept,))
    trainer = Trainer(config)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    changed = {
        name for name, value in trainer.model.state_dict().items() if (value != before[name]).any()
    }
    assert changed and not any(name.startswith(kept) for name in changed)
    with pytest.raises(UsageError, match='encoder.nothing'):
        Trainer(replace(config, freeze=('encoder.nothing',), out=str(tmp_path / 'other')))


def test_resume_is_exact(config, tmp_path):
    """
    A run that is cut after its first checkpoint and resumed logs and ends the same as one that is
    not.
    """
    Trainer(config).run()
    cut = replace(config, out=str(tmp_path / 'cut'))

    class Cut(Exception):
        pass

    trainer = Trainer(cut)
    iterate = trainer.iterate

    def stop_at_five(batch):
        if trainer.iteration == 5:
            raise Cut
        return iterate(batch)

    trainer.iterate = stop_at_five
    with pytest.raises(Cut):
        trainer.run()
    with pytest.raises(UsageError, match='--resume'):
        Trainer(cut)
    resumed = Trainer(cut, resume=True)
    assert resumed.iteration == 3  # the last checkpoint
    resumed.run()
    whole, pieces = rows(tmp_path / 'run' / 'log.csv'), rows(tmp_path / 'cut' / 'log.csv')
    assert pieces[5:] == whole[3:] and len(whole) == 7
    a, b = (load_checkpoint(tmp_path / name / 'last')[0].state_dict() for name in ('run', 'cut'))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_in_pieces_is_the_same_run(config, tmp_path):
    """Stopped for time at every iteration, with averaged weights and two parts a batch."""
    config = replace(config, ema=0.9, accumulate=2, stages=(replace(config.stages[0], batch=4),))
    Trainer(config).run()
    pieces = replace(config, out=str(tmp_path / 'pieces'))
    assert Trainer(pieces, minutes=1e-9).run() is None
    for _ in range(2):
        assert Trainer(pieces, resume=True, minutes=1e-9).run() is None
    assert Trainer(pieces, resume=True, minutes=1e-9).run() == tmp_path / 'pieces' / 'best'
    assert rows(tmp_path / 'pieces' / 'log.csv') == rows(tmp_path / 'run' / 'log.csv')
    for name in ('best', 'last'):
        a, b = (load_checkpoint(tmp_path / run / name)[0] for run in ('run', 'pieces'))
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    best, last = (load_checkpoint(tmp_path / 'run' / name)[0] for name in ('best', 'last'))
    assert not torch.equal(best.position, last.position)  # the average is kept, not the weights
    files = [p for p in (tmp_path / 'pieces').rglob('*') if p.is_file()]
    assert all(p.stat().st_size < 16e6 for p in files)


def test_parts_of_a_batch_add_up_to_it(config, tmp_path):
    """Accumulated over two parts, the loss curve is that of the whole batch."""
    whole = replace(config, stages=(replace(config.stages[0], batch=4),))
    parts = replace(whole, accumulate=2, out=str(tmp_path / 'parts'))
    for each in (whole, parts):
        Trainer(each).run()
    curves = [
        [float(loss) for _, _, loss in rows(Path(c.out) / 'log.csv')] for c in (whole, parts)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_half_precision_leaves_the_ground_truth_as_it_is(config, monkeypatch):
    """bf16 resolves 0.4 % of a depth; no network can learn more than its labels."""
    seen, forward = [], LossModule.forward

    def looked_at(self, image, depth, *limits):
        seen.extend(tensor.dtype for tensor in (depth, *limits))
        return forward(self, image, depth, *limits)

    monkeypatch.setattr(LossModule, 'forward', looked_at)
    short = (replace(config.stages[0], iterations=1),)
    Trainer(replace(config, precision='bf16-mixed', stages=short, validate_every=9)).run()
    assert seen == [torch.float32] * 3


def test_a_vit_is_sharded_block_by_block(monkeypatch):
    sharded = []
    monkeypatch.setattr(strategy, 'fully_shard', lambda module, mesh: sharded.append(module))
    for backbone, size, blocks in (('vit_tiny_patch16_224', 64, 12), (None, 64, 0)):
        model = replace(PRESETS['dar_tiny'], input_size=(size, size))
        model = replace(model, backbone=backbone) if backbone else model
        losses = LossModule(DAR(model), LossConfig())
        sharded.clear()
        strategy.shard(losses, {'data_parallel': None})
        assert len(sharded) == blocks + 1 and sharded[-1] is losses


@pytest.mark.parametrize('kind', ['ddp', 'fsdp'])
def test_two_processes_train_as_one(config, tmp_path, kind):
    """
    Torchrun with two processes and the same global batch: the same losses, to 1e-3. Sharded, the
    run is cut after an iteration and resumed.
    """
    import subprocess
    import sys

    import yaml

    data = {
        'name': 'test',
        'train_data': config.train_data,
        'val_data': config.val_data,
        'model': MODEL,
        'init': 'random',
        'validate_every': 4,
        'stages': [{'size': [32, 48], 'iterations': 4, 'batch': 4}],
    }
    curves = []
    torchrun = ['torch.distributed.run', '--standalone', '--nproc-per-node=2', '-m']
    cut = [['--minutes', '1e-9'], ['--resume']] if kind == 'fsdp' else [[]]
    for name, launch, pieces in (('one', [], [[]]), ('two', torchrun, cut)):
        path = tmp_path / f'{name}.yaml'
        settings = {**data, 'strategy': kind, 'out': str(tmp_path / name)}
        path.write_text(yaml.safe_dump(settings))
        for piece in pieces:
            command = ['-m', *launch, 'dar_ros.cli', 'train', '--config', str(path), *piece]
            done = subprocess.run(
                [sys.executable, *command], capture_output=True, text=True, timeout=240, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr[-2000:]
        curves.append([float(loss) for _, _, loss in rows(tmp_path / name / 'log.csv')])
        assert (tmp_path / name / 'best' / 'model.safetensors').exists()
    assert len(curves[0]) == 4
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)


def test_a_batch_that_does_not_divide_is_refused(config):
    with pytest.raises(UsageError, match='does not divide'):
        Trainer(replace(config, accumulate=2))


def test_training_learns(config):
    """A few iterations on six frames bring the error down."""
    config = replace(
        config,
        model=replace(config.model, canonical_focal=41.0),  # of 48 columns, as 220 of 256
        stages=(replace(config.stages[0], iterations=60, batch=4),),
        validate_every=60,
        optimizer=replace(config.optimizer, peak=3e-3),
    )
    trainer = Trainer(config)
    before = validate(trainer.model, trainer.val_frames, (32, 48))['abs_rel'][-1]
    trainer.run()
    _, record = load_checkpoint(Path(config.out) / 'best')
    assert record['validation']['abs_rel'][-1] < 0.7 * before
    assert len(record['sigma_factors']) == 5 and len(record['row_medians']) == 192


def test_training_on_a_folder(config, tmp_path):
    """Two frames with millimetres, as `dar extract` writes them."""
    folder = tmp_path / 'mine'
    for name in ('image', 'depth'):
        (folder / name).mkdir(parents=True)
    for i, (image, depth, camera) in enumerate(FakeFrames(2).items):
        cv2.imwrite(str(folder / 'image' / f'{i}.png'), image[..., ::-1])
        raw = np.where(np.isfinite(depth), depth * 1000, 0).astype(np.uint16)
        cv2.imwrite(str(folder / 'depth' / f'{i}.png'), raw)
        values = {key: getattr(camera, key) for key in ('fx', 'fy', 'cx', 'cy')}
        (folder / 'intrinsics.json').write_text(json.dumps(values))
    stage = replace(config.stages[0], iterations=2)
    mine = {'dataset': 'folder', 'train_data': str(folder), 'val_data': str(folder)}
    mine = replace(config, stages=(stage,), validate_every=2, **mine)
    with pytest.raises(UsageError, match='2 images are trained on and validated with'):
        Trainer(mine)
    for i, name in enumerate(('train', 'val')):
        (tmp_path / name).write_text(f'{i}\n')
    splits = {f'{name}_split': str(tmp_path / name) for name in ('train', 'val')}
    best = Trainer(replace(mine, **splits)).run()
    assert load_checkpoint(best)[1]['validation']['frames'] == 1
    with pytest.raises(UsageError, match='no data set'):
        Trainer(replace(config, dataset='lsun'))

"""What interrupts a training, and what it then says: signals, bad frames, gradients."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('lightning_fabric', reason='lightning_fabric is not installed (extra: train)')

import cv2
import torch
import yaml
from tiny_training import MODEL, FakeFrames, tiny_config

from dar_ros.datasets import open_dataset
from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint, read_json
from dar_ros.training import train
from dar_ros.training.loading import parts_of
from dar_ros.training.sources import initial_model
from dar_ros.training.train import Trainer


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


def test_sigterm_leaves_a_checkpoint_to_go_on_from(config):
    """Between two validations, as preemption and a batch system's time limit come."""
    before = signal.getsignal(signal.SIGTERM)
    trainer = Trainer(config)
    iterate = trainer.iterate

    def signalled(parts):
        if trainer.iteration == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(parts)

    trainer.iterate = signalled
    assert trainer.run() is None and signal.getsignal(signal.SIGTERM) == before
    resumed = Trainer(config, resume=True)
    assert resumed.iteration == 2
    assert resumed.run() == Path(config.out) / 'best'


def test_sigterm_under_torchrun_leaves_a_checkpoint(config, tmp_path):
    """Torchrun passes it on to all processes of both ranks, the loading ones included."""
    path = tmp_path / 'long.yaml'
    settings = {
        'name': 'test',
        'train_data': config.train_data,
        'val_data': config.val_data,
        'out': str(tmp_path / 'long'),
        'model': MODEL,
        'init': 'random',
        'workers': 1,
        'stages': [{'size': [32, 48], 'iterations': 100000, 'batch': 4}],
    }
    path.write_text(yaml.safe_dump(settings))
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2', '-m']
    command += ['dar_ros.cli', 'train', '--config', str(path)]
    with (tmp_path / 'output').open('w') as output:
        run = subprocess.Popen(
            [sys.executable, *command], stdout=output, stderr=output, cwd=Path(__file__).parents[1]
        )
    try:
        begun = time.monotonic()
        while not (tmp_path / 'long' / 'log.csv').exists():
            assert run.poll() is None and time.monotonic() < begun + 240
            time.sleep(0.1)
    finally:
        run.terminate()
        run.wait(60)
    last = tmp_path / 'long' / 'last'
    assert last.exists(), (tmp_path / 'output').read_text()[-2000:]
    assert read_json(last / 'state.json')['iteration'] > 0


def test_a_loading_process_heeds_its_parent_alone():
    """It loads on when somebody else signals it, and its parent's exit does not wait for it."""
    parts = parts_of(list(range(4)), np.arange(4).reshape(4, 1), 0, 1, 1, workers=1)
    assert next(parts).tolist() == [0]
    (worker,) = multiprocessing.active_children()
    subprocess.run(['kill', '-TERM', str(worker.pid)], check=True)
    worker.join(1)
    assert worker.is_alive() and next(parts).tolist() == [1]
    worker.terminate()
    worker.join(20)
    assert not worker.is_alive()


def test_one_command_begins_and_goes_on(config, capsys):
    """Whatever restarts a run need not know whether the last try came to a checkpoint."""
    for said in (True, False):
        Trainer(config, resume=True).run()
        assert ('holds no checkpoint: the run begins' in capsys.readouterr().out) == said


def test_an_unfinished_runs_best_has_its_uncertainty_fitted(config):
    """A user who stops once validation no longer falls exports `best` as it is."""
    trainer = Trainer(config)
    trainer.finish = lambda: None
    trainer.run()
    _, record = load_checkpoint(Path(config.out) / 'best')
    factors = record['sigma_factors']
    assert len(factors) == 5 and all(np.isfinite(factors)) and factors != [1.0] * 5


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_frame_is_named_in_one_line(config, tmp_path, workers):
    """Of a loading process as well, whose error comes with a traceback in its text."""
    folder = tmp_path / 'mine'
    for name in ('image', 'depth'):
        (folder / name).mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(folder / 'image' / f'{i}.png'), np.zeros((60, 80, 3), np.uint8))
        # Of another size than its image.
        cv2.imwrite(str(folder / 'depth' / f'{i}.png'), np.full((30, 80), 2000, np.uint16))
    (folder / 'intrinsics.json').write_text('{"fx": 60, "fy": 60, "cx": 39.5, "cy": 29.5}')
    trainer = Trainer(replace(config, workers=workers))
    trainer.train_frames = open_dataset('folder', folder)
    with pytest.raises(UsageError) as caught:
        trainer.run()
    assert str(caught.value).startswith(str(folder / 'image')) and 'differ' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_gradients_that_are_no_numbers_cost_a_step_and_not_the_run(config, monkeypatch):
    monkeypatch.setattr(train, 'BAD_STEPS', 2)
    for bad, ends in (({1}, False), ({1, 3}, False), ({1, 2}, True)):
        trainer = Trainer(replace(config, out=f'{config.out}{len(bad)}{ends}'))
        trainer.model.position.register_hook(
            lambda g, t=trainer, bad=bad: g * float('nan') if t.iteration in bad else g
        )
        if ends:
            with pytest.raises(
                DarError, match='gradients of 2 iterations up to 2 were not finite'
            ):
                trainer.run()
        else:
            trainer.run()
        assert all(torch.isfinite(value).all() for value in trainer.model.parameters())


def test_a_resumed_optimizer_is_laid_out_as_its_parameters_are(config):
    """AdamW takes tensors of different strides one by one on a GPU."""
    Trainer(replace(config, stages=config.stages[:1])).run()
    state = Trainer(replace(config, stages=config.stages[:1]), resume=True).optimizer.state
    assert any(p.dim() == 4 and not p.is_contiguous() for p in state)
    for parameter, values in state.items():
        assert values['exp_avg'].stride() == parameter.stride()


def test_fsdp_in_one_process_is_told(config, capsys):
    Trainer(replace(config, strategy='fsdp'))
    assert 'fsdp has no effect in one process' in capsys.readouterr().out


def test_weights_of_timm_are_fed_the_pixels_that_they_know(config):
    model = replace(config.model, backbone='resnet18')  # of ImageNet's mean, not of 0.5
    with pytest.raises(UsageError, match='resnet18 was trained with pixel_mean .0.485'):
        initial_model(replace(config, model=model, init='timm'))


def test_a_missing_file_of_weights_is_called_missing(config):
    with pytest.raises(UsageError, match='nowhere.pth does not exist'):
        initial_model(replace(config, init='nowhere.pth'))


@pytest.mark.parametrize('broken', ['training', 'validation'])
def test_depth_that_is_not_in_metres_is_told_before_anything_is_trained(config, tmp_path, broken):
    """In millimetres, for instance: every pixel would count as beyond the range."""
    bad = FakeFrames()
    bad.items = [(image, depth * 1000, camera) for image, depth, camera in bad.items]
    name = {'training': 'train_data', 'validation': 'val_data'}[broken]
    config = replace(config, **{name: str(bad.write(tmp_path / 'mm'))})
    with pytest.raises(UsageError, match=f'no frame of the {broken} set .*is it in metres'):
        Trainer(config)


@pytest.mark.parametrize('broken', ['optimizer', 'average', 'model'])
def test_a_damaged_run_is_one_line(config, broken):
    config = replace(config, ema=0.9)
    Trainer(config, minutes=1e-9).run()
    file = Path(config.out) / 'last' / f'{broken}.safetensors'
    cure = 'copy the whole folder again'
    if broken != 'model':
        cure += f', or begin from its weights: `init: {file.parent}` and another `out`'
    file.write_bytes(file.read_bytes()[:-5])
    for word in ('damaged', 'missing'):
        with pytest.raises(UsageError, match=f'{broken}.safetensors is {word}') as caught:
            Trainer(config, resume=True)
        assert str(caught.value).endswith(cure) and '\n' not in str(caught.value)
        file.unlink(missing_ok=True)


def test_out_must_be_a_folder(config, tmp_path):
    (tmp_path / 'file').touch()
    for out in (tmp_path / 'file', tmp_path / 'file' / 'run'):
        with pytest.raises(UsageError, match='out: .*file is no folder'):
            Trainer(replace(config, out=str(out)))


@pytest.mark.parametrize('dataset', ['sim', 'folder'])
def test_a_relative_path_that_is_missing_is_told_from_where(config, dataset):
    with pytest.raises(UsageError, match=f'nowhere.*current folder, {Path.cwd()}'):
        Trainer(replace(config, train_data='nowhere', dataset=dataset))

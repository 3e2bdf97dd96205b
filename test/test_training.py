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

from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.from_bundle import config_of_bundle, model_from_bundle
from dar_ros.model.presets import PRESETS
from dar_ros.simulation.dataset import SimDataset, StoredFrame
from dar_ros.training import ablation
from dar_ros.training.config import OptimizerConfig, load_config, parse_config
from dar_ros.training.optimizer import learning_rate
from dar_ros.training.sources import initial_model
from dar_ros.training.statistics import row_medians
from dar_ros.training.train import Trainer
from dar_ros.training.validation import validate

ROOT = Path(__file__).resolve().parents[1]
MODEL = {
    'preset': 'dar_tiny',
    'width': 32,
    'heads': 2,
    'latent_width': 16,
    'memory_width': 32,
    'layers': 1,
}


class FakeFrames:
    """A data set in memory, with the layout of SimDataset."""

    def __init__(self, count=6, size=(60, 80)):
        rng = np.random.default_rng(0)
        self.items = []
        for _ in range(count):
            depth = np.tile(
                np.linspace(rng.uniform(3, 9), 1, size[0], dtype=np.float32)[:, None], (1, size[1])
            )
            image = np.clip(255 / depth[..., None] + rng.normal(0, 5, (*size, 3)), 0, 255).astype(
                np.uint8
            )
            depth[:3] = np.inf
            self.items.append((image, depth, Intrinsics.from_fov(70, size[1], size[0])))

    def write(self, folder):
        shard = folder / 'shard-00000'
        shard.mkdir(parents=True)
        np.save(shard / 'images.npy', np.stack([i for i, _, _ in self.items]))
        np.save(shard / 'depth.npy', np.stack([d for _, d, _ in self.items]))
        np.save(
            shard / 'intrinsics.npy',
            np.array([(k.fx, k.fy, k.cx, k.cy) for _, _, k in self.items]),
        )
        (folder / 'dataset.json').write_text(json.dumps({'frames': len(self.items)}))
        return folder


@pytest.fixture
def config(tmp_path):
    data = str(FakeFrames().write(tmp_path / 'data'))
    return parse_config(
        {
            'name': 'test',
            'train_data': data,
            'val_data': data,
            'out': str(tmp_path / 'run'),
            'model': MODEL,
            'init': 'random',
            'validate_every': 3,
            'stages': [
                {'size': [32, 48], 'iterations': 4, 'batch': 2},
                {'size': [64, 96], 'iterations': 3, 'batch': 1},
            ],
        }
    )


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
        cropped.append(StoredFrame(image, depth, camera))
    medians = row_medians(cropped, PRESETS['dar_tiny'])
    assert np.isfinite(medians).all() and medians[0] == medians[20] and medians[-1] == medians[-20]
    assert medians[96] not in (medians[0], medians[-1])


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


def test_fresh_parts_do_not_come_from_init(config, tmp_path):
    config = replace(config, init=str(Trainer(config).run()))
    source, _ = load_checkpoint(config.init)
    again = replace(config, fresh=('transformer', 'position'), out=str(tmp_path / 'again'))
    before, after = source.state_dict(), initial_model(again).state_dict()
    changed = {name.split('.')[0] for name in before if (before[name] != after[name]).any()}
    assert changed == {'transformer', 'position'}
    with pytest.raises(UsageError, match='fresh: no parameter begins with nothing'):
        initial_model(replace(again, fresh=('nothing',)))


def test_a_network_grows_by_fresh_parts(config, tmp_path):
    """Parts that `init` has not are new, by their names; at first they change nothing."""
    config = replace(config, model=replace(config.model, neck_blocks=0))
    save_checkpoint(tmp_path / 'thin', DAR(config.model))
    deep = replace(config, model=replace(config.model, neck_blocks=2), init=str(tmp_path / 'thin'))
    with pytest.raises(UsageError, match='another network'):
        initial_model(deep)
    grown = initial_model(
        replace(deep, fresh=('encoder.memory_blocks', 'encoder.detail_blocks'))
    ).eval()
    source, _ = load_checkpoint(deep.init)
    image = torch.randint(0, 256, (1, *config.model.input_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        for found, wanted in zip(grown.encoder(image), source.eval().encoder(image)):
            torch.testing.assert_close(found, wanted)


def test_frames_of_several_folders_follow_each_other(config, tmp_path):
    other = FakeFrames(count=4, size=(30, 40)).write(tmp_path / 'other')
    folders = [config.train_data, str(other), config.train_data]
    trainer = Trainer(replace(config, train_data=folders))
    first, second = (SimDataset(folder) for folder in folders[:2])
    assert len(trainer.train_frames) == 2 * len(first) + len(second)
    for index, expected in ((len(first), second[0]), (len(first) + len(second), first[0])):
        assert (trainer.train_frames[index].image == expected.image).all()


def test_training_goes_on_from_a_bundle(config, bundle):
    model = initial_model(
        replace(config, model=config_of_bundle(bundle), init=str(bundle.path))
    ).eval()
    expected = model_from_bundle(bundle)
    image = torch.from_numpy(bundle.reference()['image'])
    with torch.no_grad():
        found, wanted = (m.encode(image).detail for m in (model, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', ['bundle', 'checkpoint'])
def test_training_goes_on_at_another_input_size(config, bundle, kind, tmp_path):
    """As for a camera of another aspect: nothing but the learned positions depends on the size."""
    source, init = model_from_bundle(bundle), bundle.path
    if kind == 'checkpoint':
        init = tmp_path / 'checkpoint'
        save_checkpoint(init, source)
    wide = replace(source.config, input_size=(96, 160))
    model = initial_model(replace(config, model=wide, init=str(init))).eval()
    assert model.config == wide and model.position.shape[-2:] == (4, 6)
    image = torch.from_numpy(bundle.reference()['image'])[:, :96, :160]
    with torch.no_grad():
        found, wanted = (m.encode(image).detail for m in (model, source))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match=f'{init}.*another network'):
        narrow = replace(wide, width=64)
        initial_model(replace(config, model=narrow, init=str(init)))


@pytest.mark.parametrize('change', [{'pixel_mean': (0.4, 0.5, 0.5)}, {'canonical': False}])
def test_weights_are_not_taken_for_something_else(config, bundle, change, tmp_path):
    """What no tensor's shape tells, like the scale of pixels, is compared, and named."""
    model = config_of_bundle(bundle)
    checkpoint = tmp_path / 'checkpoint'
    save_checkpoint(checkpoint, DAR(model), {})
    for init in (bundle.path, checkpoint):
        with pytest.raises(UsageError, match=f'{init}.*{next(iter(change))}'):
            initial_model(replace(config, model=replace(model, **change), init=str(init)))


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


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_two_processes_train_as_one(config, tmp_path, strategy):
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
    cut = [['--minutes', '1e-9'], ['--resume']] if strategy == 'fsdp' else [[]]
    for name, launch, pieces in (('one', [], [[]]), ('two', torchrun, cut)):
        path = tmp_path / f'{name}.yaml'
        settings = {**data, 'strategy': strategy, 'out': str(tmp_path / name)}
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
        stages=(replace(config.stages[0], iterations=40, batch=4),),
        validate_every=40,
        optimizer=replace(config.optimizer, peak=3e-3),
    )
    trainer = Trainer(config)
    before = validate(trainer.model, trainer.val_frames, (32, 48))['abs_rel'][-1]
    trainer.run()
    _, record = load_checkpoint(Path(config.out) / 'best')
    assert record['validation']['abs_rel'][-1] < 0.7 * before
    assert len(record['sigma_factors']) == 5 and len(record['row_medians']) == 192


@pytest.mark.parametrize(
    'change, word',
    [
        ({'stages': None}, 'stages'),
        ({'model': {'preset': 'nothing'}}, 'preset'),
        ({'colour': 3}, 'colour'),
        ({'loss': {'gamma': 1}}, 'gamma'),
        ({'optimizer': {'peak': '1e-4'}}, 'peak'),
    ],
)
def test_bad_configurations_name_the_fault(change, word):
    data = {
        'name': 'x',
        'train_data': 'a',
        'val_data': 'b',
        'out': 'c',
        'model': MODEL,
        'stages': [{'size': [32, 48], 'iterations': 1, 'batch': 1}],
        **change,
    }
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(UsageError, match=word):
        parse_config(data)


def test_shipped_configurations_are_valid():
    assert load_config(ROOT / 'config' / 'training' / 'dar_tiny.yaml').model == PRESETS['dar_tiny']
    assert 'linear_16' in ablation.variant_configs(ROOT / 'config' / 'training' / 'bakeoff.yaml')


@pytest.mark.parametrize('name, far', [('folder', 20.0), ('nyu', 10.0), ('kitti', 80.0)])
def test_shipped_configurations_of_real_data_are_read(name, far, tmp_path, monkeypatch):
    config = load_config(ROOT / 'config' / 'training' / f'{name}.yaml')
    assert config.dataset == name and config.model.depth_range == (0.1, far)
    assert all(stage.size == config.model.input_size for stage in config.stages)
    if name == 'folder':
        assert config.model == PRESETS['dar_tiny']
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match='data.* is missing'):
        Trainer(config)


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
    best = Trainer(replace(config, stages=(stage,), validate_every=2, **mine)).run()
    assert load_checkpoint(best)[1]['validation']['frames'] == 2
    with pytest.raises(UsageError, match='no data set'):
        Trainer(replace(config, dataset='lsun'))


def test_strategies_are_checked():
    data = {
        'name': 'x',
        'train_data': 'a',
        'val_data': 'b',
        'out': 'c',
        'model': MODEL,
        'stages': [{'size': [32, 48], 'iterations': 1, 'batch': 1}],
    }
    assert parse_config(data).strategy == 'ddp'
    assert parse_config({**data, 'strategy': 'fsdp'}).strategy == 'fsdp'
    with pytest.raises(UsageError, match='none of ddp, fsdp'):
        parse_config({**data, 'strategy': 'zero'})
    with pytest.raises(UsageError, match='set ema to 0'):
        parse_config({**data, 'strategy': 'fsdp', 'ema': 0.9})

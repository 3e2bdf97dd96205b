"""The configuration of a training, and the files of it that are shipped."""

import json
from pathlib import Path

import pytest

pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('lightning_fabric', reason='lightning_fabric is not installed (extra: train)')

from tiny_training import MODEL

from dar_ros.errors import UsageError
from dar_ros.model.presets import PRESETS, ModelConfig
from dar_ros.training import ablation
from dar_ros.training.config import load_config, parse_config
from dar_ros.training.train import Trainer

ROOT = Path(__file__).resolve().parents[1]
STAGE = {'size': [32, 48], 'iterations': 1, 'batch': 1}
BARE_CONFIG = {
    'name': 'x',
    'train_data': 'a',
    'val_data': 'b',
    'out': 'c',
    'model': MODEL,
    'stages': [STAGE],
}


def test_a_bundle_warns_beyond_the_ranges_that_were_drawn():
    assert parse_config(BARE_CONFIG).model.trained_span == (0.05, 120.0)
    data = {**BARE_CONFIG, 'ranges': {'depth_min': [0.2, 0.5], 'depth_max': [3.0, 8.0]}}
    assert parse_config(data).model.trained_span == (0.2, 8.0)


@pytest.mark.parametrize(
    'change, word',
    [
        ({'stages': None}, 'stages'),
        ({'model': {'preset': 'nothing'}}, 'preset'),
        ({'colour': 3}, 'colour'),
        ({'loss': {'gamma': 1}}, 'gamma'),
        ({'optimizer': {'peak': '1e-4'}}, 'peak'),
        ({'loss': {'step_weights': [1, 1, 2]}}, 'step_weights has 3 numbers for 5 steps'),
        ({'stages': []}, 'stages is empty'),
        ({'stages': [{**STAGE, 'size': [90, 120]}]}, '90, 120.; two multiples of 8'),
        ({'stages': [{**STAGE, 'iterations': 0}]}, 'at least 1 iteration'),
        ({'stages': [{**STAGE, 'peak': 1e-3}]}, 'peak'),
        ({'validate_every': 0}, 'validate_every'),
        ({'ranges': {'depth_max': 20}}, 'ranges.depth_max is 20'),
        ({'ranges': {'depth_max': []}}, 'ranges.depth_max'),
        ({'ranges': {'depth_max': [20.0, 3.0]}}, '20.0 to 3.0 is no range'),
        ({'ranges': {'depth_max': ['3', '9']}}, 'configuration: .*str'),
        ({'loss': {'l1_weight': '1e-1'}}, 'l1_weight is text'),
        ({'augment': {'noise': '5e-1'}}, 'noise is text'),
        ({'augment': {'flip': 7}}, 'augment.flip is 7; 0 to 1'),
        ({'freeze': 'encoder.backbone'}, 'freeze is text; a list'),
        ({'validate_every': '1e3'}, 'configuration: .*str'),
        ({'precision': 16}, 'precision 16 is none of 32-true'),
        ({'strategy': 'fsdp', 'precision': '16-mixed'}, 'use bf16-mixed'),
        ({'val_split': 'val.txt'}, 'no lists of frames'),
    ],
)
def test_bad_configurations_name_the_fault(change, word):
    data = {**BARE_CONFIG, **change}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(UsageError, match=word):
        parse_config(data)


def test_shipped_configurations_are_valid():
    assert load_config(ROOT / 'config' / 'training' / 'dar_tiny.yaml').model == PRESETS['dar_tiny']
    edge = load_config(ROOT / 'config' / 'training' / 'dar_edge.yaml')
    assert edge.freeze == ['encoder.backbone', 'encoder.detail_encoder.backbone']
    bakeoff = ablation.variant_configs(ROOT / 'config' / 'training' / 'bakeoff.yaml')
    assert 'linear_16' in bakeoff
    # The networks of docs/accuracy.md's table, 3.61 M parameters; the preset has grown since.
    assert not any(config.model.neck_blocks for configs in bakeoff.values() for config in configs)


def test_the_published_dar_edge_is_fine_tuned_as_it_is():
    """config/training/folder_edge.yaml names the network that models/dar_edge is."""
    edge = load_config(ROOT / 'config' / 'training' / 'folder_edge.yaml')
    record = json.loads((ROOT / edge.init / 'config.json').read_text())
    assert edge.model == ModelConfig.from_dict(record['model'])
    assert (
        edge.dataset == 'folder' and edge.encoder and edge.freeze == record['training']['freeze']
    )
    assert all(stage.size == edge.model.input_size for stage in edge.stages)


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


def test_strategies_are_checked():
    assert parse_config(BARE_CONFIG).strategy == 'ddp'
    assert parse_config({**BARE_CONFIG, 'strategy': 'fsdp'}).strategy == 'fsdp'
    with pytest.raises(UsageError, match='none of ddp, fsdp'):
        parse_config({**BARE_CONFIG, 'strategy': 'zero'})
    with pytest.raises(UsageError, match='set ema to 0'):
        parse_config({**BARE_CONFIG, 'strategy': 'fsdp', 'ema': 0.9})

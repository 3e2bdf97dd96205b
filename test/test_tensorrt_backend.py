"""
The TensorRT backend from end to end on a fake GPU: buffers, profiles, graphs, cache.

The engines compute in onnxruntime on the prepared graphs; see fake_tensorrt and fake_cuda for what
they refuse. What only a GPU can show is at the end, and is skipped without one.
"""

import errno
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed (extra: runtime)')

import fake_cuda
import fake_tensorrt

from dar_ros.backends import cuda, open_backend, tensorrt_build
from dar_ros.backends.base import self_test
from dar_ros.backends.engine_cache import read_sealed
from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.backends.tensorrt_backend import TensorRTBackend
from dar_ros.cli import main
from dar_ros.errors import BackendError
from dar_ros.paths import cache_folder
from dar_ros.serving import Serving

DEVICES = sorted(fake_cuda.DEVICES)


@pytest.fixture(scope='module')
def image(bundle):
    return np.random.default_rng(1).integers(0, 256, (*bundle.input_size, 3), np.uint8)


def depths(backend, image, depth_min=0.2, depth_max=12.0):
    """Return copies of what a backend says after every step."""
    backend.start(image, depth_min, depth_max)
    found = []
    for _ in range(backend.bundle.num_steps):
        backend.step()
        prediction = backend.finish()
        found.append(
            [prediction.depth.copy(), prediction.range_class.copy(), prediction.scale.copy()]
        )
    return found


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_every_step_equals_onnxruntime(gpu, bundle, image):
    """fp32 through every buffer, profile, context and graph gives the same bits."""
    backend = TensorRTBackend(bundle, 'fp32')
    reference = OnnxRuntimeBackend(bundle)
    for _ in range(2):  # the second image finds nothing left over from the first
        for found, expected in zip(depths(backend, image), depths(reference, image)):
            for one, other in zip(found, expected):
                assert one.dtype == other.dtype and np.array_equal(one, other)
        image = image[::-1].copy()
    captured = gpu.package == 'cuda-bindings'
    assert (gpu.launches > 0) == captured
    why = 'tensorrt runs without CUDA graphs: pycuda has none; install cuda-bindings'
    assert backend.notes == (() if captured else (why,))


def test_fp16_is_the_default_and_passes(gpu, bundle):
    backend = open_backend(bundle, 'tensorrt')
    assert (backend.name, backend.precision, backend.notes) == ('tensorrt', 'fp16', ())
    # TF32 is off: what fp16 keeps in fp32, the first convolution before all, needs all of it.
    assert fake_tensorrt.builds[0] == ('memory_keys', True, False)


def test_a_frame_allocates_nothing_and_copies_the_least(gpu, bundle, image):
    """In: image and range. Out: depth, class and scale of the last step. Nothing else."""
    backend = TensorRTBackend(bundle, 'fp32')
    before, contexts = gpu.allocations, gpu.launches
    gpu.uploads.clear()
    gpu.downloads.clear()
    backend.start(image, 0.2, 12.0)
    for _ in range(bundle.num_steps):
        backend.step()
    backend.finish()
    pixels = image.shape[0] * image.shape[1]
    start = 4 * bundle.grid_sizes[0][0] * bundle.grid_sizes[0][1]
    assert gpu.allocations == before
    assert gpu.uploads == [3 * pixels, start, start]
    assert sorted(gpu.downloads) == [pixels, 4 * pixels, 4 * pixels]
    assert gpu.launches == contexts + bundle.num_steps + 2  # one launch each


def test_a_frame_may_be_left_at_any_step(gpu, bundle, image):
    backend, reference = TensorRTBackend(bundle, 'fp32'), OnnxRuntimeBackend(bundle)
    expected = depths(reference, image)
    backend.start(image, 1.0, 2.0)
    backend.step()  # and never finished
    backend.start(image, 0.2, 12.0)
    backend.step()
    backend.step()
    assert np.array_equal(backend.finish().depth, expected[1][0])
    assert backend.finish().step == 2
    for _ in range(bundle.num_steps - 2):
        backend.step()
    with pytest.raises(BackendError, match=f'all {bundle.num_steps} steps'):
        backend.step()
    assert np.array_equal(backend.finish().depth, expected[-1][0])


def test_wrong_order_and_wrong_images_are_refused(gpu, bundle, image):
    backend = TensorRTBackend(bundle, 'fp32')
    with pytest.raises(BackendError, match='start an image first'):
        backend.step()
    with pytest.raises(BackendError, match='before the first step'):
        backend.finish()
    with pytest.raises(BackendError, match='the network takes uint8'):
        backend.start(image.astype(np.float32), 0.2, 12.0)
    with pytest.raises(BackendError, match='the network takes uint8'):
        backend.start(image[:-1], 0.2, 12.0)
    with pytest.raises(BackendError, match='tensorrt serves fp16 and fp32, not int8'):
        TensorRTBackend(bundle, 'int8')


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_opened_here_and_run_on_another_thread(gpu, bundle, image):
    """As the node does; the fake refuses calls on threads where no context is current."""
    backend, found = TensorRTBackend(bundle, 'fp32'), []
    thread = threading.Thread(target=lambda: found.extend(depths(backend, image)))
    thread.start()
    thread.join()
    assert len(found) == bundle.num_steps
    assert getattr(gpu.local, 'depth', 0) == 0
    backend.close()
    assert not gpu.memory and not gpu.host
    backend.close()


def test_the_keys_of_a_step_are_never_copied(gpu, bundle):
    """What one stage writes is where the next one reads: the same addresses."""
    backend = TensorRTBackend(bundle, 'fp32')
    for before, after in zip(backend._takes, backend._takes[1:]):
        for taken, given in {
            'latent': 'next_latent',
            'low': 'next_low',
            'high': 'next_high',
            'past_keys': 'keys',
            'past_values': 'values',
        }.items():
            assert after.tensors[taken] is before.tensors[given]
    first = backend._takes[0].tensors
    assert first['past_keys'].shape[3] == 0 and first['past_keys'].address
    assert first['latent'] is backend._encode.tensors['start']
    assert all(t.tensors['detail'] is backend._encode.tensors['detail'] for t in backend._takes)


# The cache


def test_engines_are_built_once_and_loaded_after(gpu, bundle, tmp_path):
    lines = []
    open_backend(bundle, 'tensorrt', 'fp32', progress=lines.append)
    assert [name for name, half, tf32 in fake_tensorrt.builds if not (half or tf32)] == [
        'memory_keys',
        'next_latent',
        'metric_depth',
    ]
    assert len(lines) == 3 and 'dar_tiny encoder fp32: building an engine for Orin' in lines[0]
    open_backend(bundle, 'tensorrt', 'fp32', progress=lines.append)
    assert len(fake_tensorrt.builds) == 3 and len(lines) == 3
    folder = tmp_path / 'cache' / 'dar_ros' / 'engines'
    assert len(list(folder.glob('*.engine'))) == len(list(folder.glob('*.json'))) == 3


def test_old_versions_get_an_engine_for_every_step(gpu, bundle, monkeypatch, image):
    """Below 10.8 several profiles in one engine could compute wrongly."""
    expected = depths(TensorRTBackend(bundle, 'fp32'), image)
    assert len(fake_tensorrt.builds) == 3
    monkeypatch.setattr(fake_tensorrt, '__version__', '10.3.0')
    backend = TensorRTBackend(bundle, 'fp32')
    assert len(fake_tensorrt.builds) == 3 + 1 + 2 * bundle.num_steps
    for found, wanted in zip(depths(backend, image), expected):
        assert all((a == b).all() for a, b in zip(found, wanted))
    TensorRTBackend(bundle, 'fp32')
    assert len(fake_tensorrt.builds) == 3 + 1 + 2 * bundle.num_steps


def test_timings_of_earlier_builds_are_used_unless_damaged(gpu, bundle, tmp_path):
    timing = tmp_path / 'cache' / 'dar_ros' / 'engines' / 'fake_tensorrt-10.13.0.timing'
    TensorRTBackend(bundle, 'fp32')
    assert read_sealed(timing) == b'+++'  # the fake adds one for every build
    TensorRTBackend(bundle, 'fp16')
    assert read_sealed(timing) == b'++++++'
    timing.write_bytes(timing.read_bytes()[:-1])
    for path in timing.parent.glob('*.engine'):
        path.unlink()
    TensorRTBackend(bundle, 'fp16')
    assert read_sealed(timing) == b'+++'


def test_a_full_disk_costs_the_cache_and_nothing_else(gpu, bundle, monkeypatch):
    """Minutes of building are not thrown away; nor is an engine that is there already."""
    monkeypatch.setattr(Path, 'write_bytes', full)
    backend = open_backend(bundle, 'tensorrt', 'fp32')
    assert len(fake_tensorrt.builds) == 3
    (note,) = backend.notes
    assert note.startswith('tensorrt builds its engines every time: ')
    assert 'cannot be written (No space left on device)' in note and 'XDG_CACHE_HOME' in note
    backend.close()
    monkeypatch.undo()


def full(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_cache_folder_that_cannot_be_made_leaves_nothing_open(
    gpu, bundle, monkeypatch, tmp_path
):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(BackendError, match='cannot hold engines'):
        open_backend(bundle, 'tensorrt')
    assert gpu.retained == 0


OTHER_GPUS = {
    'gpu': cuda.Gpu('Thor', (8, 7)),
    'capability': cuda.Gpu('Orin', (11, 0)),
    'multiprocessors': cuda.Gpu('Orin', (8, 7), 16),  # an AGX Orin; an Orin Nano has 8
}


@pytest.mark.parametrize('change', [*OTHER_GPUS, 'version', 'precision', 'onnx'])
def test_another_machine_library_or_model_builds_its_own(gpu, bundle, monkeypatch, change):
    TensorRTBackend(bundle, 'fp32')
    if change in OTHER_GPUS:
        monkeypatch.setattr(cuda, 'find_gpu', lambda: OTHER_GPUS[change])
    elif change == 'version':
        monkeypatch.setattr(fake_tensorrt, '__version__', '10.14.0')
    elif change == 'onnx':
        files = {**bundle.manifest['files'], 'step.onnx': {'sha256': '0' * 64, 'size': 1}}
        monkeypatch.setitem(bundle.manifest, 'files', files)
    TensorRTBackend(bundle, 'fp16' if change == 'precision' else 'fp32')
    assert len(fake_tensorrt.builds) == (4 if change == 'onnx' else 6)


def test_an_engine_that_the_library_refuses_is_built_again(gpu, bundle, monkeypatch):
    TensorRTBackend(bundle, 'fp32')
    load, calls = fake_tensorrt.Runtime.deserialize_cuda_engine, []

    def refuse_first(self, plan):
        calls.append(plan)
        return None if len(calls) == 1 else load(self, plan)

    monkeypatch.setattr(fake_tensorrt.Runtime, 'deserialize_cuda_engine', refuse_first)
    self_test(TensorRTBackend(bundle, 'fp32'))
    assert len(fake_tensorrt.builds) == 4 and len(calls) == 4
    monkeypatch.setattr(fake_tensorrt.Runtime, 'deserialize_cuda_engine', lambda *_: None)
    with pytest.raises(BackendError, match='refuses the engine that it just built of encoder'):
        TensorRTBackend(bundle, 'fp32')


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_a_shortage_of_memory_costs_no_engine(gpu, bundle, monkeypatch):
    """TensorRT returns nothing then, as it does of a foreign engine."""
    TensorRTBackend(bundle, 'fp32').close()
    files = sorted((path, path.read_bytes()) for path in cache_folder('engines').iterdir())
    built = len(fake_tensorrt.builds)

    def short(self, plan):
        self.logger.log(fake_tensorrt.ILogger.ERROR, 'Error Code 1: Cuda Runtime (out of memory)')
        self.logger.log(fake_tensorrt.ILogger.ERROR, 'Could not deserialize engine')

    with monkeypatch.context() as patch:
        patch.setattr(fake_tensorrt.Runtime, 'deserialize_cuda_engine', short)
        with pytest.raises(BackendError, match='cannot load its encoder: Could not deserialize'):
            TensorRTBackend(bundle, 'fp32')
    assert not gpu.memory and not gpu.host
    assert sorted((path, path.read_bytes()) for path in cache_folder('engines').iterdir()) == files
    self_test(TensorRTBackend(bundle, 'fp32'))
    assert len(fake_tensorrt.builds) == built


def test_recovery_builds_nothing(gpu, bundle, monkeypatch):
    """Frames are lost meanwhile: what served is opened again, or the next backend."""
    monkeypatch.setitem(sys.modules, 'dar_ros.backends.torch_backend', None)
    served = Serving(bundle.path)
    assert served.backend == 'tensorrt'
    built = len(fake_tensorrt.builds)
    fake_tensorrt.spoil = fake_tensorrt.nan_in_half
    assert 'onnxruntime serves instead of tensorrt' in served.recover('a fault of the GPU')
    assert len(fake_tensorrt.builds) == built
    served.close()


def test_the_command_builds_tests_and_says_where(gpu, bundle, tmp_path, capsys):
    assert main(['build-engine', '--model', str(bundle.path)]) == 0
    said = capsys.readouterr()
    assert said.out == (
        f'dar_tiny: fp16 engines for Orin, self-test passed, in {tmp_path}/cache/dar_ros/engines\n'
    )
    assert said.err.count('building an engine') == 3
    fake_tensorrt.spoil = fake_tensorrt.nan_in_half
    assert main(['build-engine', '--model', str(bundle.path)]) == 0
    said = capsys.readouterr()
    assert 'dar_tiny: fp32 engines' in said.out and 'fp16 fails its self-test' in said.err
    assert main(['build-engine', '--model', str(bundle.path), '--precision', 'fp16']) == 1
    said = capsys.readouterr()
    assert said.out == '' and said.err.startswith('dar: tensorrt in fp16 fails its self-test')


def test_a_command_tells_of_a_build_and_of_what_it_passed_over(
    gpu, bundle, tmp_path, capsys, monkeypatch
):
    """And frees the GPU before it ends."""
    cv2.imwrite(str(tmp_path / 'view.png'), np.zeros((30, 40, 3), np.uint8))
    predict = ['predict', str(tmp_path / 'view.png'), '--fov', '60', '--out', str(tmp_path)]
    predict += ['--model', str(bundle.path)]
    assert main(predict) == 0
    error = capsys.readouterr().err
    assert error.count('building an engine') == 3 and 'self-test' not in error
    assert not gpu.memory and gpu.retained == 0
    assert [kind for kind, _ in gpu.destroyed][-1] == 'runtime'
    assert all(alive for _, alive in gpu.destroyed)
    fake_tensorrt.spoil = fake_tensorrt.nan_in_half
    assert main(predict) == 0
    assert 'tensorrt in fp16 fails its self-test' in capsys.readouterr().err
    monkeypatch.setattr(cuda, 'has_driver', lambda: False)
    assert main(predict) == 0
    assert 'self-test' not in capsys.readouterr().err
    assert gpu.retained == 0


# On hardware


@pytest.fixture(scope='module')
def hardware():
    """Skip without a GPU, a TensorRT that serves it, and a CUDA package."""
    try:
        found = cuda.find_gpu()
        tensorrt_build.load_library()
        cuda.open_device().close()
    except BackendError as error:
        pytest.skip(f'needs a GPU: {error}')
    return found


@pytest.mark.parametrize('precision', ['fp16', 'fp32'])
def test_on_a_gpu_every_step_passes_the_self_test(hardware, bundle, precision):
    backend = open_backend(bundle, 'tensorrt', precision)
    assert backend.precision == precision


def test_on_a_gpu_ten_frames_are_steady(hardware, bundle, image):
    backend = open_backend(bundle, 'tensorrt')
    first = depths(backend, image)
    for _ in range(10):
        for found, expected in zip(depths(backend, image), first):
            assert np.array_equal(found[0], expected[0])

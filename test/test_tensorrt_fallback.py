"""What may go wrong with TensorRT, on a fake GPU: wrong engines, no memory, old libraries."""

import sys
import types

import numpy as np
import pytest

pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
pytest.importorskip('onnxruntime', reason='onnxruntime is not installed (extra: runtime)')

import fake_cuda
import fake_tensorrt

from dar_ros import backends
from dar_ros.backends import cuda, open_backend, tensorrt_build
from dar_ros.backends.tensorrt_backend import TensorRTBackend
from dar_ros.cli import main
from dar_ros.errors import BackendError

DEVICES = sorted(fake_cuda.DEVICES)


@pytest.fixture(scope='module')
def image(bundle):
    return np.random.default_rng(1).integers(0, 256, (*bundle.input_size, 3), np.uint8)


def wrong_always(outputs, half):
    if 'metric_depth' in outputs:
        outputs['metric_depth'] *= 1.05


def test_fp16_that_computes_wrongly_falls_to_fp32(gpu, bundle):
    fake_tensorrt.spoil = fake_tensorrt.nan_in_half
    backend = open_backend(bundle)
    assert (backend.name, backend.precision) == ('tensorrt', 'fp32')
    assert len(backend.notes) == 1 and not backend.refused
    assert backend.notes[0].startswith(
        'tensorrt in fp16 fails its self-test: step 1 is right on 0.0%'
    )


def test_an_engine_that_goes_wrong_after_it_was_cached_is_noticed(gpu, bundle):
    open_backend(bundle, 'tensorrt', 'fp16')
    fake_tensorrt.spoil = fake_tensorrt.nan_in_half
    with pytest.raises(BackendError, match='tensorrt in fp16 fails its self-test'):
        open_backend(bundle, 'tensorrt', 'fp16')


def test_tensorrt_that_computes_wrongly_falls_to_the_next_backend(gpu, bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, 'dar_ros.backends.torch_backend', None)  # as without torch
    monkeypatch.setattr(backends, '_torch_has_no_cuda', lambda: False)
    fake_tensorrt.spoil = wrong_always
    backend = open_backend(bundle)
    assert backend.name == 'onnxruntime'
    assert [note.split(':')[0] for note in backend.notes[:3]] == [
        'tensorrt in fp16 fails its self-test',
        'tensorrt in fp32 fails its self-test',
        'torch needs dar_ros.backends.torch_backend, which is not installed; see docs/tensorrt.md',
    ]
    assert backend.refused == backend.notes[:3]
    assert not gpu.memory  # both were closed
    with pytest.raises(BackendError, match='in fp16 fails.*in fp32 fails'):
        open_backend(bundle, 'tensorrt')


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_a_gpu_without_memory_leaves_nothing_behind(gpu, bundle):
    gpu.fail = 'memory'
    with pytest.raises(BackendError, match='CUDA failed'):
        open_backend(bundle, 'tensorrt')
    assert not gpu.memory and not gpu.host


def test_an_engine_that_cannot_be_captured_runs_without_graphs(gpu, bundle):
    gpu.fail = 'capture'
    backend = open_backend(bundle, 'tensorrt')
    (note,) = backend.notes
    assert note.startswith('tensorrt runs without CUDA graphs: CUDA failed: ')
    assert 'CAPTURE_INVALIDATED in cuStreamEndCapture' in note and gpu.launches == 0


def test_what_tensorrt_says_of_a_failed_capture_is_told(gpu, bundle, monkeypatch):
    """Also where the end of the capture fails, too, as it does after such an error."""

    def uncapturable(self, stream):
        if gpu.capturing is None:
            return run(self, stream)
        gpu.fail = 'capture'
        return fail('Cuda Runtime (operation not permitted)')(self, stream)

    run = fake_tensorrt._Context.execute_async_v3
    monkeypatch.setattr(fake_tensorrt._Context, 'execute_async_v3', uncapturable)
    assert open_backend(bundle, 'tensorrt', 'fp32').notes == (
        'tensorrt runs without CUDA graphs: TensorRT failed to run: '
        'Cuda Runtime (operation not permitted)',
    )


def fail(reason, answer=False):
    """Return a method of fake_tensorrt's engine or context that fails as TensorRT does."""

    def method(self, *_):
        engine = getattr(self, 'engine', self)
        engine.logger.log(fake_tensorrt.ILogger.ERROR, reason)
        return answer

    return method


@pytest.mark.parametrize(
    'kind, method, answer, text',
    [
        ('_Engine', 'create_execution_context', None, 'has no memory for an execution context'),
        ('_Context', 'set_optimization_profile_async', False, 'refuses profile 0 of fake'),
        ('_Context', 'set_input_shape', False, 'refuses shape .* of'),
        ('_Context', 'infer_shapes', ['keys'], 'does not know the shape of keys'),
        ('_Context', 'set_tensor_address', False, 'refuses the address of'),
        ('_Context', 'execute_async_v3', False, 'failed to run'),
    ],
)
def test_tensorrt_s_own_reason_is_told(gpu, bundle, monkeypatch, kind, method, answer, text):
    monkeypatch.setattr(getattr(fake_tensorrt, kind), method, fail('out of luck', answer))
    with pytest.raises(BackendError, match=f'TensorRT {text}.*: out of luck'):
        TensorRTBackend(bundle, 'fp32')


def orderly(gpu):
    """Assert that all of TensorRT's objects went with the memory still there; return kinds."""
    kinds = [kind for kind, _ in gpu.destroyed]
    assert kinds.count('engine') == 3 and kinds[-1] == 'runtime'
    assert kinds == sorted(kinds) and all(alive for _, alive in gpu.destroyed), gpu.destroyed
    assert not gpu.memory and not gpu.host
    return kinds


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_a_stage_that_fails_goes_before_the_memory_under_it(gpu, bundle, monkeypatch):
    """The error's traceback has it, and may be kept for long."""
    monkeypatch.setattr(fake_tensorrt._Context, 'infer_shapes', lambda self: ['keys'])
    with pytest.raises(BackendError) as caught:
        TensorRTBackend(bundle, 'fp32')
    assert orderly(gpu).count('context') == 1 and caught.value.__traceback__


@pytest.mark.parametrize('gpu', DEVICES, indirect=True)
def test_a_backend_that_fails_its_self_test_goes_before_its_memory(gpu, bundle, monkeypatch):
    gpu.fail, run = 'capture', fake_tensorrt._Context.execute_async_v3

    def fail_in_a_frame(self, stream):
        return (gpu.capturing is not None or not self.runs) and run(self, stream)

    monkeypatch.setattr(fake_tensorrt._Context, 'execute_async_v3', fail_in_a_frame)
    with pytest.raises(BackendError, match='failed to run'):
        open_backend(bundle, 'tensorrt', 'fp32')
    assert orderly(gpu).count('context') == 1 + 2 * bundle.num_steps


def test_a_failing_run_is_a_backend_error(gpu, bundle, image, monkeypatch):
    gpu.fail = 'capture'
    backend = TensorRTBackend(bundle, 'fp32')
    monkeypatch.setattr(fake_tensorrt._Context, 'execute_async_v3', lambda *_: False)
    with pytest.raises(BackendError, match='TensorRT failed to run'):
        backend.start(image, 0.2, 12.0)


def test_whatever_a_library_raises_the_next_backend_serves(gpu, bundle, monkeypatch):
    def broken(*_):
        raise RuntimeError('version mismatch\nand a page of C++')

    monkeypatch.setattr(fake_tensorrt, 'Runtime', broken)
    monkeypatch.setitem(sys.modules, 'dar_ros.backends.torch_backend', None)
    backend = open_backend(bundle)
    assert backend.name == 'onnxruntime'
    assert backend.notes[0] == 'tensorrt does not start: RuntimeError: version mismatch'


@pytest.mark.parametrize('error', [OSError('libcurand.so.10'), ValueError('libcublas.so.*[0-9]')])
def test_a_torch_that_does_not_load_is_passed_over(gpu, bundle, monkeypatch, tmp_path, error):
    """Of wheels whose CUDA libraries are missing, as on many a Jetson."""
    (tmp_path / 'torch.py').write_text(f'raise {error!r}')
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split('.')[0] == 'torch']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, 'dar_ros.backends.torch_backend', raising=False)
    fake_tensorrt.spoil = wrong_always
    backend = open_backend(bundle)
    assert backend.name == 'onnxruntime'
    assert backend.notes[2] == f'torch does not start: {type(error).__name__}: {error}'


def test_a_tensorrt_that_does_not_load_hides_no_other(gpu, monkeypatch, tmp_path):
    (tmp_path / 'tensorrt.py').write_text('raise OSError("libnvinfer.so.10: no such file")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'tensorrt', raising=False)
    newer = types.SimpleNamespace(__version__='1.7.1', ComputeCapability=None)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', newer)
    assert tensorrt_build.load_library() is newer
    for name in tensorrt_build.MODULES[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r'tensorrt does not load \(OSError: libnvinfer.so.10'):
        tensorrt_build.load_library()


def test_a_torch_without_cuda_is_passed_over(gpu, bundle, monkeypatch):
    """Beside an NVIDIA driver too: on the CPU onnxruntime is faster."""
    torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    fake_tensorrt.spoil = wrong_always
    backend = open_backend(bundle)
    assert backend.name == 'onnxruntime' and backend.notes[2].startswith('torch: this build')


def test_a_driver_too_old_for_the_library_is_named_with_its_cure(gpu, bundle, monkeypatch):
    def null(logger):
        logger.log(fake_tensorrt.ILogger.WARNING, 'CUDA initialization failure with error: 35')
        raise TypeError('pybind11::init(): factory function returned nullptr')

    monkeypatch.setattr(fake_tensorrt, 'Runtime', null)
    with pytest.raises(BackendError, match='failure with error: 35.*driver is too old'):
        open_backend(bundle, 'tensorrt')


# What is missing


def test_an_old_or_absent_library_is_named_with_its_cure(gpu, bundle, monkeypatch):
    monkeypatch.setattr(fake_tensorrt, '__version__', '8.6.1')
    for name in tensorrt_build.MODULES[1:]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match='TensorRT 8.6.1 is older than 10.3; install'):
        open_backend(bundle, 'tensorrt')
    # An old one does not hide another that serves.
    newer = types.SimpleNamespace(__version__='1.7.1', ComputeCapability=None)
    monkeypatch.setitem(sys.modules, 'tensorrt_rtx', newer)
    assert tensorrt_build.load_library() is newer
    for name in tensorrt_build.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match='TensorRT is not installed; .* pip install tensorrt'):
        open_backend(bundle, 'tensorrt')


def test_onnx_is_needed_to_build_only(gpu, bundle, monkeypatch):
    open_backend(bundle, 'tensorrt', 'fp32')
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.delitem(sys.modules, 'dar_ros.backends.graphs')
    open_backend(bundle, 'tensorrt', 'fp32')
    with pytest.raises(
        BackendError, match='needs onnx, which is not installed; .* pip install onnx'
    ):
        open_backend(bundle, 'tensorrt', 'fp16')


def test_without_a_driver_no_library_is_touched(bundle, monkeypatch, capsys):
    """TensorRT crashes on loading an engine without a driver; auto starts fast, and says why."""

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(cuda.ctypes, 'CDLL', missing)
    monkeypatch.setattr(tensorrt_build, 'load_library', lambda: pytest.fail('it was loaded'))
    monkeypatch.setitem(sys.modules, 'dar_ros.backends.torch_backend', None)
    backend = open_backend(bundle)
    assert backend.name == 'onnxruntime'
    assert backend.notes == ('tensorrt: no NVIDIA driver (libcuda.so.1 is not found)',)
    assert main(['build-engine', '--model', str(bundle.path)]) == 1
    said = capsys.readouterr()
    assert said.err == 'dar: tensorrt: no NVIDIA driver (libcuda.so.1 is not found)\n'

"""onnxruntime on both of its devices, and what the choice among the backends says."""

from dataclasses import replace

import numpy as np
import pytest

onnxruntime = pytest.importorskip(
    'onnxruntime', reason='onnxruntime is not installed (extra: runtime)'
)

from changed_bundle import change_reference

from dar_ros.backends import cuda, open_backend
from dar_ros.backends.base import self_test
from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.bundle import BEYOND, IN_RANGE, open_bundle
from dar_ros.errors import BackendError


def test_values_that_stay_in_onnxruntime_give_the_same_depth(bundle):
    """The code path of the CUDA provider, on the CPU."""
    bound, plain = OnnxRuntimeBackend(bundle), OnnxRuntimeBackend(bundle)
    bound.on_gpu = True
    image = np.random.default_rng(3).integers(0, 256, (*bundle.input_size, 3), np.uint8)
    for _ in range(2):
        for backend in (bound, plain):
            backend.start(image, 0.3, 9.0)
        for _ in range(bundle.num_steps):
            bound.step()
            plain.step()
            assert not isinstance(bound._last['keys'], np.ndarray)
            one, other = bound.finish(), plain.finish()
            assert np.array_equal(one.depth, other.depth)
            assert np.array_equal(one.range_class, other.range_class)
            assert np.array_equal(one.scale, other.scale)
        image = image[:, ::-1].copy()
    self_test(bound)
    bound.close()
    held = [value for value in vars(bound).values() if isinstance(value, onnxruntime.OrtValue)]
    assert not held  # on CUDA it would be the device's memory


def test_steps_are_taken_after_a_start_and_as_many_as_there_are(bundle):
    backend = OnnxRuntimeBackend(bundle)
    with pytest.raises(BackendError, match='start an image first'):
        backend.step()
    backend.start(np.zeros((*bundle.input_size, 3), np.uint8), 0.3, 9.0)
    with pytest.raises(BackendError, match='before the first step'):
        backend.finish()
    for _ in range(bundle.num_steps):
        backend.step()
    with pytest.raises(BackendError, match=f'all {bundle.num_steps} steps are taken'):
        backend.step()
    assert backend.finish().step == bundle.num_steps


@pytest.mark.skipif(
    'CUDAExecutionProvider' in onnxruntime.get_available_providers(), reason='it has CUDA'
)
def test_without_a_cuda_provider_the_cpu_serves_and_says_so(bundle, monkeypatch):
    monkeypatch.setattr(cuda, 'find_gpu', lambda: cuda.Gpu('A2', (8, 6)))
    backend = open_backend(bundle, 'onnxruntime')
    assert backend.device == 'cpu'
    assert len(backend.notes) == 1
    assert 'has no CUDA provider; ' in backend.notes[0]
    assert '-m pip install onnxruntime-gpu' in backend.notes[0]


def test_a_cuda_provider_that_does_not_load_is_noticed(bundle, monkeypatch):
    """Onnxruntime itself goes on with the CPU, silently; asking a CPU build for CUDA does so."""
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CUDAExecutionProvider'])
    monkeypatch.setattr(onnxruntime, 'preload_dlls', lambda: None, raising=False)
    with pytest.raises(BackendError, match='cannot load (its CUDA provider|.*CUDA)'):
        OnnxRuntimeBackend(bundle, device='cuda')


def test_fp16_is_refused_by_onnxruntime_with_the_cure(bundle):
    with pytest.raises(BackendError, match='fp32 only, not fp16; set precision to auto'):
        open_backend(bundle, 'onnxruntime', 'fp16')


def test_a_backend_nobody_knows(bundle):
    with pytest.raises(BackendError, match="no backend 'tpu'; there are auto, tensorrt, torch, "):
        open_backend(bundle, 'tpu')


def test_wrong_depth_after_any_step_fails_the_self_test(bundle):
    """Tipped windows are let pass, a step that is off by 2 %, or NaN in a corner, is not."""
    backend = OnnxRuntimeBackend(bundle)
    finish = backend.finish
    for k in range(1, bundle.num_steps + 1):
        for spoil in (lambda depth: depth * 1.02, with_nan, half_off):

            def wrong(step=k, spoil=spoil):
                result = finish()
                if result.step == step:
                    result.depth = spoil(result.depth)
                return result

            backend.finish = wrong
            with pytest.raises(BackendError, match=f'onnxruntime in fp32 .* step {k} is right'):
                self_test(backend)
    backend.finish = finish
    self_test(backend)


@pytest.mark.parametrize('wrong_class', [IN_RANGE, BEYOND])
def test_a_wrong_range_fails_the_self_test(bundle, wrong_class):
    """Depth may be right, and a wall yet be called beyond range, which is free space."""
    backend = OnnxRuntimeBackend(bundle)
    finish = backend.finish

    def wrong():
        result = finish()
        if result.step == bundle.num_steps:
            result.range_class = np.full_like(result.range_class, wrong_class)
        return result

    backend.finish = wrong
    with pytest.raises(BackendError, match=f'self-test: step {bundle.num_steps} is right on'):
        self_test(backend)


@pytest.mark.parametrize('factor', [2.0, np.nan])
def test_a_wrong_uncertainty_fails_the_self_test(bundle, factor):
    """No number there is no depth at all; half of it lets a planner trust what it should not."""
    backend = OnnxRuntimeBackend(bundle)
    finish = backend.finish
    backend.finish = lambda: replace(found := finish(), scale=found.scale * factor)
    with pytest.raises(BackendError, match='self-test: step 1 is right on 0.0%'):
        self_test(backend)


def test_bundles_without_the_reference_range_are_served(copied_bundle):
    change_reference(copied_bundle, lambda arrays: arrays.pop('range_class'))
    change_reference(copied_bundle, lambda arrays: arrays.pop('scale', None))
    self_test(OnnxRuntimeBackend(open_bundle(copied_bundle)))


def with_nan(depth):
    depth = depth.copy()
    depth[-10:, :10] = np.nan  # on the ground: what lies beyond range has no depth to be right
    return depth


def half_off(depth):
    depth = depth.copy()
    depth[-len(depth) // 8 :] *= 1.2
    return depth

"""The GPU as its driver tells of it, and the choice between cuda-bindings and pycuda."""

import sys

import fake_cuda
import numpy as np
import pytest

from dar_ros.backends import cuda
from dar_ros.errors import BackendError


def test_neither_pycuda_nor_cuda_bindings(monkeypatch):
    for name in ('pycuda', 'pycuda.driver', 'cuda.bindings'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match='neither cuda-bindings nor pycuda.*pip install'):
        cuda.open_device()


def test_cuda_bindings_is_taken_where_it_is_and_pycuda_elsewhere(monkeypatch):
    """Pycuda has no CUDA graphs."""
    gpu, bindings, pycuda = fake_cuda.Gpu(), type(sys)('bindings'), type(sys)('pycuda')
    bindings.driver, pycuda.driver = fake_cuda.BindingsDriver(gpu), fake_cuda.PycudaDriver(gpu)
    monkeypatch.setitem(sys.modules, 'pycuda', pycuda)
    monkeypatch.setitem(sys.modules, 'pycuda.driver', pycuda.driver)
    monkeypatch.setitem(sys.modules, 'cuda', type(sys)('cuda'))
    monkeypatch.setitem(sys.modules, 'cuda.bindings', bindings)
    assert isinstance(cuda.open_device(), cuda.BindingsDevice)
    monkeypatch.setitem(sys.modules, 'cuda.bindings', None)
    assert isinstance(cuda.open_device(), cuda.PycudaDevice)


class Libcuda:
    """libcuda.so.1 with one GPU, or a driver that fails."""

    def __init__(self, error=0):
        self.error = error

    def cuInit(self, flags):
        return self.error

    def cuDeviceGetCount(self, count):
        return self.error

    def cuDeviceGet(self, device, ordinal):
        return self.error

    def cuDeviceGetName(self, name, size, device):
        name.value = b'NVIDIA A2'
        return self.error

    def cuDeviceGetAttribute(self, result, attribute, device):
        result._obj.value = {75: 8, 76: 6, 16: 10}[attribute]
        return self.error


def test_the_gpu_is_found_by_its_driver_alone(monkeypatch):
    monkeypatch.setattr(cuda.ctypes, 'CDLL', lambda name: {'libcuda.so.1': Libcuda()}[name])
    assert cuda.find_gpu() == cuda.Gpu('NVIDIA A2', (8, 6), 10)
    monkeypatch.setattr(cuda.ctypes, 'CDLL', lambda name: Libcuda(100))
    with pytest.raises(BackendError, match='finds no GPU .CUDA error 100'):
        cuda.find_gpu()


@pytest.fixture(params=['cuda-bindings', 'pycuda'])
def device(request):
    gpu = fake_cuda.Gpu()
    if request.param == 'pycuda':
        device = cuda.PycudaDevice(fake_cuda.PycudaDriver(gpu))
    else:
        device = cuda.BindingsDevice(fake_cuda.BindingsDriver(gpu))
    device.gpu = gpu
    return device


def test_what_goes_up_comes_down(device):
    with device.current():
        buffer = device.buffer((2, 3), np.float32)
        up, down = (device.pinned((2, 3), np.float32) for _ in range(2))
        up[:] = np.arange(6).reshape(2, 3)
        device.upload(buffer, up)
        device.download(down, buffer)
        device.synchronize()
    assert np.array_equal(up, down) and buffer.nbytes == 24
    del up, down
    device.close()
    assert not device.gpu.memory and not device.gpu.host


def test_an_empty_tensor_has_an_address(device):
    with device.current():
        buffer = device.buffer((2, 0, 3), np.float32)
    assert buffer.nbytes == 0 and buffer.address


def test_an_error_is_a_backend_error_and_leaves_no_context(device):
    device.gpu.fail = 'memory'
    with pytest.raises(BackendError, match='CUDA failed.*(memory|MEMORY)'):
        with device.current():
            device.buffer((1,), np.float32)
    assert device.gpu.local.depth == 0


def test_a_graph_replays_what_was_enqueued():
    gpu, runs = fake_cuda.Gpu(), []
    device = cuda.BindingsDevice(fake_cuda.BindingsDriver(gpu))
    with device.current():
        replay = device.capture(lambda: gpu.capturing.append(lambda: runs.append(1)))
        assert runs == []
        replay()
        replay()
        assert runs == [1, 1]
        with pytest.raises(ValueError):
            device.capture(fails)
        assert gpu.capturing is None  # the stream serves on


def fails():
    raise ValueError

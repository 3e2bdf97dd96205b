"""
The part of `cuda.bindings.driver` and of `pycuda.driver` that the backend uses, in host memory.

It is stricter than the real ones: every call needs a current context, and every address must lie
in memory that was allocated and not freed.
"""

import ctypes
import enum
import threading

import numpy as np

from dar_ros.backends import cuda


class Gpu:
    """One GPU's state: its memory, who has it current, what was copied."""

    def __init__(self):
        self.memory, self.host = {}, {}  # address -> ctypes buffer
        self.local = threading.local()
        self.retained = self.allocations = self.synchronizations = self.launches = 0
        self.uploads, self.downloads = [], []  # bytes of every copy
        self.capturing, self.fail = None, None
        self.destroyed = []  # (kind, whether the context was current and the memory there)

    def note_end(self, kind):
        """Note that an object of TensorRT's goes: without its context or memory it would crash."""
        current = getattr(self.local, 'depth', 0) > 0
        self.destroyed.append((kind, current and self.retained > 0 and bool(self.memory)))

    def check_current(self):
        assert getattr(self.local, 'depth', 0) > 0, 'no CUDA context is current on this thread'

    def push(self):
        assert self.retained > 0, 'the primary context was released'
        self.local.depth = getattr(self.local, 'depth', 0) + 1

    def pop(self):
        self.check_current()
        self.local.depth -= 1

    def allocate(self, nbytes, where):
        self.check_current()
        assert nbytes > 0, 'CUDA allocates no empty memory'
        buffer = ctypes.create_string_buffer(nbytes)
        ctypes.memset(buffer, 0xFF, nbytes)  # NaN: what nobody wrote must not be read
        where[ctypes.addressof(buffer)] = buffer
        self.allocations += 1
        return ctypes.addressof(buffer)

    def view(self, address, nbytes):
        """Bytes of device memory as an array; the whole range must have been allocated."""
        for start, buffer in self.memory.items():
            if start <= address and address + nbytes <= start + len(buffer):
                return np.frombuffer(buffer, np.uint8, nbytes, address - start)
        raise AssertionError(f'{nbytes} bytes at {address:#x} are no device memory')

    def upload(self, address, source, nbytes):
        self.check_current()
        ctypes.memmove(self.view(address, nbytes).ctypes.data, source, nbytes)
        self.uploads.append(nbytes)

    def download(self, target, address, nbytes):
        self.check_current()
        ctypes.memmove(target, self.view(address, nbytes).ctypes.data, nbytes)
        self.downloads.append(nbytes)


class Result(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class BindingsDriver:
    """cuda.bindings.driver: functions that return (error, results...)."""

    class CUstream_flags(enum.IntEnum):  # noqa: D106
        CU_STREAM_NON_BLOCKING = 1

    class CUstreamCaptureMode(enum.IntEnum):  # noqa: D106
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    def __init__(self, gpu):
        self.gpu = gpu

    def _done(self, *results):
        return (Result.CUDA_SUCCESS, *results)

    def cuInit(self, flags):
        return self._done()

    def cuDeviceGet(self, ordinal):
        return self._done(ordinal)

    def cuDevicePrimaryCtxRetain(self, device):
        self.gpu.retained += 1
        return self._done('context')

    def cuDevicePrimaryCtxRelease(self, device):
        self.gpu.retained -= 1
        return self._done()

    def cuCtxPushCurrent(self, context):
        self.gpu.push()
        return self._done()

    def cuCtxPopCurrent(self):
        self.gpu.pop()
        return self._done('context')

    def cuStreamCreate(self, flags):
        self.gpu.check_current()
        return self._done(77)

    def cuStreamDestroy(self, stream):
        self.gpu.check_current()
        return self._done()

    def cuStreamSynchronize(self, stream):
        self.gpu.check_current()
        assert self.gpu.capturing is None, 'a stream that is captured cannot be waited for'
        self.gpu.synchronizations += 1
        return self._done()

    def cuMemAlloc(self, nbytes):
        if self.gpu.fail == 'memory':
            return Result.CUDA_ERROR_OUT_OF_MEMORY, 0
        return self._done(self.gpu.allocate(nbytes, self.gpu.memory))

    def cuMemFree(self, address):
        self.gpu.check_current()
        del self.gpu.memory[address]
        return self._done()

    def cuMemAllocHost(self, nbytes):
        return self._done(self.gpu.allocate(nbytes, self.gpu.host))

    def cuMemFreeHost(self, address):
        self.gpu.check_current()
        del self.gpu.host[address]
        return self._done()

    def cuMemcpyHtoDAsync(self, target, source, nbytes, stream):
        self.gpu.upload(target, source, nbytes)
        return self._done()

    def cuMemcpyDtoHAsync(self, target, source, nbytes, stream):
        self.gpu.download(target, source, nbytes)
        return self._done()

    def cuStreamBeginCapture(self, stream, mode):
        self.gpu.check_current()
        self.gpu.capturing = []
        return self._done()

    def cuStreamEndCapture(self, stream):
        work, self.gpu.capturing = self.gpu.capturing, None
        if self.gpu.fail == 'capture':
            return Result.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, None
        return self._done(work)

    def cuGraphInstantiate(self, graph, flags):
        return self._done(list(graph))

    def cuGraphDestroy(self, graph):
        return self._done()

    def cuGraphExecDestroy(self, executable):
        return self._done()

    def cuGraphLaunch(self, executable, stream):
        self.gpu.check_current()
        self.gpu.launches += 1
        for work in executable:
            work()
        return self._done()


class PycudaDriver:
    """pycuda.driver: objects and exceptions."""

    class Error(Exception):
        """What pycuda raises."""

    def __init__(self, gpu):
        self.gpu, driver = gpu, self

        class Context:
            def push(self):
                gpu.push()

            def pop(self):
                gpu.pop()

        class Device:
            def __init__(self, ordinal):
                assert ordinal == 0

            def retain_primary_context(self):
                gpu.retained += 1
                return Context()

        class Stream:
            handle = 77

            def __init__(self):
                gpu.check_current()

            def synchronize(self):
                gpu.check_current()
                gpu.synchronizations += 1

        class Allocation:
            def __init__(self, address, where=gpu.memory):
                self.address, self.where = address, where

            def __int__(self):
                return self.address

            def free(self):
                gpu.check_current()
                del self.where[self.address]

        self.Allocation = Allocation

        def mem_alloc(nbytes):
            if gpu.fail == 'memory':
                raise driver.Error('cuMemAlloc failed: out of memory')
            return Allocation(gpu.allocate(nbytes, gpu.memory))

        self.Device, self.Stream, self.mem_alloc = Device, Stream, mem_alloc

    def init(self):
        """Initialize the driver."""

    def pagelocked_empty(self, shape, dtype):
        nbytes = int(np.prod(shape)) * dtype.itemsize
        allocation = self.Allocation(self.gpu.allocate(nbytes, self.gpu.host), self.gpu.host)
        allocation.__array_interface__ = {
            'shape': shape,
            'typestr': dtype.str,
            'data': (allocation.address, False),
            'version': 3,
        }
        return np.asarray(allocation)

    def memcpy_htod_async(self, address, array, stream):
        self.gpu.upload(address, array.ctypes.data, array.nbytes)

    def memcpy_dtoh_async(self, array, address, stream):
        self.gpu.download(array.ctypes.data, address, array.nbytes)


DEVICES = {
    'cuda-bindings': lambda gpu: cuda.BindingsDevice(BindingsDriver(gpu)),
    'pycuda': lambda gpu: cuda.PycudaDevice(PycudaDriver(gpu)),
}

"""
The GPU by its driver: found without any package, then used through cuda-bindings or pycuda.

`find_gpu` comes first wherever CUDA may be missing: TensorRT libraries crash without a driver.
"""

import ctypes
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from dar_ros.cures import pip_install
from dar_ros.errors import BackendError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MULTIPROCESSORS = 75, 76, 16  # CUdevice_attribute
CURE = f'{pip_install("cuda-bindings")} (of the major version of your CUDA), or pycuda'


@dataclass(frozen=True)
class Gpu:
    """The first CUDA device."""

    name: str
    capability: tuple  # (major, minor)
    multiprocessors: int = 0  # what tells an Orin from an Orin NX or Nano


def _driver():
    """Return the NVIDIA driver's library, None without one."""
    try:
        return ctypes.CDLL('libcuda.so.1')
    except OSError:
        return None


def has_driver():
    """Whether an NVIDIA driver is installed, whatever it finds."""
    return _driver() is not None


def find_gpu():
    """Return the first GPU; BackendError if there is none, or no driver. Takes milliseconds."""
    driver = _driver()
    if driver is None:
        raise BackendError('no NVIDIA driver (libcuda.so.1 is not found)')
    count, device, major, minor, units = (ctypes.c_int() for _ in range(5))
    name = ctypes.create_string_buffer(256)
    for code in (
        driver.cuInit(0),
        driver.cuDeviceGetCount(ctypes.byref(count)),
        driver.cuDeviceGet(ctypes.byref(device), 0),
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(units), _MULTIPROCESSORS, device),
    ):
        if code:
            raise BackendError(f'the NVIDIA driver finds no GPU (CUDA error {code})')
    return Gpu(name.value.decode(), (major.value, minor.value), units.value)


def open_device():
    """
    Return the first GPU's primary context as a CudaDevice: by cuda-bindings, which has CUDA
    graphs, or pycuda where that is absent; BackendError if both are.
    """
    try:
        from cuda.bindings import driver

        return BindingsDevice(driver)
    except ImportError:
        pass
    try:
        import pycuda.driver
    except ImportError:
        raise BackendError(f'neither cuda-bindings nor pycuda is installed; {CURE}') from None
    return PycudaDevice(pycuda.driver)


@dataclass(frozen=True)
class Buffer:
    """Device memory of one tensor; at least one byte, as TensorRT wants even of empty ones."""

    address: int
    shape: tuple
    dtype: np.dtype

    @property
    def nbytes(self):
        """Bytes that the tensor fills."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


class CudaDevice:
    """
    Memory and one stream of a GPU; what was allocated is freed by `close`.

    Every call but the constructor and `close` stands inside `with device.current()`, on whatever
    thread: the primary context is the one that the CUDA runtime, and so TensorRT, uses as well.
    """

    stream = 0  # handle, for TensorRT

    def buffer(self, shape, dtype):
        """Allocate a Buffer."""
        buffer = Buffer(0, tuple(shape), np.dtype(dtype))
        return Buffer(self.allocate(max(buffer.nbytes, 1)), buffer.shape, buffer.dtype)


class PycudaDevice(CudaDevice):
    """By pycuda, which has no CUDA graphs."""

    def __init__(self, driver):
        self._driver, self._memory, self._host = driver, [], []
        driver.init()
        self._context = driver.Device(0).retain_primary_context()
        with self.current():
            self._stream = driver.Stream()
        self.stream = self._stream.handle

    @contextmanager
    def current(self):
        """Make the context this thread's, for a while."""
        self._context.push()
        try:
            yield
        except self._driver.Error as error:
            raise BackendError(f'CUDA failed: {error}') from None
        finally:
            self._context.pop()

    def allocate(self, nbytes):
        """Return the address of new device memory."""
        memory = self._driver.mem_alloc(nbytes)
        self._memory.append(memory)
        return int(memory)

    def pinned(self, shape, dtype):
        """Return an array in page-locked host memory."""
        array = self._driver.pagelocked_empty(tuple(shape), np.dtype(dtype))
        self._host.append(array.base)
        return array

    def upload(self, buffer, array):
        """Copy a pinned array to the device, in the stream."""
        self._driver.memcpy_htod_async(buffer.address, array, self._stream)

    def download(self, array, buffer):
        """Copy a buffer to a pinned array, in the stream."""
        self._driver.memcpy_dtoh_async(array, buffer.address, self._stream)

    def synchronize(self):
        """Wait for the stream."""
        self._stream.synchronize()

    def capture(self, enqueue):
        """See BindingsDevice."""
        raise BackendError('pycuda has none; install cuda-bindings')

    def close(self):
        """
        Free all memory; the context lives on as long as anybody else holds it. Arrays from
        `pinned` must not be used any more.
        """
        # Here and now: later, on a thread without this context, pycuda could free nothing.
        with suppress(BackendError):  # after a fault of the GPU every call fails: nothing to save
            with self.current():
                for memory in (*self._memory, *self._host):
                    memory.free()
                self._stream = None
        self._memory, self._host = [], []


class BindingsDevice(CudaDevice):
    """By cuda-bindings, the driver API as NVIDIA wraps it: every call returns (error, ...)."""

    def __init__(self, driver):
        self._driver, self._memory, self._host, self._graphs = driver, [], [], []
        self._call(driver.cuInit, 0)
        self._device = self._call(driver.cuDeviceGet, 0)
        self._context = self._call(driver.cuDevicePrimaryCtxRetain, self._device)
        with self.current():
            flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._stream = self._call(driver.cuStreamCreate, int(flags))
        self.stream = int(self._stream)

    def _call(self, function, *arguments):
        error, *results = function(*arguments)
        if int(error):
            raise BackendError(f'CUDA failed: {error.name} in {function.__name__}')
        return results[0] if results else None

    @contextmanager
    def current(self):
        """See PycudaDevice."""
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._call(self._driver.cuCtxPopCurrent)

    def allocate(self, nbytes):
        """See PycudaDevice."""
        address = int(self._call(self._driver.cuMemAlloc, nbytes))
        self._memory.append(address)
        return address

    def pinned(self, shape, dtype):
        """See PycudaDevice."""
        dtype = np.dtype(dtype)
        nbytes = max(int(np.prod(shape)) * dtype.itemsize, 1)
        address = int(self._call(self._driver.cuMemAllocHost, nbytes))
        self._host.append(address)
        bytes_of = (ctypes.c_byte * nbytes).from_address(address)
        return np.frombuffer(bytes_of, dtype, int(np.prod(shape))).reshape(shape)

    def upload(self, buffer, array):
        """See PycudaDevice."""
        self._call(
            self._driver.cuMemcpyHtoDAsync,
            buffer.address,
            array.ctypes.data,
            array.nbytes,
            self._stream,
        )

    def download(self, array, buffer):
        """See PycudaDevice."""
        self._call(
            self._driver.cuMemcpyDtoHAsync,
            array.ctypes.data,
            buffer.address,
            array.nbytes,
            self._stream,
        )

    def synchronize(self):
        """See PycudaDevice."""
        self._call(self._driver.cuStreamSynchronize, self._stream)

    def capture(self, enqueue):
        """Record what `enqueue()` puts into the stream; returns what replays it, as one launch."""
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(driver.cuStreamBeginCapture, self._stream, mode)
        graph = None
        try:
            try:
                enqueue()
            except BaseException:
                # A stream that is left capturing serves nothing any more; that this ends in an
                # error, too, hides no reason.
                with suppress(BackendError):
                    graph = self._call(driver.cuStreamEndCapture, self._stream)
                raise
            graph = self._call(driver.cuStreamEndCapture, self._stream)
            executable = self._call(driver.cuGraphInstantiate, graph, 0)
        finally:
            if graph is not None:
                self._call(driver.cuGraphDestroy, graph)
        self._graphs.append(executable)
        return lambda: self._call(driver.cuGraphLaunch, executable, self._stream)

    def close(self):
        """See PycudaDevice; arrays from `pinned` must not be used any more."""
        driver = self._driver
        with suppress(BackendError):  # after a fault of the GPU every call fails: nothing to save
            with self.current():
                for function, handles in (
                    (driver.cuGraphExecDestroy, self._graphs),
                    (driver.cuMemFree, self._memory),
                    (driver.cuMemFreeHost, self._host),
                    (driver.cuStreamDestroy, [self._stream]),
                ):
                    for handle in handles:
                        self._call(function, handle)
            self._call(driver.cuDevicePrimaryCtxRelease, self._device)
        self._memory, self._host, self._graphs = [], [], []

"""One graph at one fixed size, ready to run: an execution context, its buffers, its CUDA graph."""

import numpy as np

from dar_ros.backends.tensorrt_build import is_rtx
from dar_ros.errors import BackendError


class Stage:
    """
    An execution context of `engine` in optimization profile `profile`.

    `given` are Buffers by tensor name, which other stages write or read; the rest is allocated.
    `tensors` has the Buffer of every input and output. `scratch` is memory for activations, shared
    by stages that never run at the same time. `logger` has TensorRT's own reason of what fails.
    `uncaptured` says why there is no CUDA graph, '' if there is one or nobody tried.
    """

    def __init__(self, library, device, engine, profile, given, scratch, logger):
        self._device, self._replay, self._logger = device, None, logger
        logger.last = ''  # of what went before
        self._context = _context(library, engine)
        if self._context is None:
            raise self._error('TensorRT has no memory for an execution context')
        # TensorRT for RTX captures graphs by itself.
        self._native, self.uncaptured = is_rtx(library), ''
        if not self._context.set_optimization_profile_async(profile, device.stream):
            raise self._error(f'TensorRT refuses profile {profile} of {engine.name}')
        device.synchronize()
        self._context.set_device_memory(scratch.address, scratch.nbytes)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        for name in names:
            if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT:
                self._set_shape(engine, name, profile)
        unknown = self._context.infer_shapes()
        if unknown:
            raise self._error(f'TensorRT does not know the shape of {", ".join(unknown)}')
        self.tensors = {}
        for name in names:
            if engine.get_tensor_location(name) != library.TensorLocation.DEVICE:
                raise BackendError(f'TensorRT wants {name} on the host')
            shape = tuple(self._context.get_tensor_shape(name))
            dtype = np.dtype(library.nptype(engine.get_tensor_dtype(name)))
            buffer = given.get(name) or device.buffer(shape, dtype)
            if (buffer.shape, buffer.dtype) != (shape, dtype):
                raise BackendError(
                    f'{name} of profile {profile} is {dtype} {shape}, but what it is connected '
                    f'to is {buffer.dtype} {buffer.shape}'
                )
            if not self._context.set_tensor_address(name, buffer.address):
                raise self._error(f'TensorRT refuses the address of {name}')
            self.tensors[name] = buffer

    def _set_shape(self, engine, name, profile):
        if -1 in tuple(engine.get_tensor_shape(name)):
            shape = tuple(engine.get_tensor_profile_shape(name, profile)[1])  # min, opt, max
            if not self._context.set_input_shape(name, shape):
                raise self._error(f'TensorRT refuses shape {shape} of {name}')

    def _error(self, text):
        """Return a BackendError with the reason that TensorRT gave, if it gave one."""
        return BackendError(f'{text}: {self._logger.last}' if self._logger.last else text)

    def warm_up(self):
        """
        Run once, on whatever the buffers hold, then record a CUDA graph where that is possible.

        The first run after shapes were set does work that must not be recorded.
        """
        self._enqueue()
        self._device.synchronize()
        if self._native:
            return
        try:
            self._replay = self._device.capture(self._enqueue)
        except BackendError as error:
            # An engine that cannot be captured runs as well, with more launches.
            self.uncaptured, self._logger.last = str(error), ''

    def run(self):
        """Put the work into the device's stream."""
        if self._replay:
            self._replay()
        else:
            self._enqueue()

    def _enqueue(self):
        if not self._context.execute_async_v3(self._device.stream):
            raise self._error('TensorRT failed to run')


def _context(library, engine):
    """Return an execution context whose activations lie in memory that we give it, or None."""
    strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
    if is_rtx(library):
        strategy, allocation = engine.create_runtime_config(), strategy
        strategy.set_execution_context_allocation_strategy(allocation)
        strategy.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # The self-test must see the kernels that serve, not stand-ins until those are compiled.
        strategy.dynamic_shapes_kernel_specialization_strategy = (
            library.DynamicShapesKernelSpecializationStrategy.EAGER
        )
    return engine.create_execution_context(strategy)

"""
The part of the `tensorrt` module that the backend uses; engines compute in onnxruntime.

An engine is the prepared ONNX graph with its profiles. Contexts read their inputs from, and write
their outputs to, the addresses they were given in a fake_cuda.Gpu, and refuse what TensorRT would
refuse: a shape outside the profile, a missing address, activations without memory, outputs that
lie on inputs, a capture before the first run.
"""

import base64
import enum
import hashlib
import json
import weakref

import numpy as np
import onnx
import onnxruntime

__version__ = '10.13.0'
SCRATCH = 1000  # bytes of activations

gpu = None  # the fake_cuda.Gpu whose memory the engines use
builds = []  # (name of the first output, whether it has fp16 weights, TF32 allowed)
_sessions, _shapes = {}, {}  # made once: onnxruntime's, and output shapes in a profile
spoil = None  # function (outputs by name, half) -> None that makes a run wrong


def reset(memory):
    """Start anew on a fake_cuda.Gpu."""
    global gpu, spoil
    gpu, spoil = memory, None
    builds.clear()


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class IProgressMonitor:
    pass


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 0


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


def nptype(dtype):
    return dtype


class _Tensor:
    def __init__(self, value):
        self.name = value.name
        sides = value.type.tensor_type.shape.dim
        self.shape = tuple(side.dim_value if not side.dim_param else -1 for side in sides)


class _Network:
    def __init__(self, flags):
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        self.model = None

    @property
    def num_inputs(self):
        return len(self.model.graph.input)

    def get_input(self, i):
        return _Tensor(self.model.graph.input[i])


class _Profile(dict):
    def set_shape(self, name, least, best, most):
        assert least == best == most and all(side >= 0 for side in least)
        self[name] = least


class _Config:
    def __init__(self):
        self.profiles, self.progress_monitor, self.flags = [], None, {BuilderFlag.TF32}
        self.timing = None

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, data):
        return _TimingCache(data)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.timing = cache
        return True


class _TimingCache:
    def __init__(self, data):
        self.data = data

    def serialize(self):
        return self.data + b'+'


class OnnxParser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse(self, data):
        self.network.model = onnx.load_from_string(data)
        return True


class Builder:
    def __init__(self, logger):
        pass

    def create_network(self, flags):
        return _Network(flags)

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        model = network.model
        dynamic = {t.name for t in map(_Tensor, model.graph.input) if -1 in t.shape}
        assert all(set(profile) == dynamic for profile in config.profiles)
        assert config.profiles or not dynamic
        half = any(t.data_type == onnx.TensorProto.FLOAT16 for t in model.graph.initializer)
        builds.append((model.graph.output[0].name, half, BuilderFlag.TF32 in config.flags))
        monitor = config.progress_monitor
        if monitor:
            monitor.phase_start('Building', None, 2)
            monitor.phase_start('inside', 'Building', 7)
            assert monitor.step_complete('inside', 0) and monitor.step_complete('Building', 0)
            monitor.phase_finish('inside')
            monitor.phase_finish('Building')
        plan = {
            'model': base64.b64encode(model.SerializeToString()).decode(),
            'profiles': config.profiles or [{}],
            'half': half,
        }
        return b'PLAN' + json.dumps(plan).encode()


class Runtime:
    def __init__(self, logger):
        self.logger, self.gpu = logger, gpu

    def __del__(self):
        self.gpu.note_end('runtime')

    def deserialize_cuda_engine(self, plan):
        gpu.check_current()
        return _Engine(json.loads(plan[4:]), self.logger) if plan.startswith(b'PLAN') else None


class _Engine:
    device_memory_size_v2, name = SCRATCH, 'fake'

    def __init__(self, plan, logger):
        self.gpu, self.logger = gpu, logger
        model = base64.b64decode(plan['model'])
        self.digest = hashlib.sha256(model).hexdigest()
        if self.digest not in _sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level, options.intra_op_num_threads = 3, 2
            _sessions[self.digest] = onnxruntime.InferenceSession(
                model, options, providers=['CPUExecutionProvider']
            )
        self.session = _sessions[self.digest]
        self.profiles, self.half = plan['profiles'], plan['half']
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.names = [*self.inputs, *self.outputs]

    def __del__(self):
        self.gpu.note_end('engine')

    @property
    def num_io_tensors(self):
        return len(self.names)

    def get_tensor_name(self, i):
        return self.names[i]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_location(self, name):
        return TensorLocation.DEVICE

    def get_tensor_shape(self, name):
        shape = {**self.inputs, **self.outputs}[name].shape
        return [side if isinstance(side, int) else -1 for side in shape]

    def get_tensor_dtype(self, name):
        kinds = {'float': np.float32, 'float16': np.float16}
        kind = {**self.inputs, **self.outputs}[name].type[len('tensor(') : -1]
        return kinds.get(kind) or np.dtype(kind).type

    def get_tensor_profile_shape(self, name, profile):
        return [tuple(self.profiles[profile][name])] * 3

    def create_execution_context(self, strategy):
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self.engine, self.profile, self.addresses, self.runs = engine, None, {}, 0
        self.shapes = {
            name: tuple(engine.get_tensor_shape(name))
            for name in engine.inputs
            if -1 not in engine.get_tensor_shape(name)
        }
        self.memory = 0

    def __del__(self):
        self.engine.gpu.note_end('context')

    def set_optimization_profile_async(self, profile, stream):
        gpu.check_current()
        self.profile = profile
        return profile < len(self.engine.profiles)

    def set_device_memory(self, address, size):
        gpu.view(address, size)
        self.memory = size

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return shape == tuple(self.engine.profiles[self.profile][name])

    def infer_shapes(self):
        missing = [name for name in self.engine.inputs if name not in self.shapes]
        key = (self.engine.digest, *sorted(self.shapes.items()))
        if not missing and key not in _shapes:
            zeros = {
                name: np.zeros(self.shapes[name], self.engine.get_tensor_dtype(name))
                for name in self.engine.inputs
            }
            results = self.engine.session.run(None, zeros)
            _shapes[key] = {n: array.shape for n, array in zip(self.engine.outputs, results)}
        self.shapes |= _shapes.get(key, {})
        return missing

    def get_tensor_shape(self, name):
        return self.shapes[name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def _array(self, name):
        shape, dtype = self.shapes[name], np.dtype(self.engine.get_tensor_dtype(name))
        nbytes = int(np.prod(shape)) * dtype.itemsize
        data = gpu.view(self.addresses[name], max(nbytes, 1))
        return data[:nbytes].view(dtype).reshape(shape)

    def execute_async_v3(self, stream):
        gpu.check_current()
        assert stream == 77 and self.memory >= SCRATCH
        assert set(self.addresses) == set(self.engine.names)
        read = {self.addresses[name] for name in self.engine.inputs}
        written = {self.addresses[name] for name in self.engine.outputs}
        assert not read & written and len(written) == len(self.engine.outputs)
        if gpu.capturing is not None:
            if not self.runs:
                return False
            alive = weakref.ref(self)  # a graph replays what a context did; it keeps none
            gpu.capturing.append(lambda: alive()._compute())
            return True
        self._compute()
        return True

    def _compute(self):
        self.runs += 1
        feeds = {name: self._array(name) for name in self.engine.inputs}
        outputs = dict(zip(self.engine.outputs, self.engine.session.run(None, feeds)))
        if spoil:
            spoil(outputs, self.engine.half)
        for name, array in outputs.items():
            target = self._array(name)
            assert array.shape == target.shape and array.dtype == target.dtype
            target[...] = array


def nan_in_half(outputs, half):
    """Spoil the depth of a step in fp16."""
    if half and 'keys' in outputs:
        outputs['depth'][:] = np.nan

"""onnxruntime, on the CPU or by its CUDA provider."""

import os

import numpy as np

from dar_ros.backends.base import HANDED_ON, Backend, Prediction, check_image
from dar_ros.bundle import GRAPHS
from dar_ros.cures import pip_install
from dar_ros.errors import BackendError, first_line


def session_options(threads=None):
    """Return onnxruntime's options for CPU inference; `threads` None: all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.log_severity_level = 3
    # Threads that spin between the many small operations of a run save a seventh of its time; they
    # must not go on after it: three sessions in a row would slow each other down.
    options.add_session_config_entry('session.intra_op.allow_spinning', '1')
    options.add_session_config_entry('session.force_spinning_stop', '1')
    return options


class OnnxRuntimeBackend(Backend):
    """
    fp32; keys, values and windows stay where they were computed, and the next step takes them
    from there without a copy.

    `device` is cpu or cuda. `threads` are the CPU's, None for all cores.
    """

    name = 'onnxruntime'

    def __init__(self, bundle, precision='auto', threads=None, device='cpu'):
        super().__init__(bundle)
        if precision not in ('auto', 'fp32'):
            raise BackendError(
                f'onnxruntime serves fp32 only, not {precision}; set precision to auto'
            )
        try:
            import onnxruntime
        except ImportError:
            cure = pip_install('onnxruntime')
            raise BackendError(f'onnxruntime is not installed; {cure}') from None
        self.device, self.on_gpu = device, device == 'cuda'
        self.library = f'onnxruntime {onnxruntime.__version__}'
        providers = _providers(onnxruntime, device)
        options = session_options(threads)
        try:
            self._sessions = {
                name: onnxruntime.InferenceSession(
                    str(bundle.file(f'{name}.onnx')), options, providers=providers
                )
                for name in GRAPHS
            }
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BackendError(
                f'onnxruntime cannot load {bundle.path}: {first_line(error)}'
            ) from None
        # onnxruntime goes on with the CPU, with no more than a log line, if CUDA does not load.
        if any(s.get_providers()[0] != providers[0] for s in self._sessions.values()):
            raise BackendError(
                'onnxruntime cannot load its CUDA provider; install the CUDA and cuDNN that '
                f'onnxruntime {onnxruntime.__version__} was built for'
            )
        self._outputs = {
            name: [o.name for o in session.get_outputs()]
            for name, session in self._sessions.items()
        }
        # The graphs read only the shape of these inputs.
        self._grids = [
            (np.zeros(tokens, np.float32), np.zeros(depth, np.float32))
            for tokens, depth in zip(bundle.grid_sizes, bundle.depth_grid_sizes)
        ]
        self._encoded, self._upsample_mask, self._state, self._last = None, None, None, None

    def _run(self, name, feeds):
        run = self._run_on_device if self.on_gpu else self._run_on_host
        try:
            return dict(zip(self._outputs[name], run(name, feeds)))
        except Exception as error:
            raise BackendError(f'onnxruntime failed in {name}: {first_line(error)}') from None

    def _run_on_host(self, name, feeds):
        return self._sessions[name].run(None, feeds)

    def _run_on_device(self, name, feeds):
        """Take arrays and OrtValues; what comes out stays on the device, as OrtValues."""
        session = self._sessions[name]
        binding = session.io_binding()
        for feed in session.get_inputs():
            value = feeds[feed.name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(feed.name, value)
            else:
                binding.bind_ortvalue_input(feed.name, value)
        for output in self._outputs[name]:
            binding.bind_output(output, self.device)
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    def start(self, image, depth_min, depth_max):
        """See Backend."""
        bundle = self.bundle
        check_image(bundle, image)
        self._encoded = self._run('encoder', {'image': image[None]})
        start, memory = self._encoded.pop('start'), self._encoded['memory_keys']
        low, high = (
            np.full((1, 1, *bundle.grid_sizes[0]), self._in_bin_space(z), np.float32)
            for z in (depth_min, depth_max)
        )
        layers, batch, heads, _, width = _shape(memory)
        empty = np.empty((layers, batch, heads, 0, width), np.float32)
        self._state = {
            'latent': start,
            'low': low,
            'high': high,
            'past_keys': empty,
            'past_values': empty,
        }
        self._upsample_mask = self._encoded.pop('upsample_mask')
        self._last, self._steps = None, 0

    def run_step(self, feeds):
        """Run step.onnx on arrays named as its inputs; returns its outputs by name."""
        return self._run('step', feeds)

    def step(self):
        """See Backend."""
        k = self._next_step()
        tokens, depth = self._grids[k]
        self._last = self.run_step(
            {
                **self._state,
                **self._encoded,
                'token_grid': tokens,
                'depth_grid': depth,
                'step_index': np.array([k], np.int64),
            }
        )
        self._state = {name: self._last[output] for name, output in HANDED_ON.items()}
        self._steps += 1

    def finish(self):
        """See Backend."""
        self._last_step()
        fine = self._run(
            'upsample',
            {
                'upsample_mask': self._upsample_mask,
                **{name: self._last[name] for name in ('depth', 'range_logits', 'log_scale')},
            },
        )
        depth, range_class, scale = (
            _on_host(fine[name])[0] for name in ('metric_depth', 'range_class', 'scale')
        )
        return Prediction(depth, range_class, scale, self._steps)

    def close(self):
        """See Backend."""
        self._sessions, self._steps = {}, None
        self._encoded, self._upsample_mask, self._state, self._last = None, None, None, None


def _providers(onnxruntime, device):
    """Return the execution providers of a device, best first."""
    if device == 'cpu':
        return ['CPUExecutionProvider']
    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        raise BackendError(
            f'onnxruntime {onnxruntime.__version__} has no CUDA provider; '
            f'{pip_install("onnxruntime-gpu")} in its place'
        )
    if hasattr(onnxruntime, 'preload_dlls'):
        onnxruntime.preload_dlls()  # finds CUDA and cuDNN among pip's packages
    return ['CUDAExecutionProvider', 'CPUExecutionProvider']


def _shape(value):
    """Shape of an array or of an OrtValue."""
    return value.shape if isinstance(value, np.ndarray) else value.shape()


def _on_host(value):
    """Array of an array or of an OrtValue."""
    return value if isinstance(value, np.ndarray) else value.numpy()

"""onnxruntime on the CPU."""

import math
import os

import numpy as np

from dar_ros.backends.base import Backend, Prediction
from dar_ros.errors import BackendError

_HANDED_ON = {
    'latent': 'next_latent',
    'low': 'next_low',
    'high': 'next_high',
    'past_keys': 'keys',
    'past_values': 'values',
}


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
    fp32 on the CPU; keys, values and windows stay as arrays that the next step takes without a
    copy.
    """

    name = 'onnxruntime'

    def __init__(self, bundle, precision='auto', threads=None):
        super().__init__(bundle)
        if precision not in ('auto', 'fp32'):
            raise BackendError(
                f'onnxruntime serves fp32 only, not {precision}; set precision to auto'
            )
        try:
            import onnxruntime
        except ImportError:
            raise BackendError('onnxruntime is not installed; pip install onnxruntime') from None
        options = session_options(threads)
        try:
            self._sessions = {
                name: onnxruntime.InferenceSession(
                    str(bundle.file(f'{name}.onnx')), options, providers=['CPUExecutionProvider']
                )
                for name in ('encoder', 'step', 'upsample')
            }
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise BackendError(
                f'onnxruntime cannot load {bundle.path}: {str(error).splitlines()[0]}'
            ) from None
        self._outputs = {
            name: [o.name for o in session.get_outputs()]
            for name, session in self._sessions.items()
        }
        # The graphs read only the shape of these inputs.
        self._grids = [
            (np.zeros(tokens, np.float32), np.zeros(depth, np.float32))
            for tokens, depth in zip(bundle.grid_sizes, bundle.depth_grid_sizes)
        ]
        self._encoded, self._state, self._last, self._steps = None, None, None, 0

    def _run(self, name, feeds):
        try:
            return dict(zip(self._outputs[name], self._sessions[name].run(None, feeds)))
        except Exception as error:
            raise BackendError(
                f'onnxruntime failed in {name}: {str(error).splitlines()[0]}'
            ) from None

    def start(self, image, depth_min, depth_max):
        """See Backend."""
        bundle = self.bundle
        if image.shape != (*bundle.input_size, 3) or image.dtype != np.uint8:
            raise BackendError(
                f'the network takes uint8 {(*bundle.input_size, 3)}, '
                f'not {image.dtype} {image.shape}'
            )
        self._encoded = self._run('encoder', {'image': image[None]})
        start, memory = self._encoded.pop('start'), self._encoded['memory_keys']
        low, high = (
            np.full(
                (1, 1, *start.shape[-2:]),
                math.log(z) if bundle.bin_space == 'log' else z,
                np.float32,
            )
            for z in (depth_min, depth_max)
        )
        layers, batch, heads, _, width = memory.shape
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
        if self._state is None or self._steps == self.bundle.num_steps:
            raise BackendError(
                f'step {self._steps + 1} of {self.bundle.num_steps}: start an image first'
            )
        tokens, depth = self._grids[self._steps]
        self._last = self.run_step(
            {
                **self._state,
                **self._encoded,
                'token_grid': tokens,
                'depth_grid': depth,
                'step_index': np.array([self._steps], np.int64),
            }
        )
        self._state = {name: self._last[output] for name, output in _HANDED_ON.items()}
        self._steps += 1

    def finish(self):
        """See Backend."""
        if self._last is None:
            raise BackendError('finish before the first step')
        fine = self._run(
            'upsample',
            {
                'upsample_mask': self._upsample_mask,
                **{name: self._last[name] for name in ('depth', 'range_logits', 'log_scale')},
            },
        )
        return Prediction(
            fine['metric_depth'][0], fine['range_class'][0], fine['scale'][0], self._steps
        )

    def close(self):
        """See Backend."""
        self._sessions, self._state, self._last, self._encoded = {}, None, None, None

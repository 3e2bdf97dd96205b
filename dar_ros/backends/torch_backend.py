"""PyTorch: the fp32 reference on the CPU; on CUDA half precision and CUDA graphs."""

from contextlib import contextmanager, nullcontext

import numpy as np

from dar_ros.backends.base import PRECISIONS, Backend, Prediction, check_image
from dar_ros.cures import extra_install
from dar_ros.errors import BackendError, first_line

WARM_UP = 3  # runs before a capture: libraries choose their kernels and workspaces


class TorchBackend(Backend):
    """
    The network that training trains, of a bundle or of a checkpoint (model.served).

    `auto` is fp16 on CUDA, fp32 on the CPU. In half precision the windows, the softmax expectation
    and the depth stay fp32: the network casts before them, and autocast leaves them alone.
    `threads` is the process's number of CPU threads in torch; None leaves it.

    On CUDA every part is captured once as a CUDA graph whose inputs are the outputs of the part
    before, so that a frame is one copy to the device, one launch a part, one copy back.
    """

    name = 'torch'

    def __init__(self, bundle, precision='auto', threads=None):
        super().__init__(bundle)
        if precision not in PRECISIONS:
            raise BackendError(f'torch has no precision {precision}; {", ".join(PRECISIONS)}')
        try:
            import torch

            from dar_ros.model.served import network
        except ImportError as error:
            raise BackendError(
                f'torch backend: {error.name} is not installed; {extra_install("train")}'
            ) from None
        self._torch = torch
        if threads:
            torch.set_num_threads(threads)
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.library, self.on_gpu = f'torch {torch.__version__}', self.device.type == 'cuda'
        if precision == 'auto':
            precision = 'fp16' if self.device.type == 'cuda' else 'fp32'
        self.precision = precision
        self._dtype = {'fp16': torch.float16, 'bf16': torch.bfloat16}.get(precision)
        with torch.inference_mode(), _named('loading'):
            model = network(bundle).to(self.device, memory_format=torch.channels_last)
            self._model = _halved(model, self._dtype) if self._dtype else model
            self._parts = self._captured() if self.device.type == 'cuda' else self._eager()

    def _autocast(self):
        if self._dtype is None:
            return nullcontext()
        return self._torch.autocast(self.device.type, self._dtype)

    def _buffers(self):
        torch, size = self._torch, self.bundle.input_size
        self._image = torch.zeros((1, *size, 3), dtype=torch.uint8, device=self.device)
        self._range = torch.ones((2, 1), device=self.device)  # canonical metres: near, far
        self._indices = [
            torch.tensor([k], device=self.device) for k in range(self.bundle.num_steps)
        ]

    def _encode(self):
        with self._autocast():
            self._encoded = self._model.encode(self._image)
            self._states = [self._model.initial_state(self._encoded, *self._range)]
            self._outputs = []

    def _take_step(self, k):
        sizes = (tuple(self.bundle.grid_sizes[k]), tuple(self.bundle.depth_grid_sizes[k]))
        with self._autocast():
            state, output = self._model.step(
                self._states[k], self._encoded, *sizes, self._indices[k]
            )
        self._states[k + 1 :], self._outputs[k:] = [state], [output]

    def _upsample(self, k):
        from dar_ros.model.mtbin import from_bin_space

        fine = self._model.upsample(self._outputs[k], self._encoded.upsample_mask)
        return (
            from_bin_space(fine.depth, self.bundle.bin_space)[0, 0],
            fine.range_logits[0].argmax(0).to(self._torch.uint8),
            self._torch.exp(fine.log_scale)[0, 0],
        )

    def _eager(self):
        self._buffers()
        return {
            'encode': self._encode,
            **{('step', k): _bound(self._take_step, k) for k in range(self.bundle.num_steps)},
            **{('upsample', k): _bound(self._upsample, k) for k in range(self.bundle.num_steps)},
        }

    def _captured(self):
        """Capture each part of _eager in its order; a replay then writes where it wrote."""
        torch, parts, replays, pool = self._torch, self._eager(), {}, None
        order = ['encode']
        for k in range(self.bundle.num_steps):
            order += [('step', k), ('upsample', k)]
        for name in order:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    parts[name]()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Replays keep the order of capture (some are left out): graphs may share memory.
            with torch.cuda.graph(graph, pool=pool):
                result = parts[name]()
            pool = pool or graph.pool()
            replays[name] = _bound(_replay, graph, result)
        return replays

    def _wait(self):
        """Let the clock of whoever decides about the next step tell the truth."""
        if self.device.type == 'cuda':
            self._torch.cuda.current_stream().synchronize()

    def start(self, image, depth_min, depth_max):
        """See Backend."""
        check_image(self.bundle, image)
        torch = self._torch
        with torch.inference_mode(), _named('encode'):
            self._image.copy_(torch.from_numpy(np.ascontiguousarray(image))[None])
            self._range.copy_(torch.tensor([[depth_min], [depth_max]], dtype=torch.float32))
            self._parts['encode']()
            self._wait()
        self._steps = 0

    def step(self):
        """See Backend."""
        k = self._next_step()
        with self._torch.inference_mode(), _named('step'):
            self._parts['step', k]()
            self._wait()
        self._steps += 1

    def finish(self):
        """See Backend."""
        k = self._last_step()
        with self._torch.inference_mode(), _named('upsample'):
            maps = self._parts['upsample', k]()
            return Prediction(*(array.cpu().numpy() for array in maps), self._steps)

    def close(self):
        """See Backend."""
        self._parts, self._model, self._steps = {}, None, None
        self._encoded, self._states, self._outputs = None, [], []


@contextmanager
def _named(part):
    """Turn what torch raises into a BackendError that names the part."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        raise BackendError(f'torch failed in {part}: {first_line(error)}') from None


def _halved(model, dtype):
    """Weights of what autocast runs in half are stored so; norms and the rest stay fp32."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
    return model


def _bound(function, *arguments):
    return lambda: function(*arguments)


def _replay(graph, result):
    graph.replay()
    return result

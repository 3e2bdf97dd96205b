"""
TensorRT on an NVIDIA GPU: standard TensorRT 10.3 to 11.x, or TensorRT for RTX.

Everything an image needs stays on the device; depth, class and uncertainty alone come back. Every
step has an execution context of its own, whose profile, shapes and addresses are set once: a
frame sets nothing, allocates nothing, and is replayed from CUDA graphs where there are any.
"""

import time
from contextlib import suppress

import numpy as np

from dar_ros.backends import cuda, tensorrt_build
from dar_ros.backends.base import HANDED_ON, Backend, Prediction, check_image
from dar_ros.backends.engine_cache import EngineCache
from dar_ros.backends.tensorrt_stage import Stage
from dar_ros.bundle import GRAPHS
from dar_ros.errors import BackendError, forget_frames

PRECISIONS = ('fp16', 'fp32')


class TensorRTBackend(Backend):
    """
    Engines come from the cache, or are built here, which may take minutes.

    `precision` auto is fp16. `progress` is called with a line of text now and then in a build.
    """

    name, on_gpu = 'tensorrt', True

    def __init__(self, bundle, precision='auto', progress=None):
        super().__init__(bundle)
        self.precision = 'fp16' if precision == 'auto' else precision
        if self.precision not in PRECISIONS:
            raise BackendError(f'tensorrt serves {" and ".join(PRECISIONS)}, not {precision}')
        self.gpu = cuda.find_gpu()  # before any library that crashes without one
        self._library = tensorrt_build.load_library()
        self.library = f'{self._library.__name__} {self._library.__version__}'
        self._progress, self._cache = progress, EngineCache()
        self.cache_folder = self._cache.folder
        self._device = cuda.open_device()
        try:
            with self._device.current():
                self._logger = tensorrt_build.quiet_logger(self._library)
                self._runtime = tensorrt_build.made(self._library, 'Runtime', self._logger)
                self._engines = {graph: self._of_steps(graph) for graph in GRAPHS}
                why = self._cache.unkept
                self.notes += (f'tensorrt builds its engines every time: {why}',) if why else ()
                self._lay_out()
        except BaseException as error:
            with suppress(BackendError), self._device.current():
                forget_frames(error)  # a stage half made is in a frame alone
            self.close()
            raise

    # Engines

    def _key(self, graph, profiles):
        """All that an engine depends on."""
        files = self.bundle.manifest['files']  # verified when the bundle was opened
        return {
            'library': self._library.__name__,
            'version': self._library.__version__,
            'gpu': self.gpu.name,
            'capability': list(self.gpu.capability),
            'multiprocessors': self.gpu.multiprocessors,
            'graph': graph,
            'onnx': {
                name: entry['sha256']  # with the external data of the graph, if it has any
                for name, entry in files.items()
                if name.startswith(f'{graph}.onnx')
            },
            'precision': self.precision,
            'profiles': profiles,
            'recipe': tensorrt_build.RECIPE,
        }

    def _of_steps(self, graph):
        """(engine, profile) for every step: one engine, where it may have several profiles."""
        profiles = tensorrt_build.step_shapes(self.bundle, graph)
        if tensorrt_build.keeps_profiles_apart(self._library):
            engine = self._engine(graph, profiles)
            return [(engine, k) for k in range(len(profiles))]
        return [(self._engine(graph, [profile]), 0) for profile in profiles]

    def _engine(self, graph, profiles):
        key, name = self._key(graph, profiles), f'{self.bundle.name}-{graph}-{self.precision}'
        plan, waiting = None, self._waiting(graph)
        for _ in range(2):
            plan = self._cache.get(
                name, key, lambda: self._build(graph, profiles), refused=plan, waiting=waiting
            )
            self._logger.shortage = False
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is not None:
                return engine
            # A good engine is refused as well where memory is short, or after a fault of the GPU:
            # minutes of building would change neither.
            self._device.synchronize()
            if self._logger.shortage:
                raise BackendError(f'TensorRT cannot load its {graph}: {self._logger.last}')
            # Whole, but not to this library's taste: once more.
        reason = self._logger.last or 'no reason given'
        raise BackendError(f'TensorRT refuses the engine that it just built of {graph}: {reason}')

    def _waiting(self, graph):
        """Return what says, now and then, that another process builds the same engine."""
        said = time.monotonic()

        def say():
            nonlocal said
            if self._progress and time.monotonic() - said > tensorrt_build.PROGRESS_PERIOD:
                said = time.monotonic()
                self._progress(f'{self.bundle.name} {graph}: another process builds its engine')

        return say

    def _build(self, graph, profiles):
        from dar_ros.backends.graphs import prepared_graph

        library, label = self._library, f'{self.bundle.name} {graph} {self.precision}'
        if self._progress:
            self._progress(
                f'{label}: building an engine for {self.gpu.name} in {self._cache.folder}; '
                'this happens once'
            )
        return tensorrt_build.build_engine(
            library,
            prepared_graph(self.bundle.file(f'{graph}.onnx'), self.precision),
            profiles,
            (self.gpu.capability,),
            timing=self._cache.folder / f'{library.__name__}-{library.__version__}.timing',
            progress=self._progress,
            label=label,
        )

    # Buffers

    def _lay_out(self):
        """Make the contexts and connect them: what one writes is where the next one reads."""
        device, bundle = self._device, self.bundle
        # Contexts run one after the other, in one stream: they share their scratch memory.
        engines = [engine for steps in self._engines.values() for engine, _ in steps]
        size = max(engine.device_memory_size_v2 for engine in engines)
        scratch = device.buffer((size,), np.uint8)

        def stage(graph, k, given):
            engine = self._engines[graph][k]
            return Stage(self._library, device, *engine, given, scratch, self._logger)

        self._encode = encode = stage('encoder', 0, {})
        grid = (1, 1, *bundle.grid_sizes[0])
        state = {
            'latent': encode.tensors['start'],
            'low': device.buffer(grid, np.float32),
            'high': device.buffer(grid, np.float32),
        }
        self._range = [(state[name], device.pinned(grid, np.float32)) for name in ('low', 'high')]
        memory = {n: encode.tensors[n] for n in ('memory_keys', 'memory_values', 'detail')}
        self._takes, self._upsamples, shared = [], [], {}
        for k in range(bundle.num_steps):
            take = stage('step', k, {**state, **memory})
            index = device.pinned((1,), np.int64)
            index[:] = k
            device.upload(take.tensors['step_index'], index)
            state = {name: take.tensors[output] for name, output in HANDED_ON.items()}
            maps = {name: take.tensors[name] for name in ('depth', 'range_logits', 'log_scale')}
            mask = {'upsample_mask': encode.tensors['upsample_mask']}
            upsample = stage('upsample', k, {**maps, **mask, **shared})
            shared = {n: upsample.tensors[n] for n in ('metric_depth', 'range_class', 'scale')}
            self._takes.append(take)
            self._upsamples.append(upsample)
            device.synchronize()  # before the pinned index goes
        image = encode.tensors['image']
        self._image = (image, device.pinned(image.shape, image.dtype))
        self._results = [(b, device.pinned(b.shape, b.dtype)) for b in shared.values()]
        stages = (encode, *self._takes, *self._upsamples)
        for each in stages:
            each.warm_up()
        uncaptured = next((each.uncaptured for each in stages if each.uncaptured), '')
        if uncaptured:
            self.notes += (f'tensorrt runs without CUDA graphs: {uncaptured}',)

    # Frames

    def start(self, image, depth_min, depth_max):
        """See Backend."""
        check_image(self.bundle, image)
        with self._device.current():
            self._device.synchronize()  # an unfinished frame may still read pinned memory
            self._image[1][0] = image
            self._device.upload(*self._image)
            for (buffer, host), z in zip(self._range, (depth_min, depth_max)):
                host[:] = self._in_bin_space(z)
                self._device.upload(buffer, host)
            self._encode.run()
            # Waiting here and after a step costs microseconds, and makes the clock of whoever
            # decides about the next step tell the truth.
            self._device.synchronize()
        self._steps = 0

    def step(self):
        """See Backend."""
        k = self._next_step()
        with self._device.current():
            self._takes[k].run()
            self._device.synchronize()
        self._steps += 1

    def finish(self):
        """See Backend."""
        k = self._last_step()
        with self._device.current():
            self._upsamples[k].run()
            for buffer, host in self._results:
                self._device.download(host, buffer)
            self._device.synchronize()
        depth, range_class, scale = (host[0] for _, host in self._results)
        return Prediction(depth, range_class, scale, self._steps)

    def close(self):
        """See Backend; what `finish` returned must not be used any more."""
        if self._device is None:
            return
        with suppress(BackendError), self._device.current():
            # Contexts first, then their engines, the runtime, then the memory under all.
            self._encode, self._takes, self._upsamples = None, [], []
            self._engines, self._steps = {}, None
            self._runtime = None
        self._device.close()
        self._device = None

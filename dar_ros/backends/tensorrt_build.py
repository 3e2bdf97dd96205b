"""
ONNX graph -> TensorRT engine, by standard TensorRT 10.3 to 11.x or TensorRT for RTX.

Nothing here needs a GPU but standard TensorRT itself: TensorRT for RTX builds on any machine.
"""

import importlib
import re
import time
from contextlib import suppress

from dar_ros.backends.engine_cache import read_sealed, write_sealed
from dar_ros.errors import BackendError, first_line

MODULES = ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_bindings')
CURE = (
    "install NVIDIA's TensorRT (on a Jetson JetPack brings it; elsewhere pip install tensorrt, "
    'or for RTX cards tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings)'
)
OLDEST = (10, 3)  # of standard TensorRT
RECIPE = 3  # raise it when prepared_graph or build_engine make another engine of the same graph
PROGRESS_PERIOD = 5.0  # seconds between two lines about a build
_SHORTAGE = re.compile(r'out ?of ?memory|cuda (runtime|error|driver)|cudaerror', re.IGNORECASE)


def load_library():
    """Import TensorRT; BackendError names the cure. Call `find_gpu` first if it is to run."""
    reason = 'TensorRT is not installed'
    for name in MODULES:
        try:
            library = importlib.import_module(name)
        except Exception as error:  # a package whose libraries are missing raises what it likes
            if not (isinstance(error, ModuleNotFoundError) and error.name == name):
                reason = f'{name} does not load ({first_line(error)})'
            continue
        if is_rtx(library) or version(library) >= OLDEST:
            return library
        reason = f'TensorRT {library.__version__} is older than {".".join(map(str, OLDEST))}'
    raise BackendError(f'{reason}; {CURE}')


def version(library):
    """(major, minor) of a TensorRT."""
    return tuple(int(part) for part in library.__version__.split('.')[:2])


def made(library, kind, logger):
    """Return a Runtime or a Builder; BackendError with TensorRT's reason if it cannot start."""
    try:
        return getattr(library, kind)(logger)
    except TypeError:  # the bindings got a null pointer
        raise BackendError(
            f'TensorRT {library.__version__} does not start '
            f'({logger.last or logger.warning or "no reason given"}): if the driver is too old '
            "for its CUDA, update it, or pip install 'tensorrt-cu12' instead of tensorrt"
        ) from None


def keeps_profiles_apart(library):
    """
    Whether an engine may have several optimization profiles.

    Below 10.8 that could make standard TensorRT compute wrongly (NVIDIA's changelog of 10.8, issue
    4250).
    """
    return is_rtx(library) or version(library) >= (10, 8)


def is_rtx(library):
    """Whether this is TensorRT for RTX, which names the GPUs that it builds for."""
    return hasattr(library, 'ComputeCapability')


def step_shapes(bundle, graph):
    """
    Sizes that fill the dynamic dimensions of a graph's inputs, one dict {input: sizes} per
    profile: one profile for each of the K steps, or one of nothing for the encoder.
    """
    if graph == 'encoder':
        return [{}]
    profiles, prior, prefix = [], tuple(bundle.grid_sizes[0]), 0
    for tokens, depth in zip(map(tuple, bundle.grid_sizes), map(tuple, bundle.depth_grid_sizes)):
        if graph == 'upsample':
            profiles.append(dict.fromkeys(('depth', 'range_logits', 'log_scale'), depth))
        else:
            profiles.append(
                {
                    **dict.fromkeys(('latent', 'low', 'high'), prior),
                    **dict.fromkeys(('past_keys', 'past_values'), (prefix,)),
                    'token_grid': tokens,
                    'depth_grid': depth,
                }
            )
        prior, prefix = depth, prefix + tokens[0] * tokens[1]
    return profiles


def build_engine(
    library, model, profiles, capabilities=(), timing=None, progress=None, label='engine'
):
    """
    Build an engine of ONNX bytes, strongly typed; returns what `Runtime` deserializes.

    `profiles`: see step_shapes. `capabilities`: (major, minor) of the GPUs that TensorRT for RTX
    is to serve; standard TensorRT serves the GPU it runs on. `timing`: file of the timing cache.
    `progress`: called with a line of text now and then. Ctrl-C, or a KeyboardInterrupt that
    `progress` raises, ends the build.
    """
    logger = quiet_logger(library)
    builder = made(library, 'Builder', logger)
    flags = library.NetworkDefinitionCreationFlag
    network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = '; '.join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BackendError(f'TensorRT {library.__version__} cannot read the {label}: {reasons}')
    config = builder.create_builder_config()
    # What stays fp32 does so because less is not enough, the first convolution of fp16 included.
    config.clear_flag(library.BuilderFlag.TF32)
    if is_rtx(library):
        _target(library, config, capabilities)
    for sizes in profiles:
        _add_profile(builder, network, config, sizes)
    # TensorRT for RTX times nothing.
    cache = None if is_rtx(library) or timing is None else _timing_cache(config, timing)
    config.progress_monitor = _monitor(library, label, progress, logger)
    plan = builder.build_serialized_network(network, config)
    if logger.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise BackendError(
            f'TensorRT {library.__version__} cannot build the {label}: '
            f'{logger.last or "no reason given"}'
        )
    if cache is not None:
        with suppress(BackendError):  # the next build takes longer, no more
            write_sealed(timing, bytes(cache.serialize()))
    return bytes(plan)


def _target(library, config, capabilities):
    config.num_compute_capabilities = len(capabilities)
    for i, (major, minor) in enumerate(capabilities):
        target = getattr(library.ComputeCapability, f'SM{major}{minor}', None)
        if target is None or not config.set_compute_capability(target, i):
            raise BackendError(
                f'TensorRT for RTX {library.__version__} does not serve GPUs of compute '
                f'capability {major}.{minor}; install standard TensorRT'
            )


def _add_profile(builder, network, config, sizes):
    """Fix every dynamic input: min = opt = max."""
    profile, dynamic = builder.create_optimization_profile(), False
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(tensor.shape)
        if -1 in shape:
            fill = iter(sizes[tensor.name])
            shape = tuple(next(fill) if side == -1 else side for side in shape)
            profile.set_shape(tensor.name, shape, shape, shape)
            dynamic = True
    if dynamic and config.add_optimization_profile(profile) < 0:
        raise BackendError(f'TensorRT refuses the profile {sizes}')


def _timing_cache(config, path):
    """Attach the timing cache of earlier builds, or a new one if it is damaged or foreign."""
    for known in (read_sealed(path), b''):
        cache = config.create_timing_cache(known)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def quiet_logger(library):
    """
    Return a logger that keeps quiet and remembers the last error and the last warning; whether an
    error was of memory or of CUDA; and whether Ctrl-C came within a callback, through which the
    library lets no exception pass.
    """

    class Logger(library.ILogger):
        def __init__(self):
            library.ILogger.__init__(self)
            self.last = self.warning = ''
            self.interrupted = self.shortage = False

        def log(self, severity, text):
            try:
                self._remember(severity, text)
            except KeyboardInterrupt:
                self.interrupted = True

        def _remember(self, severity, text):
            if severity in (library.ILogger.INTERNAL_ERROR, library.ILogger.ERROR):
                self.last = text.splitlines()[0] if text else ''
                self.shortage |= bool(_SHORTAGE.search(text))
            elif severity == library.ILogger.WARNING:
                self.warning = text.splitlines()[0] if text else ''

    return Logger()


def _monitor(library, label, progress, logger):
    """
    Return a progress monitor that tells `progress` now and then which phase the build is at, and
    ends the build once `logger.interrupted`.

    One outermost phase holds all others, and nearly all of the time passes within one step of it:
    so every step of any phase is an occasion to speak, and to be told to end.
    """

    class Monitor(library.IProgressMonitor):
        def __init__(self):
            library.IProgressMonitor.__init__(self)
            self.phases, self.said = {}, time.monotonic()  # name: steps; the outermost first

        def phase_start(self, phase_name, parent_phase, num_steps):
            try:
                self.phases[phase_name] = num_steps
            except KeyboardInterrupt:
                logger.interrupted = True

        def step_complete(self, phase_name, step):
            try:
                total, now = self.phases.get(phase_name), time.monotonic()
                if progress and total and now - self.said > PROGRESS_PERIOD:
                    self.said, outermost = now, next(iter(self.phases))
                    within = '' if phase_name == outermost else f'{outermost}: '
                    progress(f'{label}: {within}{phase_name}, {(step + 1) / total:.0%}')
            except KeyboardInterrupt:
                logger.interrupted = True
            return not logger.interrupted

        def phase_finish(self, phase_name):
            try:
                self.phases.pop(phase_name, None)
            except KeyboardInterrupt:
                logger.interrupted = True

    return Monitor()

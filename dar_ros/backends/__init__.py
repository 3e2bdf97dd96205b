"""Backends, and the choice among them."""

from dar_ros.backends import cuda
from dar_ros.backends.base import self_test
from dar_ros.cures import pip_install
from dar_ros.errors import BackendError, first_line, forget_frames

BACKENDS = ('tensorrt', 'torch', 'onnxruntime')  # best first; what `auto` tries
_ON_PYPI = ('torch', 'onnx', 'onnxruntime')


def open_backend(bundle, backend='auto', precision='auto', threads=None, progress=None, skip=()):
    """
    Load a bundle and return the backend, self-tested; BackendError if none serves it.

    `threads`: CPU threads, None for all cores. `progress`: called with a line of text now and then
    while an engine is built. What was passed over on the way, and why, is in the backend's
    `notes`, that of better backends in `refused`, too. `skip`: names that `auto` leaves out.
    """
    if backend not in ('auto', *BACKENDS):
        raise BackendError(f'no backend {backend!r}; there are auto, {", ".join(BACKENDS)}')
    failures = {}  # reason -> name of the backend
    for name in [b for b in BACKENDS if b not in skip] if backend == 'auto' else (backend,):
        if backend == 'auto' and name == 'torch':
            if not _has_gpu():
                continue  # on a CPU onnxruntime is faster, and torch takes seconds to import
            if _torch_has_no_cuda():
                failures['torch: this build of it has no CUDA'] = name
                continue
        for options in _candidates(name, precision, threads, progress):
            try:
                loaded = _open(name, bundle, options)
            except BackendError as error:
                reason = str(error) if name in str(error) else f'{name}: {error}'
                failures[reason] = name
                continue
            loaded.notes = (*failures, *loaded.notes)
            loaded.refused = tuple(why for why, other in failures.items() if other != name)
            return loaded
    raise BackendError('; '.join(failures) or 'no backend is left')


def _candidates(name, precision, threads, progress):
    """Return the options under which a backend is tried, best first."""
    halves = name == 'tensorrt' or name == 'torch' and _has_gpu() and not _torch_has_no_cuda()
    precisions = ('fp16', 'fp32') if halves and precision == 'auto' else (precision,)
    if name == 'tensorrt':
        return [{'precision': each, 'progress': progress} for each in precisions]
    options = {'threads': threads}
    if name == 'onnxruntime' and _has_gpu():
        devices = ('cuda', 'cpu')
        return [{**options, 'precision': precision, 'device': device} for device in devices]
    return [{**options, 'precision': each} for each in precisions]


def _has_gpu():
    try:
        cuda.find_gpu()
    except BackendError:
        return False
    return True


def _torch_has_no_cuda():
    """Whether torch is there, but not for the GPU: PyPI's for Jetsons long was not."""
    try:
        import torch
    except Exception:  # ImportError; OSError or ValueError where its CUDA libraries are missing
        return False  # the backend says what is missing, and the cure
    return not torch.cuda.is_available()


def _open(name, bundle, options):
    """Load and self-test one backend; BackendError whatever goes wrong."""
    loaded = None
    try:
        loaded = _kind(name)(bundle, **options)
        self_test(loaded)
        return loaded
    except BaseException as error:
        if loaded is not None:
            forget_frames(error)  # engines that outlive their CUDA context crash when they go
            loaded.close()
        if isinstance(error, BackendError) or not isinstance(error, Exception):
            raise
        if isinstance(error, ImportError):
            missing = (error.name or '').split('.')[0]
            cure = pip_install(missing) if missing in _ON_PYPI else 'see docs/tensorrt.md'
            reason = f'needs {error.name}, which is not installed; {cure}'
        else:
            # Libraries raise what they like; one that fails must not keep the next from serving.
            reason = f'does not start: {first_line(error)}'
        raise BackendError(f'{name} {reason}') from None


def _kind(name):
    """Return the class of a backend; its libraries are imported here or when it is made."""
    if name == 'tensorrt':
        from dar_ros.backends.tensorrt_backend import TensorRTBackend as kind
    elif name == 'torch':
        from dar_ros.backends.torch_backend import TorchBackend as kind
    else:
        from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend as kind
    return kind

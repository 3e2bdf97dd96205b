"""Backends, and the choice among them."""

from dar_ros.backends.base import self_test
from dar_ros.errors import BackendError

BACKENDS = ('onnxruntime',)  # best first; what `auto` tries


def open_backend(bundle, backend='auto', precision='auto', threads=None, skip=()):
    """
    Load a bundle and return the backend, self-tested; BackendError if none serves it.

    `threads`: CPU threads, None for all cores. `skip`: names that `auto` leaves out.
    """
    if backend not in ('auto', *BACKENDS):
        raise BackendError(f'no backend {backend!r}; there are auto, {", ".join(BACKENDS)}')
    failures = []
    for name in [b for b in BACKENDS if b not in skip] if backend == 'auto' else (backend,):
        try:
            loaded = _load(name, bundle, precision, threads)
            self_test(loaded)
            return loaded
        except BackendError as error:
            failures.append(str(error))
    raise BackendError('; '.join(failures) or 'no backend is left')


def _load(name, bundle, precision, threads):
    assert name == 'onnxruntime'
    from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(bundle, precision, threads)

"""
One model kept served: a backend that fails is opened again once, then the next one takes over.
"""

import time

from dar_ros.backends import cuda
from dar_ros.errors import BackendError, DarError, first_line
from dar_ros.pipeline import DepthSettings, open_pipeline

FORGIVEN = 1000  # frames served after which an earlier failure no longer counts
PAUSE = 5.0  # seconds between two attempts once no other backend is left


class Serving:
    """
    A DepthPipeline that outlives its backend. Not thread-safe: one thread owns it.

    `note` is '' or says in one line why the model is not served as asked. DarError if it cannot
    be opened at all.
    """

    def __init__(
        self,
        model=None,
        backend='auto',
        precision='auto',
        threads=None,
        progress=None,
        clock=time.monotonic,
    ):
        self._asked, self._clock = (model, backend, precision, threads), clock
        self._progress = progress
        self._pipeline, self._closed = open_pipeline(*self._asked, progress=progress), False
        self.note = self._refusals()
        self._failed = set()  # names of backends that have had their second chance
        self._reopened, self._good, self._attempted = False, 0, clock()
        self._why_closed = 'the model is closed'

    @property
    def bundle(self):
        """The bundle served."""
        return self._pipeline.bundle

    @property
    def backend(self):
        """Name of the backend in use."""
        return self._pipeline.backend.name

    @property
    def precision(self):
        """The precision that the backend in use computes in."""
        return self._pipeline.backend.precision

    @property
    def notes(self):
        """What was passed over for the backend in use, and why."""
        return self._pipeline.backend.notes

    def __call__(self, image, intrinsics=None, settings=DepthSettings(), began=None):
        """See DepthPipeline; BackendError for all that is not the frame's own fault."""
        if self._closed:
            raise BackendError(self._why_closed)
        try:
            frame = self._pipeline(image, intrinsics, settings, began)
        except DarError:
            raise
        except Exception as error:  # of whatever library the backend stands on
            raise BackendError(f'{self.backend}: {first_line(error)}') from error
        self._good += 1
        return frame

    def record_publish(self, seconds):
        """See DepthPipeline."""
        self._pipeline.record_publish(seconds)

    def recover(self, reason):
        """
        After a BackendError: restore service; returns in one line what was done, or ''.

        What `progress` interrupts counts as not tried.
        """
        name, (model, _, _, threads) = self.backend, self._asked
        self._why_closed = reason
        if self._good >= FORGIVEN:
            self._reopened = False
        if not self._reopened:
            # In the precision that served: another might have to be built first, for minutes.
            opened = self._reopen(model, name, self.precision, threads)
            self._reopened, self._good = True, 0
            if opened:
                return f'{name} was opened again'
        if name not in self._failed:
            # The precision asked for may be one that only the failed backend has.
            opened = self._replace(model, 'auto', 'auto', threads, skip={*self._failed, name})
            self._failed.add(name)
            if opened:
                self._reopened, self._good = False, 0
                self.note = (
                    f'{self.backend} serves instead of {name}, which failed: {reason}; to use '
                    f'{name} again, cleanup and configure, or, after a fault of the GPU, start '
                    'the process anew'
                )
                return self.note
        if self._clock() - self._attempted >= PAUSE:
            self._failed.clear()
            if self._reopen(*self._asked):
                self.note, self._good = self._refusals(), 0
                return f'no other backend works, {self.backend} was opened again'
        return ''

    def close(self):
        """Free the model."""
        if not self._closed:
            self._closed = True
            try:
                self._pipeline.backend.close()
            except Exception:  # what has failed need not close well, and there is no more to do
                return

    def _refusals(self):
        """
        Return '', or why no better backend serves; without an NVIDIA driver nobody awaits one.
        """
        refused = self._pipeline.backend.refused
        if not refused or not cuda.has_driver():
            return ''
        return (
            f'{self.backend} serves, because no better backend does: {"; ".join(refused)}; if '
            f'that is meant, set backend to {self.backend}'
        )

    def _reopen(self, *wanted):
        """Close first: what failed may hold the memory that opening needs."""
        self.close()
        self._attempted = self._clock()
        return self._replace(*wanted)

    def _replace(self, *wanted, skip=()):
        """Whether another pipeline could be opened; it takes the place of the present one."""
        try:
            pipeline = open_pipeline(*wanted, progress=self._progress, skip=skip)
        except Exception as error:
            if self._closed:
                self.note = self._why_closed = f'no backend works: {first_line(error)}'
            return False
        self.close()
        self._pipeline, self._closed = pipeline, False
        return True

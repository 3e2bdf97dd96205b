"""What /diagnostics says: counts, rates and latencies of the last seconds, and their level."""

import threading
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 5.0  # seconds over which rates and latencies are taken
NO_IMAGE = 2.0  # seconds without an image that are worth a warning


class Health:
    """Collects events from the subscription and inference threads."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._frames = deque()  # (time, {stage: seconds})
        self.received = self.dropped = self.refused = self.processed = self.backend_failures = 0
        self.steps, self.last_error, self._error_time, self._image_time = 0, '', -1e9, clock()
        self.warnings = ()

    def image(self):
        """Record that an image arrived."""
        with self._lock:
            self.received += 1
            self._image_time = self._clock()

    def drop(self):
        """Record that an image was replaced by a newer one before it was processed."""
        with self._lock:
            self.dropped += 1

    def refuse(self, reason, backend=False):
        """Record that a frame was lost to bad input, or to the backend."""
        with self._lock:
            self.refused += not backend
            self.backend_failures += backend
            self.last_error, self._error_time = reason, self._clock()

    def frame(self, steps, timings, warnings):
        """Record that a frame was published."""
        with self._lock:
            now = self._clock()
            self.processed += 1
            self.steps, self.warnings = steps, tuple(warnings)
            self._frames.append((now, timings))
            self._trim(now)

    def _trim(self, now):
        while self._frames and self._frames[0][0] < now - WINDOW:
            self._frames.popleft()

    def status(self, name, hardware_id, active, wanted):
        """DiagnosticStatus of now; `wanted` is whether anybody listens to an output."""
        with self._lock:
            now = self._clock()
            self._trim(now)
            frames = [timings for _, timings in self._frames]
            span = min(WINDOW, now - self._frames[0][0]) if len(frames) > 1 else 0
            level, message = self._level(now, active, wanted)
            values = {
                'rate (Hz)': f'{(len(frames) - 1) / span:.1f}' if span else '0.0',
                'received': self.received,
                'processed': self.processed,
                'dropped': self.dropped,
                'refused': self.refused,
                'backend failures': self.backend_failures,
                'steps used': self.steps,
                'last error': self.last_error,
            }
        for stage in dict.fromkeys(stage for timings in frames for stage in timings):
            times = [timings[stage] * 1000 for timings in frames if stage in timings]
            values[f'{stage} p50/p95 (ms)'] = '{:.1f} / {:.1f}'.format(
                *np.quantile(times, (0.5, 0.95))
            )
        return DiagnosticStatus(
            level=level,
            name=name,
            message=message,
            hardware_id=hardware_id,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _level(self, now, active, wanted):
        recent = now - self._error_time < WINDOW
        if not active:
            return DiagnosticStatus.OK, 'inactive'
        if recent and self.backend_failures:
            return DiagnosticStatus.ERROR, self.last_error
        if now - self._image_time > NO_IMAGE:
            return DiagnosticStatus.WARN, f'no image for {now - self._image_time:.0f} s'
        if recent:
            return DiagnosticStatus.WARN, self.last_error
        if self.warnings:
            return DiagnosticStatus.WARN, '; '.join(self.warnings)
        return DiagnosticStatus.OK, 'running' if wanted else 'idle: nobody subscribes'


def diagnostics(stamp, status):
    """Wrap a DiagnosticStatus for /diagnostics."""
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message

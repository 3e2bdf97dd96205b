"""What /diagnostics says: counts, rates and latencies of the last seconds, and their level."""

import threading
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

WINDOW = 5.0  # seconds over which rates and latencies are taken, and for which an error is shown
# Seconds without depth, while images arrive and someone subscribes, before it is an error (at
# least FRAMES_LATE frame times).
NO_DEPTH = 5.0
FRAMES_LATE = 3
FEW = 3  # intervals of `min_rate` that the window must hold to judge it by
LONGEST_WINDOW = 60.0  # seconds, however small `min_rate`: the frames in it are kept
NO_IMAGE = 2.0  # seconds without an image that are worth a warning


class Health:
    """Collects events from the subscription and inference threads."""

    def __init__(self, clock=time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._frames, self._window = deque(), WINDOW  # (time, {stage: seconds})
        self._last_total = 0.0  # seconds that the last frame took
        self.received = self.dropped = self.refused = self.processed = self.backend_failures = 0
        self.steps, self.warnings = 0, ()
        self.last_error = self._refusal = self._failure = ''
        self._refused_time = self._failed_time = self._skipped_time = float('-inf')
        self._image_time = clock()
        self._wanted_since = None
        self._waiting_since = None  # since the first image after one that was dealt with

    def image(self):
        """Record that an image arrived."""
        with self._lock:
            self.received += 1
            self._image_time = self._clock()
            if self._waiting_since is None:
                self._waiting_since = self._image_time

    def drop(self):
        """Record that an image was replaced by a newer one before it was processed."""
        with self._lock:
            self.dropped += 1

    def refuse(self, reason):
        """Record that a frame was lost to bad input."""
        with self._lock:
            self.refused += 1
            self._waiting_since = None
            self.last_error = self._refusal = reason
            self._refused_time = self._clock()

    def fail(self, reason):
        """Record that a frame was lost to the backend."""
        with self._lock:
            self.backend_failures += 1
            self.last_error = self._failure = reason
            self._failed_time = self._clock()

    def frame(self, steps, timings, warnings):
        """Record that a frame was published."""
        with self._lock:
            now = self._clock()
            self.processed += 1
            self._waiting_since = None
            self.steps, self.warnings = steps, tuple(warnings)
            self._frames.append((now, timings))
            self._last_total = timings.get('total', 0.0)
            self._trim(now)

    def skip(self, warnings):
        """Record that of a frame nothing could be made that anybody wants but its camera."""
        with self._lock:
            self._skipped_time, self._waiting_since = self._clock(), None
            self.steps, self.warnings = 0, tuple(warnings)

    def _trim(self, now):
        while self._frames and self._frames[0][0] < now - self._window:
            self._frames.popleft()

    def _rate(self, now):
        """Frames a second; silence since the last counts once it is longer than is usual."""
        if len(self._frames) < 2:
            return 0.0
        (first, _), (last, _) = self._frames[0], self._frames[-1]
        intervals = len(self._frames) - 1
        usual = (last - first) / intervals
        span = last - first if now - last <= 2 * usual else now - first
        return intervals / span if span else 0.0

    def status(
        self, name, bundle, backend, precision, note='', active=True, wanted=True, min_rate=0.0
    ):
        """
        DiagnosticStatus of now.

        `bundle`, `backend` and `precision` are names, `note` says what is lastingly wrong with
        the backend, `wanted` is whether anybody listens to an output, `min_rate` (Hz) what is
        expected then.
        """
        with self._lock:
            now = self._clock()
            wanted_window = FEW / min_rate if min_rate else 0.0
            self._window = min(max(WINDOW, wanted_window), LONGEST_WINDOW)
            self._trim(now)
            frames, rate = [timings for _, timings in self._frames], self._rate(now)
            if not (active and wanted):
                self._wanted_since = None
            elif self._wanted_since is None:
                self._wanted_since = now
            level, message = self._level(now, note, active, rate, min_rate)
            values = {
                'model': bundle,
                'backend': backend,
                'precision': precision,
                'rate (Hz)': f'{rate:.1f}',
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
            hardware_id=f'{bundle}/{backend}',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _level(self, now, note, active, rate, min_rate):
        """Level and message: an error, else all that is worth a warning, else what goes on."""
        if not active:
            return DiagnosticStatus.OK, 'inactive'
        if now - self._failed_time < WINDOW:
            return DiagnosticStatus.ERROR, '; '.join(filter(None, (self._failure, note)))
        warnings = [note] if note else []
        if now - self._image_time > NO_IMAGE:
            warnings.append(f'no image for {now - self._image_time:.0f} s')
        elif None not in (self._wanted_since, self._waiting_since):
            # The backend hangs, or another is being opened.
            waited = now - max(self._waiting_since, self._wanted_since)
            if waited > max(NO_DEPTH, FRAMES_LATE * self._last_total):
                message = f'no depth for {waited:.0f} s, though images come'
                return DiagnosticStatus.ERROR, '; '.join([message, *warnings])
        if now - self._refused_time < WINDOW:
            warnings.append(f'frame refused: {self._refusal}')
        # Of the last frame, unless that is long ago.
        if self._frames or now - self._skipped_time < WINDOW:
            warnings += self.warnings
        if self._wanted_since is not None and now - self._wanted_since > self._window:
            if rate < min_rate:
                warnings.append(f'{rate:.1f} Hz is less than min_rate, {min_rate:g} Hz')
        if warnings:
            return DiagnosticStatus.WARN, '; '.join(warnings)
        return DiagnosticStatus.OK, (
            'running' if self._wanted_since is not None else 'idle: nobody subscribes'
        )


def diagnostics(stamp, status):
    """Wrap a DiagnosticStatus for /diagnostics."""
    message = DiagnosticArray(status=[status])
    message.header.stamp = stamp
    return message

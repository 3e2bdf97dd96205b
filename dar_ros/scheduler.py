"""Anytime depth: whether one more step still fits a latency budget."""

import math
from collections import defaultdict, deque

SAMPLES = 100  # times of a stage that are remembered
MEMORY = 200  # frames after which a time is forgotten; at most one probe in as many frames
QUANTILE = 0.95


class StepScheduler:
    """
    Knows the recent p95 of every stage and refuses a step that would overrun the budget.

    A stage without a recent time is unknown, and an unknown stage fits no budget: a new image size
    costs one coarse frame, not a late one. A step that is refused gets no new times, so one old
    spike must not shut it out for good: its times expire after MEMORY frames, and it is then tried
    once, if the fastest it ever was, relative to the encoder, would fit at the encoder's present
    speed. At most one trial in MEMORY frames may come late: less than the 1 % that may.
    """

    def __init__(self):
        self._times = defaultdict(lambda: deque(maxlen=SAMPLES))  # stage -> (frame, seconds)
        self._fastest = {}  # step stage -> least of its time over the encoder's in the same frame
        self._trial, self._last_trial = (None, 0.0), -MEMORY  # (stage, seconds it may take), frame
        self._frame, self._image_size, self._encode = 0, None, 0.0

    def begin(self, image_size):
        """Count a frame; a new image size (H, W) makes the work at image size unknown."""
        self._frame += 1
        if image_size != self._image_size:
            for stage in ('postprocess', 'publish'):
                self._times.pop(stage, None)
        self._image_size = image_size

    def record(self, stage, seconds):
        """Remember how long a stage took."""
        self._times[stage].append((self._frame, seconds))
        if stage == self._trial[0]:
            if seconds <= self._trial[1]:
                self._last_trial = -MEMORY  # it cost nothing: the step after it may try too
            self._trial = (None, 0.0)
        if stage == 'encode':
            self._encode = seconds
        elif stage.startswith('step_') and self._encode > 0:
            ratio = seconds / self._encode
            self._fastest[stage] = min(self._fastest.get(stage, math.inf), ratio)

    def expected(self, stage):
        """95th percentile of a stage's recent times, seconds; infinite if there is none."""
        return self._quantile(stage, QUANTILE)

    def fits(self, elapsed, step, budget):
        """
        Whether step number `step`, and what follows the last step, end within `budget` seconds.

        `elapsed` seconds of it are gone.
        """
        stage = f'step_{step}'
        left = budget - elapsed - self.expected('upsample') - self.expected('postprocess')
        # Only some callers tell how long they publish.
        publish = self.expected('publish')
        left -= publish if publish < math.inf else 0.0
        if self.expected(stage) < math.inf:
            return self.expected(stage) <= left
        if self._frame - self._last_trial < MEMORY or not self._hope(stage) <= left:
            return False
        self._trial, self._last_trial = (stage, left), self._frame
        return True

    def _hope(self, stage):
        """Least time that a step may take now; 0 for one that was never taken."""
        return self._fastest.get(stage, 0.0) * self._quantile('encode', 0.5)

    def _quantile(self, stage, share):
        times = self._times.get(stage, ())
        while times and times[0][0] <= self._frame - MEMORY:
            times.popleft()
        if not times:
            return math.inf
        seconds = sorted(seconds for _, seconds in times)
        return seconds[math.ceil(share * (len(seconds) - 1))]

"""A backend that fails is reopened once, then the next one serves; only frames are lost."""

import numpy as np
import pytest

from dar_ros import backends, serving
from dar_ros.errors import BackendError, BundleError
from dar_ros.pipeline import WARM_UPS
from dar_ros.serving import FORGIVEN, PAUSE, Serving

IMAGE = np.full((60, 80, 3), 120, np.uint8)


class Faulty:
    """The real backend under another name: it opens, but its frames fail while `broken` holds."""

    def __init__(self, world, name, inner):
        self.world, self.name, self._inner, self.closed = world, name, inner, False
        self._images = -WARM_UPS
        self.bundle, self.notes, self.precision = inner.bundle, (), 'fp16'

    def start(self, *arguments):
        assert not self.closed
        error = self.world.broken.get(self.name)
        self._images += 1
        if error and self._images > 0:
            raise error
        self._inner.start(*arguments)

    def step(self):
        self._inner.step()

    def finish(self):
        return self._inner.finish()

    def close(self):
        self.closed = True
        if self.world.broken.get(self.name):
            raise RuntimeError('a broken backend that does not even close')


class World:
    """Backends `fast` and `slow`, what is broken in them, and a clock."""

    def __init__(self, inner):
        self.inner, self.broken, self.missing, self.opened, self.now = inner, {}, set(), [], 0.0
        self.precisions, self.threads = [], []

    def load(self, name, bundle, options):
        if name in self.missing:
            raise BackendError(f'{name} is missing')
        self.precisions.append(options['precision'])
        self.threads.append(options['threads'])
        self.opened.append(Faulty(self, name, self.inner))
        return self.opened[-1]

    def serve(self, model, **options):
        return Serving(model.bundle.path, clock=lambda: self.now, **options)

    def alive(self):
        return [backend.name for backend in self.opened if not backend.closed]


@pytest.fixture
def world(pipeline, monkeypatch):
    made = World(pipeline.backend)
    monkeypatch.setattr(backends, 'BACKENDS', ('fast', 'slow'))
    monkeypatch.setattr(backends, '_open', made.load)
    monkeypatch.setattr(backends.cuda, 'has_driver', lambda: False)
    return made


def lose_a_frame(served):
    with pytest.raises(BackendError) as caught:
        served(IMAGE)
    return served.recover(str(caught.value))


def test_the_time_that_a_frame_has_taken_already_is_handed_on(world, pipeline, monkeypatch):
    served, seen = world.serve(pipeline), []
    monkeypatch.setattr(served, '_pipeline', lambda *arguments: seen.append(arguments))
    served(IMAGE, None, 'settings', began=7.0)
    assert seen[0][1:] == (None, 'settings', 7.0)


def test_one_failure_reopens_the_backend(world, pipeline):
    served = world.serve(pipeline)
    world.broken['fast'] = BackendError('fast: out of memory')
    assert 'opened again' in lose_a_frame(served)
    world.broken.clear()
    assert np.isfinite(served(IMAGE).depth).any()
    assert served.backend == 'fast' and served.note == '' and world.alive() == ['fast']


def test_the_next_backend_follows_the_second_failure(world, pipeline):
    """Even in its own precision: what was asked for may be the failed one's alone."""
    served = world.serve(pipeline, backend='fast', precision='fp16', threads=1)
    world.broken['fast'] = BackendError('fast: out of memory')
    lose_a_frame(served)
    assert 'slow serves instead of fast' in lose_a_frame(served)
    assert 'out of memory' in served.note and served.backend == 'slow'
    assert world.threads == [1, 1, 1]
    assert world.precisions == ['fp16', 'fp16', 'auto'] and world.alive() == ['slow']
    assert np.isfinite(served(IMAGE).depth).any()


def test_a_better_backend_that_is_refused_is_noted_where_there_is_a_driver(
    world, pipeline, monkeypatch
):
    """Without one nobody expects it; nor does who asks for the backend that serves."""
    world.missing = {'fast'}
    assert world.serve(pipeline).note == ''
    monkeypatch.setattr(serving.cuda, 'has_driver', lambda: True)
    served = world.serve(pipeline)
    assert served.note.startswith('slow serves, because no better backend does: fast is missing')
    assert 'set backend to slow' in served.note
    assert world.serve(pipeline, backend='slow').note == ''
    world.missing = set()
    assert world.serve(pipeline).note == ''


def test_a_backend_that_does_not_open_again_is_followed_at_once(world, pipeline):
    served = world.serve(pipeline)
    world.broken['fast'], world.missing = BackendError('fast: gone'), {'fast'}
    assert 'slow serves' in lose_a_frame(served)
    assert world.alive() == ['slow']


def test_any_exception_of_a_backend_is_its_failure(world, pipeline):
    served = world.serve(pipeline)
    world.broken['fast'] = ValueError('bad\nvalue')
    with pytest.raises(BackendError, match='fast: ValueError: bad') as caught:
        served(IMAGE)
    assert '\n' not in str(caught.value)


def test_a_long_good_run_is_forgiving(world, pipeline, monkeypatch):
    monkeypatch.setattr(serving, 'FORGIVEN', 3)
    assert FORGIVEN > 100
    served = world.serve(pipeline)
    for _ in range(3):
        world.broken['fast'] = BackendError('fast: hiccup')
        assert 'opened again' in lose_a_frame(served)
        world.broken.clear()
        for _ in range(3):
            served(IMAGE)
    assert served.backend == 'fast'


def test_when_all_fail_it_tries_on_but_not_at_every_frame(world, pipeline):
    served = world.serve(pipeline)
    world.broken = dict.fromkeys(('fast', 'slow'), BackendError('no'))
    for _ in range(4):
        lose_a_frame(served)
    assert served.backend == 'slow'
    count = len(world.opened)
    for _ in range(10):
        assert lose_a_frame(served) == ''
    assert len(world.opened) == count
    world.now += PAUSE
    world.broken.clear()
    assert 'fast was opened again' in served.recover('no')
    assert served.backend == 'fast' and served.note == '' and world.alive() == ['fast']
    assert np.isfinite(served(IMAGE).depth).any()


def test_a_reopening_that_is_interrupted_may_be_tried_again(world, pipeline):
    """By a deactivation, while an engine is built: the backend was not to blame."""

    def interrupt(*_):
        raise KeyboardInterrupt

    loads, served = world.load, world.serve(pipeline)
    world.broken['fast'] = BackendError('fast: hiccup')
    for _ in range(2):
        backends._open = interrupt
        with pytest.raises(KeyboardInterrupt):
            lose_a_frame(served)
    with pytest.raises(BackendError, match='fast: hiccup'):  # not that it is closed
        served(IMAGE)
    backends._open = loads
    assert lose_a_frame(served) == 'fast was opened again'
    backends._open = interrupt  # now of the next backend
    with pytest.raises(KeyboardInterrupt):
        lose_a_frame(served)
    backends._open = loads
    told = lose_a_frame(served)
    assert 'slow serves instead of fast' in told and 'cleanup and configure' in told


def test_when_nothing_opens_frames_are_lost_until_something_does(world, pipeline):
    served = world.serve(pipeline)
    world.broken['fast'], world.missing = BackendError('no'), {'fast', 'slow'}
    lose_a_frame(served)
    assert world.alive() == []
    with pytest.raises(BackendError, match='no backend works'):
        served(IMAGE)
    world.missing, world.now = {'fast'}, 2 * PAUSE
    lose_a_frame(served)
    assert served.backend == 'slow' and np.isfinite(served(IMAGE).depth).any()


def test_it_opens_or_says_why(world, tmp_path):
    with pytest.raises(BundleError, match='no such folder'):
        Serving(tmp_path / 'nowhere')


def test_close_frees_the_backend(world, pipeline):
    served = world.serve(pipeline)
    served.close()
    served.close()
    assert world.alive() == []
    with pytest.raises(BackendError):
        served(IMAGE)

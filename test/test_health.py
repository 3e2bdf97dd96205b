"""Levels and values of /diagnostics, on a clock of the test's own."""

import pytest

pytest.importorskip(
    'diagnostic_msgs', reason='diagnostic_msgs is not installed (extra: ros, or a sourced ROS 2)'
)
from diagnostic_msgs.msg import DiagnosticStatus

from dar_ros.ros.health import LONGEST_WINDOW, NO_DEPTH, NO_IMAGE, WINDOW, Health

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Watched:
    """A Health and its clock."""

    def __init__(self):
        self.now = 100.0
        self.health = Health(lambda: self.now)

    def run(self, seconds, rate=10.0, warnings=(), total=0.02, **options):
        """Frames at a rate for some seconds, with a status every second; returns the last."""
        for i in range(round(seconds * rate)):
            self.now += 1 / rate
            self.health.image()
            self.health.frame(3, {'step_1': 0.01, 'total': total}, warnings)
            if i % max(1, round(rate)) == 0:
                self.status(**options)
        return self.status(**options)

    def status(self, **options):
        return self.health.status('dar: depth', 'tiny', 'onnxruntime', 'fp32', **options)


@pytest.fixture
def watched():
    return Watched()


def values(status):
    return {value.key: value.value for value in status.values}


def test_running(watched):
    status = watched.run(4)
    assert (status.level, status.message) == (OK, 'running')
    found = values(status)
    assert float(found['rate (Hz)']) == pytest.approx(10, rel=0.03)
    assert found['backend'] == 'onnxruntime' and found['precision'] == 'fp32'
    assert found['steps used'] == '3'
    assert found['step_1 p50/p95 (ms)'] == '10.0 / 10.0' and found['processed'] == '40'
    assert status.hardware_id == 'tiny/onnxruntime'


def test_latencies_are_medians_and_tails_of_what_was_measured(watched):
    for milliseconds in range(101):
        watched.now += 0.02
        watched.health.image()
        watched.health.frame(1, {'step_1': milliseconds / 1000}, ())
    assert values(watched.status())['step_1 p50/p95 (ms)'] == '50.0 / 95.0'


def test_idle_and_inactive(watched):
    watched.health.image()
    assert watched.status(wanted=False).message == 'idle: nobody subscribes'
    assert watched.status(active=False).message == 'inactive'


def test_no_image(watched):
    watched.run(2)
    watched.now += NO_IMAGE + 1
    status = watched.status()
    assert status.level == WARN and 'no image for 3 s' in status.message


def test_images_without_depth_are_an_error(watched):
    """A backend that hangs says nothing itself."""
    watched.run(2)
    for second in range(8):
        watched.now += 1
        watched.health.image()
        status = watched.status()
        assert (status.level == ERROR) == (second > NO_DEPTH), second
    assert 'no depth for 7 s' in status.message
    assert watched.run(2).level == OK
    watched.now += 60  # the camera pauses: what comes next is not late
    watched.health.image()
    assert watched.status().level == OK


def test_refused_images_are_dealt_with(watched):
    """A camera of which every image is refused is a warning; the first good one is not late."""
    watched.run(2)
    for _ in range(20):
        watched.now += 1
        watched.health.image()
        watched.health.refuse('unknown encoding')
        assert watched.status().level == WARN
    watched.now += WINDOW + 1
    watched.health.image()
    assert watched.status().level == OK


def test_nobody_waits_for_depth_that_nobody_wants(watched):
    for _ in range(10):
        watched.now += 1
        watched.health.image()
        assert watched.status(wanted=False).level == OK
    assert watched.status(wanted=True).level == OK  # since now


def test_a_refused_frame_is_a_warning_for_a_while(watched):
    watched.run(2)
    watched.health.refuse('unknown encoding')
    status = watched.run(WINDOW - 1)
    assert status.level == WARN and 'unknown encoding' in status.message
    status = watched.run(2)
    assert status.level == OK and values(status)['last error'] == 'unknown encoding'
    assert values(status)['refused'] == '1'


def test_a_failed_backend_is_an_error_for_a_while(watched):
    watched.health.fail('fast: no')
    status = watched.run(1)
    assert status.level == ERROR and 'fast: no' in status.message
    assert watched.run(WINDOW).level == OK
    # A later bad frame is no backend's failure.
    watched.health.refuse('truncated')
    status = watched.run(1)
    assert status.level == WARN and values(status)['backend failures'] == '1'


def test_another_backend_than_asked_for_is_a_lasting_warning(watched):
    status = watched.run(3 * WINDOW, note='slow serves instead of fast')
    assert status.level == WARN and 'slow serves' in status.message


def test_warnings_of_the_last_frame(watched):
    status = watched.run(1, warnings=['a', 'b'])
    assert status.level == WARN and status.message == 'a; b'
    assert watched.run(1).level == OK


def test_a_rate_below_the_threshold(watched):
    assert watched.run(2, min_rate=20.0).level == OK  # too early to tell
    status = watched.run(WINDOW, min_rate=20.0)
    assert status.level == WARN and 'min_rate' in status.message and '10.0 Hz' in status.message
    assert watched.run(2, min_rate=5.0).level == OK
    assert watched.run(2, min_rate=20.0, wanted=False).level == OK
    assert watched.run(2, min_rate=20.0).level == OK  # somebody has only just subscribed


@pytest.mark.parametrize('rate, least', [(0.5, 0.45), (0.25, 0.2), (15.0, 14.5)])
def test_a_rate_that_is_kept_is_never_announced(watched, rate, least):
    """Whenever somebody looks: between two slow frames as well."""
    watched.run(30, rate, min_rate=least)
    for _ in range(40):
        watched.now += 0.8 / rate
        watched.health.image()
        status = watched.status(min_rate=least)
        assert status.level == OK, status.message
        assert float(values(status)['rate (Hz)']) == pytest.approx(rate, abs=0.06)
        watched.now += 0.2 / rate
        watched.health.frame(3, {'total': 0.02}, ())
    assert 'less than min_rate' in watched.run(30, rate / 1.5, min_rate=least).message


def test_a_model_that_needs_long_is_not_taken_for_one_that_hangs(watched):
    """Six seconds a frame, every frame published."""
    watched.run(30, rate=1 / 6, total=6.0)
    for _ in range(3):
        watched.health.image()
        for _ in range(6):
            watched.now += 1
            watched.health.image()
            assert watched.status().level == OK
        watched.health.frame(3, {'total': 6.0}, ())
    for _ in range(20):
        watched.now += 1
        watched.health.image()
    assert watched.status().level == ERROR


def test_memory_is_bounded(watched):
    watched.run(60, rate=100.0)
    assert len(watched.health._frames) <= WINDOW * 100 + 1
    watched.run(120, rate=100.0, min_rate=1e-6)
    assert len(watched.health._frames) <= LONGEST_WINDOW * 100 + 1

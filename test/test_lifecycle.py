"""Transitions that the state does not have: what a lifecycle manager may send at any time."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import GetState
from rclpy.impl.implementation_singleton import rclpy_implementation

from dar_ros.ros.lifecycle import refuse_wrong_transitions

OLDER = str(Path(__file__).parent / 'older_node.py')


def test_a_transition_of_another_state_does_not_end_an_older_rclpy(start_process, client, rgb):
    """Humble and Jazzy: a manager configures the node that has started itself."""
    process = start_process(OLDER, '-p', 'backend:=onnxruntime')
    client.wait_for_node()
    client.ask(rgb)
    assert not client.transition(Transition.TRANSITION_CONFIGURE)
    state = client.call(GetState, 'dar/get_state', GetState.Request()).current_state.id
    assert state == State.PRIMARY_STATE_ACTIVE
    client.ask(rgb)
    assert process.poll() is None
    (line,) = [line for line in process.log.read_text().splitlines() if 'refused' in line]
    assert line.startswith('[ERROR]') and 'Transition is not registered' in line
    # Those that it has are made as ever.
    assert client.transition(Transition.TRANSITION_DEACTIVATE)
    assert client.transition(Transition.TRANSITION_CLEANUP)


def raising(error):
    def answer(request, response):
        raise error

    return answer


def test_what_else_goes_wrong_is_not_hidden():
    context, lines = rclpy.Context(), []
    service = SimpleNamespace()
    node = SimpleNamespace(
        context=context,
        _service_change_state=service,
        get_logger=lambda: SimpleNamespace(error=lines.append),
    )
    response = SimpleNamespace(success=True)
    lost = raising(rclpy_implementation.RCLError('lost'))
    rclpy.init(context=context)
    for answer, raised in ((lost, None), (raising(KeyError('x')), KeyError)):
        service.callback = answer
        refuse_wrong_transitions(node)
        if raised:
            with pytest.raises(raised):
                service.callback(None, response)
        else:
            assert service.callback(None, response) is response and not response.success
    assert lines == ['transition refused: RCLError: lost']
    service.callback = lost
    refuse_wrong_transitions(node)
    rclpy.shutdown(context=context)
    with pytest.raises(rclpy_implementation.RCLError):  # the process ends: run_node knows
        service.callback(None, response)
    refuse_wrong_transitions(SimpleNamespace())  # another rclpy

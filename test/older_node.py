"""
dar_node with the transitions of Humble's and Jazzy's rclpy, run by test_lifecycle.py as a script:
what the state does not have raises, and is not answered.
"""

import sys

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin

from dar_ros.ros import node

HIDDEN = '_LifecycleNodeMixin__'


def change_state(self, number):
    """Do a transition and what its callback makes of it; RCLError where there is none."""
    machine, execute = self._state_machine, getattr(self, f'{HIDDEN}execute_callback')
    before = LifecycleState(*machine.current_state)
    machine.trigger_transition_by_id(number, True)
    for last in (False, True):  # the second is on_error
        result = execute(machine.current_state[0], before)
        machine.trigger_transition_by_label(result.to_label(), True)
        if last or result != TransitionCallbackReturn.ERROR:
            return result


assert hasattr(LifecycleNodeMixin, f'{HIDDEN}change_state')
setattr(LifecycleNodeMixin, f'{HIDDEN}change_state', change_state)
sys.exit(node.main())

"""What rclpy's lifecycle nodes lack in Humble and Jazzy."""

import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation

from dar_ros.errors import first_line


def refuse_wrong_transitions(node):
    """
    Let a lifecycle node answer no to a transition that its state does not have.

    In Humble and Jazzy rclpy raises there, out of `spin`, and one request would end the process: a
    lifecycle manager that configures a node that has started itself sends it. Kilted answers no.
    """
    service = getattr(node, '_service_change_state', None)
    answer = getattr(service, 'callback', None)
    if answer is None:  # another rclpy
        return

    def answer_at_least(request, response):
        try:
            return answer(request, response)
        except rclpy_implementation.RCLError as error:
            if not rclpy.ok(context=node.context):  # a signal came, and that is no fault
                raise
            node.get_logger().error(f'transition refused: {first_line(error)}')
            response.success = False
            return response

    service.callback = answer_at_least

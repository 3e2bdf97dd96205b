"""
`python -m dar_ros.ros.delivery`: how many large messages arrive, with and without the profile.

Two processes, one sending images at a camera's rate and one receiving them, once for each profile,
size and reliability. Prints a Markdown table, or JSON lines. The figures are in
docs/large_messages.md.
"""

import argparse
import array
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dar_ros.ros.middleware import NEW_NAME, OLD_NAME, profile_variable, shipped_profile

# name: (width, height, bytes a pixel)
SIZES = {
    'image 640x480': (640, 480, 3),
    'image 1280x720': (1280, 720, 3),
    'cloud 640x480': (640, 480, 16),
    'cloud 1280x720': (1280, 720, 16),
}
RELIABILITIES = ('best_effort', 'reliable')
PROFILES = ('none', 'both', 'sender', 'receiver')  # who reads the profile
DEPTH = 5  # as rclpy's sensor-data QoS
SETTLE = 1.0  # seconds between discovery and the first message, and from the last to the end
PATIENCE = 20.0  # seconds for discovery, and for the first message after it


def main(args=None):
    """Measure what the options ask for; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m dar_ros.ros.delivery',
        description='Measure the delivery of large messages.',
    )
    parser.add_argument('--sizes', nargs='+', choices=SIZES, default=list(SIZES)[:2])
    parser.add_argument('--reliability', nargs='+', choices=RELIABILITIES, default=RELIABILITIES)
    parser.add_argument('--profiles', nargs='+', choices=PROFILES, default=PROFILES[:2])
    parser.add_argument('--profile', help='XML file; default: the shipped config/fastdds.xml')
    parser.add_argument('--count', type=int, default=50, help='messages of each measurement')
    parser.add_argument('--rate', type=float, default=20.0, help='messages per second')
    parser.add_argument('--json', action='store_true', help='one JSON line a measurement')
    parser.add_argument('--role', choices=('send', 'receive'), help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.role:
        role = send if options.role == 'send' else receive
        role(*SIZES[options.sizes[0]], options.reliability[0], options.count, options.rate)
        return 0
    profile = Path(options.profile or shipped_profile())
    if not profile.is_file():
        print(f'delivery: {profile}: no such file; name one with --profile', file=sys.stderr)
        return 1
    if not options.json:
        print(
            '| profile read by | message | reliability | arrived | latency p50 | p95 |\n'
            '|---|---|---|---|---|---|'
        )
    for readers, size, reliability in itertools.product(
        options.profiles, options.sizes, options.reliability
    ):
        row = measure(readers, profile, size, reliability, options.count, options.rate)
        print(json.dumps(row) if options.json else as_text(row), flush=True)
    return 0


def measure(readers, profile, size, reliability, count, rate):
    """Run sender and receiver; returns what the receiver saw, with what was asked."""
    command = [sys.executable, '-m', 'dar_ros.ros.delivery', '--sizes', size]
    command += ['--reliability', reliability, '--count', str(count), '--rate', str(rate)]
    processes = []
    for role, name in (('receive', 'receiver'), ('send', 'sender')):
        environment = {k: v for k, v in os.environ.items() if k not in (OLD_NAME, NEW_NAME)}
        environment.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        if readers in ('both', name):
            environment[profile_variable(environment)] = str(profile)
        processes.append(
            subprocess.Popen([*command, '--role', role], env=environment, stdout=subprocess.PIPE)
        )
    output = processes[0].communicate()[0]
    processes[1].communicate()
    seen = json.loads(output) if output.strip() else []
    p50, p95 = np.quantile(seen, (0.5, 0.95)) * 1000 if seen else (None, None)
    return {
        'profile': readers,
        'message': size,
        'megabytes': round(np.prod(SIZES[size]) / 1e6, 2),
        'reliability': reliability,
        'sent': count,
        'arrived': len(seen),
        'latency_p50_ms': p50 and round(p50, 1),
        'latency_p95_ms': p95 and round(p95, 1),
    }


def as_text(row):
    """Return a row of the Markdown table."""
    times = ['-' if row[k] is None else f'{row[k]} ms' for k in row if k.startswith('latency')]
    message = f'{row["message"]} ({row["megabytes"]} MB)'
    arrived = f'{row["arrived"]} of {row["sent"]}'
    cells = (row['profile'], message, row['reliability'].replace('_', ' '), arrived, *times)
    return f'| {" | ".join(cells)} |'


def open_node(name, reliability):
    """Return (rclpy, a node, its QoS)."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    rclpy.init()
    qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy[reliability.upper()])
    return rclpy, rclpy.create_node(name), qos


def send(width, height, pixel_bytes, reliability, count, rate):
    """Publish `count` images once the receiver is there."""
    from sensor_msgs.msg import Image

    rclpy, node, qos = open_node('delivery_sender', reliability)
    publisher = node.create_publisher(Image, 'delivery', qos)
    deadline = time.monotonic() + PATIENCE
    while not publisher.get_subscription_count() and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    time.sleep(SETTLE)
    step = width * pixel_bytes
    data = array.array('B', bytes(step * height))
    msg = Image(width=width, height=height, step=step, encoding=f'8UC{pixel_bytes}', data=data)
    begin = time.monotonic()
    for i in range(count):
        time.sleep(max(0.0, begin + i / rate - time.monotonic()))
        msg.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(msg)
    time.sleep(2 * SETTLE)  # what is reliable may still be on its way
    node.destroy_node()
    rclpy.shutdown()


def receive(width, height, pixel_bytes, reliability, count, rate):
    """Print the latencies in seconds of whole images from stamp to arrival, as a JSON list."""
    from sensor_msgs.msg import Image

    rclpy, node, qos = open_node('delivery_receiver', reliability)
    seen = []

    def on_image(msg):
        sent = msg.header.stamp.sec + msg.header.stamp.nanosec * 1e-9
        if len(msg.data) == width * height * pixel_bytes:
            seen.append(time.time() - sent)

    node.create_subscription(Image, 'delivery', on_image, qos)
    deadline = time.monotonic() + PATIENCE
    while not node.count_publishers('delivery') and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    # The first may be late on a busy machine, or never come: until the sender has ended, then.
    deadline = time.monotonic() + PATIENCE
    while not seen and node.count_publishers('delivery') and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    deadline = time.monotonic() + 2 * SETTLE + count / rate
    while len(seen) < count and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
    print(json.dumps(seen))
    node.destroy_node()
    rclpy.shutdown()


if __name__ == '__main__':
    sys.exit(main())

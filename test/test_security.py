"""The shipped SROS 2 policy against what the processes really open; what the middleware lacks."""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

import rclpy

ROOT = Path(__file__).resolve().parents[1]


def policy(enclave):
    """Return {(element, what is allowed): names in full} of an enclave."""
    tree = ElementTree.parse(ROOT / 'config' / 'sros2_policy.xml')
    (profile,) = tree.findall(f".//enclave[@path='/{enclave}']/profiles/profile")
    assert profile.attrib == {'ns': '/', 'node': enclave}
    allowed = {}
    for group in profile:
        for what, answer in group.attrib.items():
            assert answer == 'ALLOW'
            names = {child.text.replace('~', f'/{enclave}') for child in group}
            allowed[group.tag, what] = {f'/{name.removeprefix("/")}' for name in names}
    return allowed


def opened(enclave, last):
    """
    Return what a running node of that name has opened, in the form of `policy`; `last`: which of
    its topics subscribed or published, (element, what, name), is made last.
    """
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    looks = {
        ('topics', 'publish'): node.get_publisher_names_and_types_by_node,
        ('topics', 'subscribe'): node.get_subscriber_names_and_types_by_node,
        ('services', 'reply'): node.get_service_names_and_types_by_node,
    }

    def look():
        if (enclave, '/') not in node.get_node_names_and_namespaces():
            return dict.fromkeys(looks, set())
        return {key: {name for name, _ in ask(enclave, '/')} for key, ask in looks.items()}

    deadline = time.monotonic() + 60
    try:
        while last[2] not in look()[last[:2]]:
            assert time.monotonic() < deadline, look()
            time.sleep(0.2)
        time.sleep(0.5)  # what is announced at the same time
        return look()
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_the_policy_has_what_the_node_opens(start_process, transport):
    start_process('dar_ros.ros.node', '-p', f'image_transport:={transport}')
    allowed, found = policy('dar'), opened('dar', ('topics', 'subscribe', '/camera_info'))
    for key, names in found.items():
        assert names <= allowed[key], key
    assert found['topics', 'publish'] == allowed['topics', 'publish']
    assert len(found['services', 'reply']) >= 11


def test_the_policy_has_what_the_camera_opens(start_process, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((20, 30, 3), np.uint8))
    start_process('dar_ros.ros.camera', '-p', f'source:={tmp_path}')
    allowed, found = (
        policy('dar_camera'),
        opened('dar_camera', ('topics', 'publish', '/camera_info')),
    )
    for key, names in found.items():
        assert names <= allowed[key], key
    assert found['topics', 'publish'] == allowed['topics', 'publish']


def test_enforced_security_without_keys_refuses_to_start(ros_environment, tmp_path):
    """Never an open node where a closed one was asked for."""
    done = subprocess.run(
        [sys.executable, '-m', 'dar_ros.ros.node'],
        cwd=ROOT,
        env=dict(
            os.environ,
            ROS_SECURITY_ENABLE='true',
            ROS_SECURITY_STRATEGY='Enforce',
            ROS_SECURITY_KEYSTORE=str(tmp_path),
        ),
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode != 0 and 'SECURITY ERROR' in done.stderr

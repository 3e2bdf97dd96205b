"""`dar doctor` as a user runs it, on this machine and on broken ones."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')

from changed_bundle import change_reference

from dar_ros import doctor as doctor_module
from dar_ros.backends import open_backend
from dar_ros.bundle import open_bundle
from dar_ros.ros.middleware import profile_variable

ROOT = Path(__file__).resolve().parents[1]
CRASH = 'import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'


def doctor(*arguments, code=0, path=None, **environment):
    """Run `dar doctor`, with a folder in front of the import path; the process."""
    paths = [str(p) for p in (path, ROOT, os.environ.get('PYTHONPATH')) if p]
    outside = {**os.environ}
    for name in ('ROS_LOCALHOST_ONLY', 'FASTDDS_BUILTIN_TRANSPORTS'):  # there is other advice then
        outside.pop(name, None)
    done = subprocess.run(
        [sys.executable, '-m', 'dar_ros.cli', 'doctor', *map(str, arguments)],
        env={
            **outside,
            'PYTHONPATH': os.pathsep.join(paths),
            'PYTHONUSERBASE': site.getuserbase(),  # of the real HOME: what pip put there is needed
            **environment,
        },
        text=True,
        capture_output=True,
        timeout=280,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def findings(*arguments, **options):
    report = json.loads(doctor(*arguments, '--json', **options).stdout)
    return report['ok'], {found['name']: found for found in report['findings']}


def test_a_machine_that_can_run_the_node():
    profile = {profile_variable(): str(ROOT / 'config' / 'fastdds.xml')}
    ok, found = findings(**profile)
    assert ok and {'system', 'ROS', 'packages', 'CUDA', 'model', 'onnxruntime'} <= set(found)
    assert 'rmw_' in found['ROS']['text'] and 'numpy' in found['packages']['text']
    assert 'self-test passed' in found['onnxruntime']['text']
    taken = open_backend(open_bundle())
    assert found['backend']['text'].startswith(f'{taken.name} is ')
    taken.close()
    if 'rmw_fastrtps_cpp' in found['ROS']['text']:
        assert 'segment of 64 MB' in found['middleware']['text']


def test_it_is_one_screen_without_the_home_folder(copied_bundle):
    text = doctor('--model', copied_bundle, HOME=str(copied_bundle.parent)).stdout
    assert len(text.splitlines()) <= 24
    assert str(copied_bundle.parent) not in text


def test_a_broken_bundle_fails_by_name(copied_bundle):
    graph = copied_bundle / 'step.onnx'
    graph.write_bytes(graph.read_bytes()[:-1] + b'!')
    home = str(copied_bundle.parent)
    ok, found = findings('--model', copied_bundle, code=1, HOME=home)
    assert not ok and found['model']['level'] == 'FAIL' and 'step.onnx' in found['model']['text']
    assert '~' in found['model']['text'] and home not in found['model']['text']
    done = doctor('--model', copied_bundle, code=1)
    assert done.stderr.strip() == 'dar: the node cannot run here: model'


def test_a_bundle_that_computes_wrongly_leaves_no_backend(copied_bundle):
    """Hashes that agree with a wrong reference: what a miscompiled graph looks like."""

    def farther(arrays):
        arrays['depth'] = arrays['depth'] * 1.1

    change_reference(copied_bundle, farther)
    ok, found = findings('--model', copied_bundle, code=1)
    assert not ok and found['backend']['level'] == 'FAIL'
    assert 'self-test' in found['onnxruntime']['text']


def test_no_ros_fails_with_its_cure(tmp_path):
    (tmp_path / 'rclpy.py').write_text('raise ImportError("no rclpy here")')
    ok, found = findings(code=1, path=tmp_path)
    assert not ok and 'no rclpy here' in found['ROS']['text'] and 'source' in found['ROS']['cure']


@pytest.mark.parametrize(
    'code, word',
    [(CRASH, 'killed by signal 11'), ('raise ImportError("numpy.core")', 'numpy.core')],
)
def test_a_cv_bridge_that_dies_is_told_and_survived(tmp_path, code, word):
    (tmp_path / 'cv_bridge.py').write_text(code)
    ok, found = findings(path=tmp_path)
    assert ok and word in found['cv_bridge']['text']


def test_a_tensorrt_that_miscompiles_is_named(tmp_path):
    info = tmp_path / 'tensorrt-10.3.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: tensorrt\nVersion: 10.3.0\n')
    _, found = findings(path=tmp_path)
    assert found['TensorRT']['level'] == 'warn' and '10.3.0' in found['TensorRT']['text']


@pytest.mark.parametrize(
    'text, level, word',
    [
        ('<dds><segment_size>524288</segment_size></dds>', 'warn', '524288'),
        ('<dds>', 'warn', 'not readable'),
        (None, 'note', 'not set'),  # what the node itself sends does not get lost
    ],
)
def test_a_profile_that_loses_images_is_warned_of(tmp_path, text, level, word):
    profile = tmp_path / 'profile.xml'
    environment = {profile_variable(): ''}
    if text:
        profile.write_text(text)
        environment = {profile_variable(): str(profile)}
    _, found = findings(**environment)
    if 'rmw_fastrtps_cpp' not in found['ROS']['text']:
        pytest.skip('another middleware')
    assert found['middleware']['level'] == level and word in found['middleware']['text']


def test_engines_that_are_not_built_yet_are_no_failure(monkeypatch):
    """Building takes longer than the doctor waits; the node runs, and the cure is one command."""
    late = {'error': 'no answer in 120 s', 'late': True}
    answers = {'tensorrt': late, 'auto': late, 'torch': {'error': 'torch is not installed'}}
    served = {'name': 'onnxruntime', 'ms': 20.0}
    monkeypatch.setattr(doctor_module, 'attempt', lambda what, name, *_: answers.get(name, served))
    found = {finding.name: finding for finding in doctor_module._backends(None)}
    assert not any(finding.level == doctor_module.FAIL for finding in found.values())
    assert 'onnxruntime serves until then' in found['backend'].text
    assert found['backend'].cure == 'dar build-engine'


def test_what_a_build_said_last_is_told_where_the_doctor_lost_patience(monkeypatch):
    def late(*_, **__):
        raise subprocess.TimeoutExpired(
            'doctor', 120, stderr=b'a line\nstep fp16: Building, 40%\n'
        )

    monkeypatch.setattr(subprocess, 'run', late)
    found = doctor_module.attempt('backend', 'tensorrt')
    assert found == {'error': 'no answer in 120 s: step fp16: Building, 40%', 'late': True}


def test_the_doctor_frees_the_gpu(gpu, bundle, capsys):
    pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
    assert doctor_module._try_backend('tensorrt', bundle.path)['name'] == 'tensorrt'
    assert capsys.readouterr().err.count('building an engine') == 3
    assert not gpu.memory and gpu.retained == 0


def test_transports_that_the_user_chose_are_no_fault(monkeypatch):
    """No profile is advised then: it would win over them without a word."""
    monkeypatch.setenv(profile_variable(), '')
    monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'LARGE_DATA')
    found = doctor_module._middleware('rmw_fastrtps_cpp')
    assert found.level == doctor_module.NOTE and 'LARGE_DATA' in found.text and not found.cure


@pytest.mark.parametrize('profile, level', [('', 'NOTE'), ('/some/profile.xml', 'WARN')])
def test_no_profile_is_advised_that_would_open_what_the_user_closed(monkeypatch, profile, level):
    """Humble adds a profile's transport to what ROS_LOCALHOST_ONLY restricts."""
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    monkeypatch.setenv('ROS_LOCALHOST_ONLY', '1')
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', profile)
    found = doctor_module._middleware('rmw_fastrtps_cpp')
    assert found.level == getattr(doctor_module, level) and 'ROS_LOCALHOST_ONLY' in found.text
    assert 'export' not in found.cure

"""
`dar doctor`: what this machine has, what the node lacks, and what to install next.

Whatever may crash (drivers, compiled modules, backends) is tried in a process of its own. One
screen, to be pasted into a bug report: the home folder is written ~.
"""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from xml.etree import ElementTree

from dar_ros import __version__
from dar_ros.child import answer
from dar_ros.cures import extra_install, pip_install
from dar_ros.errors import BundleError

OK, NOTE, WARN, FAIL = 'ok', 'note', 'warn', 'FAIL'
# module -> its distributions; the first that is there counts
PACKAGES = {
    'numpy': ('numpy',),
    'cv2': ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python', 'opencv'),
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu'),
    'torch': ('torch',),
    'timm': ('timm',),
    'tensorrt': ('tensorrt', 'tensorrt-cu13', 'tensorrt-cu12'),
    'tensorrt_rtx_bindings': ('tensorrt-rtx-cu13-bindings', 'tensorrt-rtx'),
    'pycuda': ('pycuda',),
    'cuda': ('cuda-bindings', 'cuda-python'),
    'rosbags': ('rosbags',),
    'mujoco': ('mujoco',),
}
NEEDED = ('numpy', 'cv2')
MISCOMPILING = ((10, 3), (10, 4))  # TensorRT versions that give wrong depth for ViTs on Jetsons
SEGMENT = 8 * 2**20  # bytes of shared memory below which images get lost
PATIENCE = 120  # seconds for one try


@dataclass
class Finding:
    """One line: what was looked at, what was found, and how to mend it."""

    name: str
    level: str
    text: str
    cure: str = ''


def examine(model=None):
    """Return every Finding; FAIL is what keeps the node from running."""
    findings = [_system(), *_ros(), *_packages(), _cuda(), *_tensorrt()]
    bundle = _bundle(model)
    findings.append(bundle)
    if bundle.level != FAIL:
        findings += _backends(model)
    return findings


def report(findings):
    """Return the screen that people read."""
    lines = []
    for found in findings:
        lines.append(f'{found.level:5} {found.name:13} {found.text}')
        if found.cure:
            lines.append(f'{"":5} {"":13} -> {found.cure}')
    home = str(Path.home())
    return '\n'.join(lines).replace(home, '~') if len(home) > 1 else '\n'.join(lines)


def as_json(findings):
    """Return plain data for --json: {'ok', 'findings'}."""
    home = str(Path.home())
    text = json.dumps([asdict(found) for found in findings])
    found = json.loads(text.replace(home, '~') if len(home) > 1 else text)
    return {'ok': all(f.level != FAIL for f in findings), 'findings': found}


def _system():
    system = f'{platform.system()} {platform.machine()}'
    try:
        system = f'{platform.freedesktop_os_release()["PRETTY_NAME"]} {platform.machine()}'
    except OSError:
        pass  # no such file: not a usual Linux
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    text = f'dar_ros {__version__}, Python {platform.python_version()}, {system}, {cores} cores'
    return Finding('system', OK, text)


def _ros():
    found = attempt('ros')
    if 'error' in found:
        cure = f'source /opt/ros/DISTRO/setup.bash, or where no ROS is {extra_install("ros")}'
        yield Finding('ROS', FAIL, f'rclpy does not import: {found["error"]}', cure)
        return
    distro = os.environ.get('ROS_DISTRO') or f'wheels, rclpy {version("ros-rclpy")}'
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    yield Finding('ROS', OK, f'{distro}, {found["rmw"]}, domain {domain}')
    yield _middleware(found['rmw'])
    if found['cv_bridge']:
        yield Finding('cv_bridge', NOTE, f'{found["cv_bridge"]}; the node does not need it')


def _middleware(rmw):
    from dar_ros.ros.middleware import (
        SHARED_MEMORY_CURE,
        TRANSPORTS,
        lacking_room,
        profile_listens_everywhere,
        profile_variable,
        segment_size,
        shipped_profile,
    )

    if rmw != 'rmw_fastrtps_cpp':
        return Finding('middleware', NOTE, f'{rmw}: see its own settings for large messages')
    name = profile_variable()
    path = os.environ.get(name)
    cure = f'export {name}={shipped_profile()} where the camera driver is started'
    lost = 'best-effort images between processes get lost'
    if profile_listens_everywhere():
        if path:
            text = f'{name} undoes ROS_LOCALHOST_ONLY in Humble: it listens on every interface'
            return Finding('middleware', WARN, text, f'unset {name}')
        return Finding('middleware', NOTE, f'with ROS_LOCALHOST_ONLY in Humble {lost}')
    transports = os.environ.get(TRANSPORTS)
    if transports and not path:
        text = f'{TRANSPORTS} is {transports}: dar_node and dar_camera leave their profile out'
        return Finding('middleware', NOTE, text)
    room = lacking_room(path or shipped_profile(), processes=2)
    if not path and room:
        return Finding('middleware', WARN, f'{room}: {lost}', SHARED_MEMORY_CURE)
    if not path:
        text = f'{name} is not set: but for those of dar_node and dar_camera, {lost}'
        return Finding('middleware', NOTE, text, cure)
    try:
        segment = segment_size(path)
    except (OSError, ElementTree.ParseError, ValueError) as error:
        return Finding('middleware', WARN, f'{name}: {path} is not readable ({error})', cure)
    if segment < SEGMENT:
        return Finding('middleware', WARN, f'segment of {segment} bytes: {lost}', cure)
    text = f'Fast DDS profile with a segment of {segment / 2**20:.0f} MB'
    if room:
        return Finding('middleware', WARN, f'{text}, but {room}', SHARED_MEMORY_CURE)
    return Finding('middleware', OK, text)


def _packages():
    there = {module: version(*names) for module, names in PACKAGES.items()}
    for module in PACKAGES:
        if there[module] is None and util.find_spec(module) is not None:
            there[module] = '(version unknown)'
    listed = ', '.join(f'{module} {found}' for module, found in there.items() if found)
    missing = [module for module in NEEDED if not there[module]]
    if missing:
        cure = extra_install('runtime')
        yield Finding('packages', FAIL, f'{", ".join(missing)} missing; {listed}', cure)
    else:
        yield Finding('packages', OK, listed)


def _cuda():
    found = attempt('cuda')
    if 'error' in found:
        return Finding('CUDA', NOTE, f'no GPU: {found["error"]}')
    driver = f'{found["driver"] // 1000}.{found["driver"] % 1000 // 10}'
    gpu = '{gpu} (SM {capability[0]}.{capability[1]})'.format(**found)
    return Finding('CUDA', OK, f'driver for CUDA {driver}; {gpu}')


def _tensorrt():
    found = version(*PACKAGES['tensorrt'])
    if found and tuple(int(part) for part in found.split('.')[:2]) in MISCOMPILING:
        text = f'{found} compiles ViT models wrongly on Jetsons: wrong or NaN depth'
        cure = 'update TensorRT (JetPack 7), or set backend or precision; the self-test guards'
        yield Finding('TensorRT', WARN, text, cure)


def _bundle(model):
    from dar_ros.bundle import open_bundle

    try:
        bundle = open_bundle(model)
    except BundleError as error:
        return Finding('model', FAIL, str(error))
    size = sum(entry['size'] for entry in bundle.files.values()) / 1e6
    rows, columns = bundle.input_size
    text = f'{bundle.name}, {bundle.num_steps} steps at {columns}x{rows}, {size:.0f} MB, '
    return Finding('model', OK, text + 'hashes right')


def _backends(model):
    from dar_ros.backends import BACKENDS

    passed, later = [], False  # best first; whether the best may only want its engines built
    for name in BACKENDS:
        found = attempt('backend', name, *([str(model)] if model else []))
        if 'error' in found:
            late = name == 'tensorrt' and found.get('late')
            cure = 'dar build-engine builds its engines, which takes longer, once' if late else ''
            later = later or late
            yield Finding(name, NOTE, found['error'], cure)
        else:
            text = f'self-test passed; {found["ms"]:.0f} ms for all steps'
            passed.append(name)
            yield Finding(name, OK, text)
    if later and passed:
        text = f'tensorrt, once its engines are built; {passed[0]} serves until then'
        yield Finding('backend', NOTE, text, 'dar build-engine')
        return
    best = attempt('backend', 'auto', *([str(model)] if model else [])).get('name')
    gpu = 'error' not in attempt('cuda')
    if best is None:
        cure = pip_install('onnxruntime')
        yield Finding('backend', FAIL, 'none serves this model', cure)
    elif gpu and best != 'tensorrt':
        cure = f'{extra_install("tensorrt")}; on a Jetson, TensorRT is part of JetPack'
        if version(*PACKAGES['tensorrt'], *PACKAGES['tensorrt_rtx_bindings']):
            cure = 'see the line tensorrt'
        yield Finding('backend', NOTE, f'{best} is the best here; TensorRT is tried first', cure)
    else:
        more = '' if gpu else '; without an NVIDIA GPU there is no better one'
        yield Finding('backend', OK, f'{best} is what auto takes{more}')


def version(*distributions):
    """Version of the first of some distributions that is installed; None if none is."""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def attempt(what, *arguments):
    """Run one of TRIES in a process of its own; its result, or {'error': reason}."""
    return answer('dar_ros.doctor', what, *arguments, patience=PATIENCE)


def _try_ros():
    import rclpy
    import sensor_msgs.msg  # noqa: F401 (that it imports is what is asked)

    found = {'rmw': rclpy.get_rmw_implementation_identifier(), 'cv_bridge': ''}
    if util.find_spec('cv_bridge'):
        clash = attempt('cv_bridge').get('error')
        found['cv_bridge'] = f'does not import ({clash})' if clash else 'imports'
    return found


def _try_cv_bridge():
    import cv_bridge  # noqa: F401 (built against NumPy 1, it dies beside NumPy 2)

    return {}


def _try_cuda():
    import ctypes

    from dar_ros.backends.cuda import find_gpu
    from dar_ros.errors import BackendError

    try:
        gpu = find_gpu()
    except BackendError as error:
        return {'error': str(error)}
    number = ctypes.c_int()
    ctypes.CDLL('libcuda.so.1').cuDriverGetVersion(ctypes.byref(number))
    return {'driver': number.value, 'gpu': gpu.name, 'capability': gpu.capability}


def _try_backend(name, model=None):
    import time

    from dar_ros.backends import open_backend
    from dar_ros.backends.base import self_test
    from dar_ros.bundle import open_bundle
    from dar_ros.console import say
    from dar_ros.errors import BackendError

    try:
        backend = open_backend(open_bundle(model), name, progress=say)
        try:
            began = time.perf_counter()
            self_test(backend)
            return {'name': backend.name, 'ms': (time.perf_counter() - began) * 1000}
        finally:
            backend.close()
    except BackendError as error:
        return {'error': str(error)}


TRIES = {'ros': _try_ros, 'cv_bridge': _try_cv_bridge, 'cuda': _try_cuda, 'backend': _try_backend}

if __name__ == '__main__':
    print(json.dumps(TRIES[sys.argv[1]](*sys.argv[2:])))

"""Shared fixtures: the bundled model, an isolated ROS domain, real processes."""

import fcntl
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_sessionfinish():
    """Leave no shared memory of nodes that tests killed: 68 MB each."""
    from dar_ros.ros.middleware import remove_dead_segments

    remove_dead_segments()


@pytest.fixture(scope='session')
def bundle():
    """Return the bundled dar_tiny, verified."""
    from dar_ros.bundle import open_bundle

    return open_bundle(ROOT / 'models' / 'dar_tiny')


@pytest.fixture(scope='session')
def pipeline(bundle):
    """Return a pipeline on the bundled model."""
    from dar_ros.backends import open_backend
    from dar_ros.pipeline import DepthPipeline

    return DepthPipeline(open_backend(bundle))


@pytest.fixture
def copied_bundle(bundle, tmp_path):
    """Return a copy of the bundled model's folder, to be damaged."""
    import shutil

    return Path(shutil.copytree(bundle.path, tmp_path / 'bundle'))


@pytest.fixture
def gpu(request, monkeypatch, tmp_path):
    """Return a machine with a fake GPU, a fake TensorRT and an empty cache; param: fake driver."""
    import fake_cuda
    import fake_tensorrt

    from dar_ros.backends import cuda

    gpu = fake_cuda.Gpu()
    gpu.package = getattr(request, 'param', 'cuda-bindings')
    fake_tensorrt.reset(gpu)
    monkeypatch.setattr(cuda, 'has_driver', lambda: True)
    monkeypatch.setattr(cuda, 'find_gpu', lambda: cuda.Gpu('Orin', (8, 7)))
    monkeypatch.setattr(cuda, 'open_device', lambda: fake_cuda.DEVICES[gpu.package](gpu))
    monkeypatch.setitem(sys.modules, 'tensorrt', fake_tensorrt)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return gpu


@pytest.fixture(scope='module')
def ros_environment(tmp_path_factory):
    """
    Environment variables of a ROS domain of its own on this machine; they hold for this process
    too.
    """
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.ros.middleware import profile_environment

    with pytest.MonkeyPatch.context() as patch, free_domain() as domain:
        for name, value in {
            'ROS_DOMAIN_ID': str(domain),
            'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            'RCUTILS_LOGGING_BUFFERED_STREAM': '0',
            **profile_environment(ROOT / 'config' / 'fastdds.xml'),
        }.items():
            patch.setenv(name, value)
        yield dict(os.environ)


@contextmanager
def free_domain():
    """
    Give a ROS domain that no other test session of this machine uses meanwhile; seldom the one
    before, where processes that were killed are still counted.
    """
    for domain in random.sample(range(1, 100), 99):
        path = Path(tempfile.gettempdir(), f'dar_ros_test_domain_{domain}')
        try:
            if not path.exists():
                path.touch()
            file = path.open()  # not to write: it may be another user's
        except OSError:
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError(f'99 test sessions at once, or files in {path.parent} that cannot be read')


def need(module, extra):
    """
    Skip where a module is missing, without importing it: torch dies when imported after Mesa's
    libraries.
    """
    if importlib.util.find_spec(module) is None:
        pytest.skip(f'{module} is not installed (extra: {extra})')


@pytest.fixture
def furniture():
    """Skip by name where the simulator cannot furnish its scenes."""
    from dar_ros.simulation.meshes import FOLDER

    for module in ('mujoco', 'trimesh'):
        need(module, 'sim')
    if not any(FOLDER.glob('*.sh3f')):
        pytest.skip('no furniture is installed (apt-get install sweethome3d-furniture)')


@pytest.fixture
def start_process(ros_environment, tmp_path):
    """
    Start `python -m MODULE --ros-args ...`, or a script by its path; output goes to a file; what
    still runs at the end is stopped.
    """
    running = []

    def start(module, *arguments, **environment):
        if module == 'dar_ros.ros.node':  # where a GPU is, auto would warn that it is not used
            arguments = ('-p', 'backend:=onnxruntime', *arguments)
        log = tmp_path / f'{Path(module).name}.{len(running)}.log'
        with log.open('w') as file:
            process = subprocess.Popen(
                [
                    sys.executable,
                    *([module] if module.endswith('.py') else ['-m', module]),
                    '--ros-args',
                    *arguments,
                ],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def client(ros_environment):
    """Return a camera and subscriber in this process."""
    from ros_client import Client

    made = Client()
    yield made
    made.close()


@pytest.fixture
def node(start_process, client):
    """Return the process of a dar_node that has discovered the client."""
    process = start_process('dar_ros.ros.node')
    client.wait_for_node()
    return process


@pytest.fixture(scope='module')
def rgb():
    """Return an image that is neither square nor symmetric."""
    import numpy as np

    rng = np.random.default_rng(3)
    image = np.tile(np.linspace(40, 220, 120, dtype=np.uint8)[:, None, None], (1, 200, 3)).copy()
    image[40:90, 60:110] = [180, 60, 40]
    return np.clip(image + rng.integers(-9, 9, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def renderer():
    """Return a Renderer of 80x60 pixels without furniture."""
    from dar_ros.simulation.renderer import Renderer

    made = Renderer(60, 80, 0)
    yield made
    made.close()


EXPORT_EDGE = """
import sys
import torch
from dar_ros.export import export_model
from dar_ros.model.dar import DAR
from dar_ros.model.presets import preset
torch.manual_seed(0)
export_model(DAR(preset('dar_edge')).eval(), sys.argv[1])
"""


@pytest.fixture(scope='session')
def edge_bundle(tmp_path_factory):
    """
    Return a dar_edge of random weights, exported in a process of its own: torch dies when it is
    imported after Mesa's libraries.
    """
    for module in ('torch', 'timm', 'onnxscript'):
        need(module, 'train')
    from dar_ros.bundle import open_bundle

    folder = tmp_path_factory.mktemp('dar_edge')
    subprocess.run([sys.executable, '-c', EXPORT_EDGE, folder], cwd=ROOT, check=True, timeout=280)
    return open_bundle(folder)

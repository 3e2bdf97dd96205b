"""package.xml, setup.py and setup.cfg: one version, the dependencies that are imported, colcon."""

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What a module's rosdep key is called, where that is not the module.
KEYS = {
    'numpy': 'python3-numpy',
    'cv2': 'python3-opencv',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
    'pytest': 'python3-pytest',
}
# Brought by an extra of setup.py, when somebody wants what needs it; never by rosdep, which would
# install it by pip beside the system's NumPy.
OPTIONAL = {
    'onnxruntime', 'torch', 'triton', 'timm', 'safetensors', 'lightning_fabric', 'onnx',
    'onnxscript', 'mujoco', 'trimesh', 'PIL', 'rosbags', 'tensorrt', 'tensorrt_rtx_bindings',
    'pycuda', 'cuda',
    'transformers', 'hypothesis', 'psutil', 'catkin_pkg', 'matplotlib', 'cv_bridge',
}  # fmt: skip
SHIPPED = (
    'package.xml',
    'LICENSE',
    'models/README.md',
    'launch/dar.launch.py',
    'config/dar.yaml',
    'config/dar.rviz',
    'config/dar_nav2.yaml',
    'config/fastdds.xml',
    'config/nav2_voxel_layer.yaml',
    'config/sros2_policy.xml',
    'models/dar_tiny/model.json',
    'models/dar_tiny/step.onnx',
)


@pytest.fixture(scope='module')
def package():
    return ElementTree.parse(ROOT / 'package.xml').getroot()


def depends(package, kind):
    return {element.text for element in package.findall(kind)}


def imported(files):
    """Return the top-level modules that files import, at their head or in a branch."""
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module)
    own = {'dar_ros', *(file.stem for file in (ROOT / 'test').glob('*.py'))}
    return {name.split('.')[0] for name in names} - set(sys.stdlib_module_names) - own


def test_one_name_one_version(package):
    setup = (ROOT / 'setup.py').read_text()
    assert package.attrib['format'] == '3'
    assert package.findtext('version') == re.search(r"version='(.+?)'", setup)[1]
    assert package.findtext('license') == re.search(r"license='(.+?)'", setup)[1]
    assert package.findtext('name') == re.search(r"NAME = '(.+?)'", setup)[1]
    assert package.findtext('export/build_type') == 'ament_python'
    assert (ROOT / 'resource' / package.findtext('name')).is_file()
    config = ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert config['install']['install_scripts'] == config['develop']['script_dir']
    assert config['install']['install_scripts'] == f'$base/lib/{package.findtext("name")}'


def test_no_test_module_breaks_the_collection_without_the_extras(tmp_path):
    """`colcon test` on a plain ROS installation runs nothing at all if one import fails."""
    (tmp_path / 'plain.py').write_text(
        f"""
import importlib.util, sys

found = importlib.util.find_spec
absent = lambda name: name.split('.')[0] in {OPTIONAL}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if absent(name):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
importlib.util.find_spec = lambda name, *package: None if absent(name) else found(name, *package)
"""
    )
    collected = subprocess.run(
        [sys.executable, '-m', 'pytest', '--collect-only', '-q', '-p', 'plain', '-p',
         'no:hypothesispytest', '-p', 'no:cacheprovider', str(ROOT / 'test')],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert 'test_node.py::' in collected.stdout
    assert collected.returncode == 0, collected.stdout[-3000:]


def test_dependencies_are_those_imported(package):
    """No key is missing, none is idle, and none overwrites what a Jetson brings."""
    run, test = depends(package, 'exec_depend'), depends(package, 'test_depend')
    used = imported([*(ROOT / 'dar_ros').rglob('*.py'), *(ROOT / 'launch').glob('*.py')])
    known = {KEYS.get(name, name) for name in used - OPTIONAL}
    assert known - {'python3-yaml'} == run  # YAML is read in training only
    tested = imported((ROOT / 'test').glob('*.py')) - OPTIONAL
    assert {KEYS.get(name, name) for name in tested} - run <= test
    assert not {f'python3-{name}' for name in OPTIONAL} & (run | test)
    assert not [key for key in run | test if key.endswith('-pip')]  # beside apt's, or refused


def test_every_executable_exists():
    setup = (ROOT / 'setup.py').read_text()
    entries = re.findall(r"'(\w+) = ([\w.]+):(\w+)'", setup)
    assert {name for name, _, _ in entries} >= {'dar', 'dar_node', 'dar_camera'}
    for _, module, function in entries:
        tree = ast.parse((ROOT / (module.replace('.', '/') + '.py')).read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_catkin_pkg_accepts_package_xml():
    package = pytest.importorskip(
        'catkin_pkg.package', reason='catkin_pkg is not installed: it comes with colcon'
    )
    warnings = []
    package.parse_package(str(ROOT), warnings=warnings).validate(warnings=warnings)
    assert not warnings


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Return the install space of a `colcon build` of this tree, and its environment."""
    for module in ('colcon_core', 'colcon_ros'):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed (pip install colcon-common-extensions)')
    workspace = tmp_path_factory.mktemp('workspace')
    ignored = shutil.ignore_patterns('.*', 'build', 'install', 'log', 'data', 'runs', '*.egg-info')
    shutil.copytree(ROOT, workspace / 'src' / 'dar_ros', ignore=ignored)
    done = subprocess.run(
        [sys.executable, '-m', 'colcon', 'build', '--packages-select', 'dar_ros'],
        cwd=workspace,
        text=True,
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    prefix = workspace / 'install' / 'dar_ros'
    (modules,) = prefix.glob('lib/python*/site-packages')
    paths = [str(modules), *filter(None, [os.environ.get('PYTHONPATH')])]
    prefixes = [str(prefix), *filter(None, [os.environ.get('AMENT_PREFIX_PATH')])]
    environment = {
        **os.environ,
        # The scripts ask for python3: of a virtual environment where one is active.
        'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]),
        'PYTHONPATH': os.pathsep.join(paths),
        'AMENT_PREFIX_PATH': os.pathsep.join(prefixes),
    }
    return prefix, environment


def test_colcon_installs_what_the_node_needs(installed):
    prefix, _ = installed
    for name in SHIPPED:
        assert (prefix / 'share' / 'dar_ros' / name).is_file(), name
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'dar_ros'
    assert index.is_file()
    for name in ('dar', 'dar_node', 'dar_camera'):
        script = prefix / 'lib' / 'dar_ros' / name
        assert os.access(script, os.X_OK)
        assert script.read_text().startswith('#!/usr/bin/env python3'), (
            'of a virtual environment too'
        )
    assert not list(prefix.glob('lib/python*/site-packages/test'))


def test_the_node_runs_from_the_install_space(installed, ros_environment, tmp_path):
    """With the model that was installed beside it, from a folder that knows nothing of either."""
    prefix, environment = installed
    environment = {**ros_environment, **environment}
    code = 'from dar_ros.bundle import default_bundle_path; print(default_bundle_path())'
    where = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=environment, text=True, capture_output=True
    )
    assert where.stdout.strip() == str(prefix / 'share' / 'dar_ros' / 'models' / 'dar_tiny')
    node = subprocess.Popen(
        [prefix / 'lib' / 'dar_ros' / 'dar_node'],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert any('dar_tiny on' in line for line in node.stdout)  # what was passed over is before
        node.send_signal(signal.SIGINT)
        assert node.wait(60) == 0
    finally:
        node.kill()


def test_plugins_of_a_ros_installation_do_not_hide_the_tests(tmp_path):
    """They import files while these are collected: one that skips itself ended the session."""
    pytest6 = int(pytest.__version__.split('.')[0]) < 7
    path = 'path' if pytest6 else 'module_path'
    for plugin in ('launch_testing', 'launch_ros'):
        module = f'fake_{plugin}'
        (tmp_path / f'{module}.py').write_text(
            f'def pytest_pycollect_makemodule({path}):\n    raise SystemExit("imported")\n'
        )
        info = tmp_path / f'{module}-1.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {module}\nVersion: 1\n')
        (info / 'entry_points.txt').write_text(f'[pytest11]\n{plugin} = {module}\n')
    paths = [str(tmp_path), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths)}
    file = 'test/test_geometry.py'
    for arguments, seen in (((), True), (('-o', 'addopts='), False)):
        result = subprocess.run(
            [sys.executable, '-m', 'pytest', '--collect-only', '-q', *arguments, file],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert (result.returncode == 0 and 'test_geometry.py::' in result.stdout) == seen, result

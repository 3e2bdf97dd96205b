"""What errors say to install."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from dar_ros import cures

ROOT = Path(__file__).resolve().parents[1]


def test_packages_go_where_this_python_finds_them(monkeypatch):
    monkeypatch.setattr(metadata, 'version', lambda name: '2.2.6')
    assert cures.pip_install('rosbags') == f'{sys.executable} -m pip install rosbags'


def test_numpy_1_stays(monkeypatch):
    """Ubuntu 22.04: pip would take NumPy 2, and ROS's messages would import no more."""
    monkeypatch.setattr(metadata, 'version', lambda name: '1.21.5')
    assert cures.pip_install('onnxruntime').endswith("-m pip install onnxruntime 'numpy<2'")


def test_an_extra_is_named_by_its_packages(monkeypatch):
    """No index has dar_ros; a stranger could put something there."""
    entries = [
        'numpy; extra == "runtime"',
        "torch>=2.8; extra == 'train'",
        'timm; extra == "train"',
    ]
    monkeypatch.setattr(metadata, 'requires', lambda name: entries)
    monkeypatch.setattr(metadata, 'version', lambda name: '2.2.6')
    assert cures.extra_install('train').endswith("-m pip install 'torch>=2.8' timm")

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'requires', missing)
    assert "pip install '.[train]'" in cures.extra_install('train')


@pytest.mark.parametrize('version, pin', [('1.21.5', 'numpy<2'), ('2.3.5', 'numpy<3')])
@pytest.mark.parametrize('file', ['README.md', 'docs/tensorrt.md'])
def test_what_the_readme_installs_keeps_the_major_version_of_numpy(tmp_path, file, version, pin):
    """`numpy<2` cannot be installed where ROS itself is built with NumPy 2, as on Ubuntu 26.04."""
    (words,) = re.findall(r'"numpy<\$\(.*\)"', (ROOT / file).read_text())
    (tmp_path / 'numpy.py').write_text(f'__version__ = {version!r}')
    (tmp_path / 'python3').symlink_to(sys.executable)
    paths = os.pathsep.join([str(tmp_path), os.environ['PATH']])
    environment = {**os.environ, 'PATH': paths, 'PYTHONPATH': str(tmp_path)}
    said = subprocess.run(
        ['sh', '-c', f'echo {words}'], env=environment, capture_output=True, text=True
    )
    assert said.stdout.strip() == pin, said.stderr


def test_what_the_makefile_pins_installs_on_every_supported_python():
    """One pin refused Python 3.12, and with it every target on Ubuntu 24.04."""
    specifiers = pytest.importorskip('packaging.specifiers', reason='packaging is not installed')
    lines = [line for line in (ROOT / 'Makefile').read_text().splitlines() if '--no-deps' in line]
    assert lines
    for line in lines:
        name = re.search(r'([\w-]+)==', line)[1]
        try:
            said = metadata.metadata(name)['Requires-Python']
        except metadata.PackageNotFoundError:
            pytest.skip(f'{name} is not installed (`make` installs it)')
        wanted = specifiers.SpecifierSet(said or '')
        refused = [v for v in ('3.10', '3.11', '3.12', '3.13', '3.14') if v not in wanted]
        assert not refused or '--ignore-requires-python' in line, (name, refused)

"""What errors say to install."""

import re
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

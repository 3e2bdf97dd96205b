"""Where cached files and those of the package lie."""

from pathlib import Path

import pytest

from dar_ros.backends.engine_cache import EngineCache
from dar_ros.evaluation.evaluate import frozen_test_split
from dar_ros.paths import cache_folder, shared
from dar_ros.simulation import dataset


@pytest.mark.parametrize('value', [None, ''])
def test_without_xdg_cache_home_the_cache_is_at_home(value, monkeypatch, tmp_path):
    """Not where the command was started: for the engines and the simulated test split alike."""
    if value is None:
        monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    else:
        monkeypatch.setenv('XDG_CACHE_HOME', value)
    monkeypatch.setenv('HOME', str(tmp_path))
    home = tmp_path / '.cache' / 'dar_ros'
    assert cache_folder('engines') == home / 'engines' == EngineCache().folder
    made = []
    monkeypatch.setattr(dataset, 'generate', lambda folder, *rest: made.append(Path(folder)) or [])
    frozen_test_split(0)
    assert made == [home / f'sim-test-{dataset.VERSION}']


def test_xdg_cache_home_moves_it(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_folder('engines') == tmp_path / 'dar_ros' / 'engines'


def test_what_came_with_the_package_is_named_even_if_it_is_missing():
    root = Path(__file__).resolve().parents[1]
    assert shared('config/dar.yaml') == root / 'config' / 'dar.yaml'
    assert shared('config/none.yaml') == root / 'config' / 'none.yaml'

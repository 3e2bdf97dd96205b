"""Engines on disk: stale, foreign, truncated and corrupt ones are built again, never loaded."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dar_ros.backends import engine_cache
from dar_ros.backends.engine_cache import (
    EngineCache,
    locked,
    read_sealed,
    write_sealed,
    write_whole,
)
from dar_ros.errors import BackendError

ROOT = Path(__file__).resolve().parents[1]
KEY = {'gpu': 'Orin', 'version': '10.3.0', 'profiles': [{'low': (3, 4)}]}


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / 'engines')


def get(cache, key=KEY, plan=b'engine'):
    """Return the engine and whether it was built."""
    built = []

    def build():
        built.append(plan)
        return plan

    return cache.get('tiny-step-fp16', key, build), bool(built)


def test_an_engine_is_built_once(cache):
    assert get(cache) == (b'engine', True)
    assert get(cache) == (b'engine', False)
    assert {path.suffix for path in cache.folder.iterdir()} == {'.engine', '.json', '.lock'}


def test_a_changed_key_is_another_engine(cache):
    get(cache)
    for change in ({'gpu': 'A2'}, {'version': '10.3.1'}, {'profiles': [{'low': (3, 5)}]}):
        assert get(cache, {**KEY, **change}, b'other') == (b'other', True)
    assert get(cache) == (b'engine', False)


def damage(name, change):
    return pytest.param(change, id=name)


@pytest.mark.parametrize(
    'change',
    [
        damage('truncated', lambda engine, text: (engine[:-1], text)),
        damage('one bit', lambda engine, text: (bytes([engine[0] ^ 1]) + engine[1:], text)),
        damage('empty', lambda engine, text: (b'', text)),
        damage('no engine', lambda engine, text: (None, text)),
        damage('no json', lambda engine, text: (engine, None)),
        damage('half a json', lambda engine, text: (engine, text[: len(text) // 2])),
        damage('no object', lambda engine, text: (engine, '[]')),
        damage('foreign', lambda engine, text: (engine, text.replace('Orin', 'Thor'))),
        damage(
            'older schema',
            lambda engine, text: (engine, text.replace('"schema": 1', '"schema": 0')),
        ),
    ],
)
def test_a_damaged_or_foreign_engine_is_built_again(cache, change):
    get(cache)
    path = cache.path('tiny-step-fp16', KEY)
    record = path.with_suffix('.json')
    engine, text = change(path.read_bytes(), record.read_text())
    for file, content in ((path, engine), (record, text and text.encode())):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    assert get(cache, plan=b'new') == (b'new', True)
    assert get(cache) == (b'new', False)


def test_an_engine_put_under_another_key_is_not_loaded(cache):
    """A file copied from another robot, renamed to fit."""
    get(cache, {**KEY, 'gpu': 'Thor'}, b'foreign')
    here, there = (cache.path('tiny-step-fp16', key) for key in (KEY, {**KEY, 'gpu': 'Thor'}))
    for suffix in ('.engine', '.json'):
        there.with_suffix(suffix).rename(here.with_suffix(suffix))
    assert get(cache) == (b'engine', True)


def test_a_build_that_fails_leaves_nothing(cache):
    def fail():
        raise BackendError('no')

    with pytest.raises(BackendError):
        cache.get('tiny-step-fp16', KEY, fail)
    assert [path.suffix for path in cache.folder.iterdir()] == ['.lock']
    assert get(cache) == (b'engine', True)


def test_a_refused_engine_makes_way_for_the_one_built_instead(cache):
    """And not before that is built: a build that fails leaves what there was."""

    def fail():
        raise BackendError('no')

    get(cache)
    with pytest.raises(BackendError):
        cache.get('tiny-step-fp16', KEY, fail, refused=b'engine')
    assert get(cache) == (b'engine', False)
    assert cache.get('tiny-step-fp16', KEY, lambda: b'new', refused=b'engine') == b'new'
    # Another process may have built it meanwhile.
    assert cache.get('tiny-step-fp16', KEY, fail, refused=b'engine') == b'new'


@pytest.mark.parametrize('name', ['../../out', '/tmp/out', 'lab/v2', '..', ''])
def test_no_name_leaves_the_folder(cache, name):
    """It comes from a model.json, which no hash covers."""
    assert cache.get(name, KEY, lambda: b'engine') == b'engine'
    assert cache.path(name, KEY).parent == cache.folder and cache.path(name, KEY).exists()
    assert {path.name for path in cache.folder.parent.iterdir()} == {'engines'}


def test_who_waits_for_another_process_is_asked_whether_to_go_on(tmp_path):
    """A node that waits for minutes must end when it is told to."""
    calls = []

    def end():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    cache = EngineCache(tmp_path)
    with locked(cache.path('x', KEY).with_suffix('.lock')):
        with pytest.raises(KeyboardInterrupt):
            cache.get('x', KEY, lambda: b'engine', waiting=end)
    assert cache.get('x', KEY, lambda: b'engine', waiting=end) == b'engine' and len(calls) == 2


RACER = """
import sys, time
from dar_ros.backends.engine_cache import EngineCache

def build():
    with open(sys.argv[2], 'a') as file:
        file.write('built\\n')
    time.sleep(float(sys.argv[3]))
    return b'engine'

print('ready', flush=True)
sys.stdin.readline()
assert EngineCache(sys.argv[1]).get('tiny', {'gpu': 'Orin'}, build) == b'engine'
"""


def racer(tmp_path, seconds=1.0):
    return subprocess.Popen(
        [sys.executable, '-c', RACER, tmp_path / 'engines', tmp_path / 'log', str(seconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_start_at_once_build_once(tmp_path):
    processes = [racer(tmp_path) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == 'ready\n'
    for process in processes:
        process.stdin.write('go\n')
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert (tmp_path / 'log').read_text() == 'built\n'


def test_a_process_killed_while_it_builds_blocks_nobody(tmp_path):
    killed = racer(tmp_path, seconds=60)
    killed.stdout.readline()
    killed.stdin.write('go\n')
    killed.stdin.flush()
    deadline = time.monotonic() + 30
    while not (tmp_path / 'log').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert get(EngineCache(tmp_path / 'engines'))[1]
    after = racer(tmp_path)
    after.communicate('go\n', timeout=60)
    assert after.returncode == 0
    assert (tmp_path / 'log').read_text() == 'built\n' * 2


def test_sealed_files_are_whole_or_empty(tmp_path):
    path = tmp_path / 'cache.timing'
    assert read_sealed(path) == b''
    write_sealed(path, b'timings')
    assert read_sealed(path) == b'timings'
    path.write_bytes(path.read_bytes()[:-1])
    assert read_sealed(path) == b''


def test_a_folder_that_cannot_be_written_is_named_with_its_cure(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(BackendError, match='file/engines cannot hold engines.*XDG_CACHE_HOME'):
        EngineCache(tmp_path / 'file' / 'engines')
    with pytest.raises(BackendError, match='cannot be opened.*XDG_CACHE_HOME'):
        with locked(tmp_path / 'absent' / 'engine.lock'):
            pass
    with pytest.raises(BackendError, match='cannot be written.*XDG_CACHE_HOME'):
        write_whole(tmp_path / 'absent' / 'engine', b'')


def refuse(code):
    def refused(*_, **__):
        raise OSError(code, os.strerror(code))

    return refused


def test_a_good_engine_is_read_where_nothing_can_be_written(cache, monkeypatch):
    """A robot's read-only file system: the engines came with its image."""
    get(cache)
    for name in cache.folder.glob('*.lock'):
        name.unlink()
    monkeypatch.setattr(engine_cache, 'open', refuse(errno.EROFS), raising=False)
    monkeypatch.setattr(Path, 'write_bytes', refuse(errno.EROFS))
    assert get(cache) == (b'engine', False) and not cache.unkept


@pytest.mark.parametrize('what', ['open', 'lock', 'write'])
def test_an_engine_that_cannot_be_kept_serves_all_the_same(cache, monkeypatch, what):
    """It took minutes to build."""
    if what == 'open':
        monkeypatch.setattr(engine_cache, 'open', refuse(errno.EROFS), raising=False)
    elif what == 'lock':
        monkeypatch.setattr(engine_cache.fcntl, 'flock', refuse(errno.ENOLCK))
    else:
        monkeypatch.setattr(Path, 'unlink', refuse(errno.EROFS))
    if what != 'lock':
        monkeypatch.setattr(Path, 'write_bytes', refuse(errno.ENOSPC))
    assert get(cache) == (b'engine', True)
    word = {'lock': 'cannot be locked'}.get(what, 'cannot be written')
    assert word in cache.unkept
    assert get(cache)[1] == (what != 'lock')  # without a lock it is kept all the same
    assert not list(cache.folder.glob('*.json')) or what == 'lock'


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert EngineCache().folder == tmp_path / 'dar_ros' / 'engines'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    folder = EngineCache().folder
    assert folder == tmp_path / '.cache' / 'dar_ros' / 'engines'
    assert os.stat(folder).st_mode & 0o077 == 0


def test_the_json_says_what_the_engine_is_for(cache):
    get(cache)
    record = json.loads(cache.path('tiny-step-fp16', KEY).with_suffix('.json').read_text())
    assert record['key']['gpu'] == 'Orin' and record['size'] == 6

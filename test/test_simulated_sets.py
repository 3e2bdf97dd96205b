"""Simulated data sets on disk: what is missing or damaged, how many files are open, who died."""

import json
import os
import resource
import signal

import numpy as np
import pytest

from dar_ros.errors import DarError, UsageError
from dar_ros.simulation import dataset
from dar_ros.simulation.dataset import SimDataset, generate


def write_shard(folder, number):
    """Two frames, as `dar simulate` writes them; their depth is the shard's number."""
    shard = folder / f'shard-{number:05d}'
    shard.mkdir()
    np.save(shard / 'images.npy', np.zeros((2, 4, 6, 3), np.uint8))
    np.save(shard / 'depth.npy', np.full((2, 4, 6), number, np.float32))
    np.save(shard / 'intrinsics.npy', np.ones((2, 4)))


@pytest.fixture
def simulated(tmp_path):
    """Write a shard of two frames, as `dar simulate` does."""
    write_shard(tmp_path, 0)
    (tmp_path / 'dataset.json').write_text('{"frames": 2}')
    return tmp_path


@pytest.mark.parametrize(
    ('break_it', 'message'),
    [
        (lambda f: (f / 'dataset.json').unlink(), 'no dataset.json'),
        (lambda f: (f / 'dataset.json').write_text('{}'), 'dataset.json does not say `frames`'),
        (lambda f: (f / 'dataset.json').write_text('['), 'dataset.json does not say `frames`'),
        (lambda f: (f / 'shard-00000').rename(f / 'shards'), 'shard-00000 is missing'),
        (lambda f: (f / 'shard-00000' / 'depth.npy').unlink(), 'depth.npy is missing'),
        (lambda f: (f / 'shard-00000' / 'depth.npy').write_bytes(b'x'), 'depth.npy is no whole'),
        (lambda f: (f / 'shard-00000' / 'depth.npy').write_bytes(b''), 'depth.npy is no whole'),
        (
            lambda f: np.save(f / 'shard-00000' / 'depth.npy', np.ones((2, 3, 6), np.float32)),
            'do not belong together',
        ),
        (
            lambda f: np.save(f / 'shard-00000' / 'intrinsics.npy', np.ones((1, 4))),
            'do not belong together',
        ),
    ],
)
def test_a_wrong_simulated_set_is_refused_in_one_line(simulated, break_it, message):
    assert SimDataset(simulated)[1].depth.shape == (4, 6)
    break_it(simulated)
    with pytest.raises(UsageError, match=message) as caught:
        SimDataset(simulated)
    assert '\n' not in str(caught.value) and str(simulated) in str(caught.value)


def test_more_shards_than_a_process_may_open_files(tmp_path):
    """A thousand files are what many systems allow; 50,000 frames lie in three thousand."""
    for number in range(120):
        write_shard(tmp_path, number)
    (tmp_path / 'dataset.json').write_text('{"frames": 240}')
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir('/proc/self/fd'))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3 * dataset.OPEN_SHARDS + 20, hard))
    try:
        frames = SimDataset(tmp_path)
        assert len(frames) == 240
        assert [float(frames[i].depth[0, 0]) for i in range(0, 240, 2)] == list(range(120))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_set_with_a_hole_is_refused_by_its_name(tmp_path):
    """Else frame 2 would be another one once the hole is filled."""
    for number in (0, 2):
        write_shard(tmp_path, number)
    (tmp_path / 'dataset.json').write_text('{"frames": 6}')
    with pytest.raises(UsageError, match='shard-00001 is missing, 2 of 6 frames') as caught:
        SimDataset(tmp_path)
    assert '\n' not in str(caught.value)
    assert len(SimDataset(tmp_path, partial=True)) == 2
    write_shard(tmp_path, 1)
    assert float(SimDataset(tmp_path)[2].depth[0, 0]) == 1


def test_a_set_that_was_written_anew_is_read_anew(simulated):
    assert float(SimDataset(simulated)[0].depth[0, 0]) == 0
    np.save(simulated / 'shard-00000' / 'depth.npy', np.full((2, 4, 6), 7, np.float32))
    assert float(SimDataset(simulated)[0].depth[0, 0]) == 7


def test_a_damaged_description_and_an_impossible_seed_are_refused(tmp_path):
    (tmp_path / 'dataset.json').write_text('{"frames"')
    with pytest.raises(UsageError, match='dataset.json does not say `frames`'):
        generate(tmp_path, 'val', 1, size=(24, 32))
    with pytest.raises(UsageError, match='seed -1'):
        generate(tmp_path / 'new', 'val', 1, seed=-1)
    assert not (tmp_path / 'new').exists()


def die_at_two(number):
    """Work of a process that the system kills."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
def test_a_killed_process_ends_the_command_with_one_line():
    """A pool that only replaced it would wait for its work for ever."""
    with pytest.raises(DarError, match='killed.*--workers'):
        list(dataset._run(die_at_two, range(5), 2))


def test_the_description_is_whole_at_any_moment(tmp_path, monkeypatch):
    """Whoever reads while another writes sees the old one or the new one."""
    (tmp_path / 'set').mkdir()
    seen = []
    monkeypatch.setattr(dataset, '_write_shard', lambda job: seen.append(os.listdir(job[0])))
    generate(tmp_path / 'set', 'val', 1, workers=1, progress=False)
    assert seen == [['dataset.json']]
    assert json.loads((tmp_path / 'set' / 'dataset.json').read_text())['frames'] == 1

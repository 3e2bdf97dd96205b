"""The `dar` command as a user types it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import need

from dar_ros.cli import build_parser, main

ROOT = Path(__file__).resolve().parents[1]


def dar(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, '-m', 'dar_ros.cli', *map(str, arguments)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=280,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert 'Traceback' not in done.stderr
    return done


def one_line(done):
    assert done.stdout == '' and len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


def test_info_of_the_bundled_model():
    data = json.loads(dar('info', '--json').stdout)
    assert {
        'parameters',
        'input_size',
        'num_steps',
        'num_bins',
        'bin_space',
        'depth_range',
    } <= set(data)
    assert data['name'] == 'dar_tiny' and 'num_steps' in dar('info').stdout


def test_info_of_a_preset():
    need('timm', 'train')
    data = json.loads(dar('info', 'dar_small', '--json').stdout)
    assert data['parameters'] == pytest.approx(440e6, rel=0.05)
    assert (data['bin_space'], data['num_bins'], data['num_steps']) == ('linear', 16, 5)


@pytest.mark.parametrize(
    'arguments, code, word',
    [
        (['info', 'no/such/bundle'], 1, 'no such folder'),
        (['predict', 'missing.png', '--fov', '60', '--out', 'x'], 2, 'missing.png'),
        (['predict', __file__, '--fov', '60', '--out', '{tmp}'], 2, 'no readable image'),
        (['predict', '{image}', '--fov', '190', '--out', '{tmp}'], 2, '--fov'),
        (
            ['predict', '{image}', '--fov', '60', '--num-steps', '9', '--out', '{tmp}'],
            2,
            'num_steps',
        ),
        (
            [
                'predict',
                '{image}',
                '--fov',
                '60',
                '--depth-min',
                '9',
                '--depth-max',
                '2',
                '--out',
                '{tmp}',
            ],
            2,
            'range',
        ),
        (
            ['predict', '{image}', '--fov', '60', '--model', '{tmp}', '--out', '{tmp}'],
            1,
            'model.json',
        ),
        (
            ['predict', '{image}', '--fov', '60', '--backend', 'abacus', '--out', '{tmp}'],
            1,
            'abacus',
        ),
        (['evaluate', '--data', '{tmp}'], 2, 'dataset.json'),
    ],
)
def test_errors_are_one_line(tmp_path, arguments, code, word):
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), np.zeros((20, 30, 3), np.uint8))
    arguments = [a.format(tmp=tmp_path, image=image) for a in arguments]
    assert word in one_line(dar(*arguments, code=code))


@pytest.mark.parametrize(
    'arguments, option',
    [
        ('evaluate --awareness --flip', '--flip'),
        ('evaluate --steadiness --flip', '--flip'),
        ('evaluate --steadiness --data x', '--steadiness'),
        ('evaluate --awareness --depth-max 5', '--awareness'),
        ('evaluate --split-file x', '--split-file'),
        ('evaluate --data x --split-file x', '--split-file'),
        ('sheet x --out y --split-file x', '--split-file'),
        ('calibrate --data x --fov 60', '--fov'),
        ('calibrate --data x --focal 60', '--focal'),
        ('calibrate --data x --straight-line', '--straight-line'),
        ('calibrate --at x:1,1=2 --fov 60 --frames 3', '--frames'),
        ('calibrate --at x:1,1=2 --fov 60 --dataset nyu', '--dataset'),
        ('calibrate --at x:1,1=2 --fov 60 --dataset stereo --split-file x', '--dataset'),
    ],
)
def test_an_option_without_effect_is_refused(arguments, option, capsys):
    """It would be reported as if it were in force."""
    assert main(arguments.split()) == 2
    out, error = capsys.readouterr()
    assert out == '' and error.count('\n') == 1 and option in error


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['fly'],
        ['simulate', '--split', 'val', '--frames', '3', '--out', 'x', '--seed', '-1'],
        ['predict', 'x.png', '--out', 'y'],
        ['simulate', '--frames', '3'],
        ['train', '--config', 'x', '--minutes', '-1'],
        ['train', '--config', 'x', '--minutes', 'nan'],
    ],
)
def test_wrong_use_exits_with_2(arguments):
    assert dar(*arguments, code=2).stdout == ''


@pytest.mark.parametrize(
    'command',
    [
        'info',
        'simulate',
        'train',
        'export',
        'predict',
        'evaluate',
        'calibrate',
        'sheet',
        'plot-log',
        'build-engine',
        'doctor',
        'benchmark',
    ],
)
def test_help_has_an_example(command):
    assert f'example: dar {command}' in dar(command, '--help').stdout


def commands(text):
    """Yield the words after `dar` of each command line in a Markdown file's code."""
    blocks = '\n'.join(re.findall(r'^```sh\n(.*?)^```', text, re.MULTILINE | re.DOTALL))
    spans = re.findall(r'`(dar [\w-]+ [^-`][^`]*)`', text)  # not the mere name of an option
    for line in [*blocks.replace('\\\n', ' ').splitlines(), *spans]:
        words = shlex.split(line, comments=True)
        for i, word in enumerate(words):
            if word in ('dar', 'dar_ros.cli') or word.endswith('/bin/dar'):
                yield words[i + 1 :]


def test_every_command_of_the_readme_is_one():
    """Parsed, not run: an option that was renamed is noticed."""
    found = list(commands((ROOT / 'README.md').read_text()))
    assert {'predict', 'simulate', 'train', 'export', 'evaluate', 'extract', 'calibrate'} <= {
        words[0] for words in found
    }
    for words in found:
        try:
            assert callable(build_parser().parse_args(words).run)
        except SystemExit:
            pytest.fail(f'README.md: dar {shlex.join(words)}')


def test_predict_writes_depth_picture_and_cloud(tmp_path, bundle, pipeline):
    rgb = cv2.resize(bundle.reference()['image'][0], (90, 130))
    cv2.imwrite(str(tmp_path / 'view.png'), rgb[..., ::-1])
    dar(
        'predict',
        tmp_path / 'view.png',
        '--focal',
        100,
        '--num-steps',
        3,
        '--out',
        tmp_path / 'out',
    )
    depth = np.load(tmp_path / 'out' / 'view.npy')
    assert depth.shape == (130, 90) and depth.dtype == np.float32
    assert not np.isinf(depth).any() and np.isfinite(depth).any()
    from dar_ros.geometry import Intrinsics
    from dar_ros.pipeline import DepthSettings

    expected = pipeline(rgb, Intrinsics(100, 100, 44.5, 64.5), DepthSettings(num_steps=3)).depth
    finite = np.isfinite(expected)
    assert np.array_equal(np.isfinite(depth), finite) and np.allclose(
        depth[finite], expected[finite], rtol=1e-4
    )
    assert cv2.imread(str(tmp_path / 'out' / 'view_depth.png')).shape == (130, 90, 3)
    header, _, body = (tmp_path / 'out' / 'view.ply').read_bytes().partition(b'end_header\n')
    count = int(header.split(b'element vertex ')[1].split()[0])
    assert 0 < count <= finite.sum() and len(body) == 15 * count
    vertices = np.frombuffer(body, [('xyz', '<f4', 3), ('rgb', 'u1', 3)])
    x, y = np.round(vertices['xyz'][:, :2] / vertices['xyz'][:, 2:] * 100 + (44.5, 64.5)).T
    rows, columns = y.astype(int), x.astype(int)
    assert np.allclose(vertices['xyz'][:, 2], depth[rows, columns])
    assert np.array_equal(vertices['rgb'], rgb[rows, columns])


@pytest.mark.usefixtures('furniture')
def test_simulate_then_evaluate(tmp_path):
    dar(
        'simulate',
        '--split',
        'val',
        '--frames',
        4,
        '--seed',
        3,
        '--out',
        tmp_path / 'data',
        '--workers',
        1,
    )
    done = dar('evaluate', '--data', tmp_path / 'data', '--frames', 3, '--json')
    report = json.loads(done.stdout)
    names = {'abs_rel', 'rmse', 'log10', 'silog', 'd1', 'd2', 'd3'}
    assert names | {'valid', 'frames', 'per_step'} <= set(report) and report['frames'] == 3
    assert len(report['per_step']) == 5 and all(names <= set(row) for row in report['per_step'])
    assert report['baseline_abs_rel'] > 0
    assert report['backend'] and report['precision'] in ('fp16', 'fp32')

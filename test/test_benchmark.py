"""`dar benchmark` in a few small rounds: that it measures what it says, not how fast it is."""

import importlib.util
import json
import re
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dar_ros import cli
from dar_ros.benchmark import CHECKS, NEEDS, PARTS, Bench, Part, budget, judge, run
from dar_ros.benchmark import stages as stages_part
from dar_ros.benchmark.timing import interleaved, median_ratio

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def bench(tmp_path, bundle):
    return Bench(tmp_path, bundle.path, rounds=2, frames=40, seconds=2.0)


@pytest.fixture(scope='module')
def small_edge(tmp_path_factory):
    """Return a small relative of dar_edge and its bundle: a ViT, tokens at its own stride."""
    pytest.importorskip('timm', reason='timm is not installed (extra: train)')
    torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
    from dar_ros.export import export_model
    from dar_ros.model.dar import DAR
    from dar_ros.model.presets import PRESETS

    torch.manual_seed(0)
    config = replace(
        PRESETS['dar_edge'],
        backbone='vit_tiny_patch16_224',
        input_size=(64, 112),
        memory_stride=16,
        width=48,
        memory_width=32,
        latent_width=16,
    )
    model = DAR(config).eval()
    return model, export_model(model, tmp_path_factory.mktemp('edge'))


def test_checks_are_what_the_documents_say():
    text = (ROOT / 'docs' / 'performance.md').read_text()
    section = text.split('| check | limit |')[1].split('\n\n')[0]
    written = dict(re.findall(r'^\| `(\w+)` \| ([^|]+) \|', section, re.MULTILINE))
    assert set(written) == set(CHECKS)
    for name, (_, _, limit) in CHECKS.items():  # one is computed
        assert limit is None and 'FLOPs' in written[name] or float(written[name]) == limit
    assert {part for part, _, _ in CHECKS.values()} <= set(PARTS)


def test_checks_are_judged_by_their_limits():
    parts = {
        'peers': Part(values={'edge_k5_over_dav2s': 1.01, 'edge_k2_over_dav2s': 0.9}),
        'budget': Part(values={'budget_met': 0.985}),
        'decoder': Part(
            values={'decoder_cached_over_recompute': 0.6},
            limits={'decoder_cached_over_recompute': 0.7},
        ),
        'stages': Part(),  # measured nothing: not ok
    }
    found = {check['name']: check['ok'] for check in judge(parts)}
    assert found == {
        'decoder_cached_over_recompute': True,
        'edge_k5_over_dav2s': False,
        'edge_k2_over_dav2s': True,
        'tiny_k5_ms': False,
        'budget_met': False,
    }


def test_rounds_are_interleaved():
    order = []
    times = interleaved({name: lambda name=name: order.append(name) for name in 'ab'}, 3)
    assert order == ['a', 'b'] * (len(order) // 2) and {len(t) for t in times.values()} == {3}


def test_a_ratio_is_the_median_of_the_rounds():
    assert median_ratio([1, 2, 9], [1, 4, 3]) == 1  # of the medians: 2 / 3


def in_rounds(times):
    """Return a stand-in for `interleaved`: calls each side once, and says what it took."""

    def measured(calls, rounds):
        for call in calls.values():
            call()
        return {name: times.get(name, [1, 4, 3]) for name in calls}

    return measured


def test_engines_are_built_before_the_first_part_and_the_gpu_is_named(bench, monkeypatch):
    """The node's part waits a minute for its first image, less than a build takes."""
    from dar_ros import benchmark
    from dar_ros.benchmark import processes
    from dar_ros.benchmark.timing import report

    order, gpu = [], {'gpu': 'A2', 'library': 'tensorrt 10.13.0', 'precision': 'fp16'}

    def figures(module, model, aloud):
        order.append((module, model, aloud))
        return gpu

    def part(module):
        order.append(module)
        return types.SimpleNamespace(run=lambda bench: Part())

    monkeypatch.setattr(processes, 'figures', figures)
    monkeypatch.setattr(benchmark, 'import_module', part)
    monkeypatch.setitem(NEEDS, 'node', ())
    result = run(bench, ['node'])
    serves = 'dar_ros.benchmark.serves'
    assert order == [(serves, bench.model, True), 'dar_ros.benchmark.node']
    assert 'cores; A2: tensorrt 10.13.0, fp16; Python' in report(result).splitlines()[0]
    monkeypatch.setitem(NEEDS, 'endurance', ())
    result = run(bench, ['endurance'])
    assert len(order) == 3 and 'cores; Python' in report(result).splitlines()[0]


def test_who_serves_is_told_with_gpu_library_and_precision(gpu, bundle, capsys):
    pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
    from dar_ros.benchmark import serves

    serves.main(bundle.path)
    out, error = capsys.readouterr()
    assert json.loads(out) == {
        'backend': 'tensorrt',
        'precision': 'fp16',
        'library': 'fake_tensorrt 10.13.0',
        'gpu': 'Orin',
    }
    assert error.count('building an engine') == 3 and not gpu.memory


def test_stages_tell_of_engines_that_are_built(gpu, bench, capsys):
    pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
    bench.rounds = 1
    assert 'on tensorrt' in stages_part.run(bench).tables[0][0]
    assert capsys.readouterr().err.count('building an engine') == 3


def test_stages_hold_every_stage_and_every_step(bench):
    part = stages_part.run(bench)
    (_, columns, rows), (_, _, by_steps) = part.tables
    names = [row[0] for row in rows]
    assert names == [
        'preprocess',
        'encode',
        *(f'step_{k}' for k in range(1, 6)),
        'upsample',
        'postprocess',
        '**total**',
    ]
    assert [row[0] for row in by_steps] == [1, 2, 3, 4, 5]
    assert columns[1:4] == ('256x192', '640x480', '1280x720')
    assert part.values['tiny_k5_ms'] > 0


def test_budget_counts_frames_over_several_budgets(bench):
    part = run(bench, ['budget'])['parts']['budget']
    (_, _, rows) = part.tables[0]
    assert len(rows) == 5 and 0 <= part.values['budget_met'] <= 1
    assert rows[0][1] < rows[-1][1]


def test_budget_sees_a_pipeline_that_keeps_none(bench, monkeypatch):
    class Late:
        def __init__(self, *arguments, **named):
            self.inner = open_pipeline(*arguments, **named)
            self.backend = self.inner.backend

        def __call__(self, image, intrinsics, settings):
            if settings.latency_budget_ms:
                time.sleep(settings.latency_budget_ms * 1.2e-3)
            return self.inner(image, intrinsics, settings)

    open_pipeline = budget.open_pipeline
    monkeypatch.setattr(budget, 'open_pipeline', Late)
    monkeypatch.setattr(budget, 'FRAMES_PER_ROUND', 4)
    assert budget.run(bench).values['budget_met'] < 0.4


def test_what_is_late_by_a_tenth_is_kept():
    times = np.array([9.0, 10.9, 11.1, 25.0, 1.0])
    assert budget.kept(times, np.full(5, 10.0)) == pytest.approx(0.6)
    assert budget.kept(times, np.array([5.0, 10, 10.2, 30, 1])) == pytest.approx(0.8)


def test_backends_side_by_side(bench, bundle):
    from dar_ros.backends import BACKENDS

    part = run(bench, ['backends'])['parts']['backends']
    assert set(part.data) == set(BACKENDS)
    assert part.data['onnxruntime']['agreement'] > 0.99
    assert part.data['onnxruntime']['memory_mb'] > 10


def test_a_backend_that_crashes_is_reported(tmp_path, monkeypatch):
    from dar_ros.benchmark.processes import figures

    (tmp_path / 'crash.py').write_text('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    assert figures('crash') == {'error': 'killed by signal 11'}


def test_cached_and_recomputed_decoder_agree(bench, small_edge, monkeypatch):
    from dar_ros.benchmark import decoder

    monkeypatch.setattr(decoder, 'interleaved', in_rounds({'cached': [1, 2, 9]}))
    bench.__dict__['edge'] = small_edge
    part = decoder.run(bench)
    limit = part.limits['decoder_cached_over_recompute']
    assert part.values['decoder_cached_over_recompute'] == 1 and 0 < limit < 1.15
    assert part.tables[0][2][-1][:2] == ('ratio', 1)


def test_a_decoder_that_disagrees_is_an_error():
    from dar_ros.benchmark.decoder import DisagreementError, _compare

    depth = np.linspace(0, 1, 100, dtype=np.float32)
    _compare([depth], [depth], 'log')
    with pytest.raises(DisagreementError, match='step 2'):
        _compare([depth, depth], [depth, depth + 0.01], 'log')


def test_peers_run_at_the_same_size(bench, small_edge, monkeypatch):
    pytest.importorskip('transformers', reason='transformers is not installed (extra: bench)')
    from dar_ros.benchmark import peers

    monkeypatch.setattr(peers, 'interleaved', in_rounds({'dar_edge, K = 5': [1, 2, 9]}))
    bench.__dict__['edge'] = small_edge
    part = peers.run(bench)
    names = [row[0] for row in part.tables[0][2]]
    assert 'Depth Anything V2 Small' in names and len(names) == 8
    assert '64x112' in part.tables[0][0]  # rows x columns, as every size of a network
    assert part.values == {'edge_k5_over_dav2s': 1, 'edge_k2_over_dav2s': 1}
    assert {row[0]: row[3] for row in part.tables[0][2]}['dar_edge, K = 5'] == 1


def test_memory_is_read_through_a_run(bench, bundle, monkeypatch):
    for module in NEEDS['endurance']:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed')
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.benchmark import endurance

    monkeypatch.setattr(endurance, 'small_bundle', lambda bench: bundle.path)  # no export here
    part = run(bench, ['endurance'])['parts']['endurance']
    assert part.data['readings'][0][0] == 2 and part.data['readings'][-1][0] == 40
    assert part.values['rss_growth_mb'] < 100


def test_messages_and_node_over_dds(bench, ros_environment, monkeypatch):
    from dar_ros.benchmark import messages
    from dar_ros.benchmark import node as node_part

    small = {'640x480': (60, 80)}
    for module in (messages, node_part):
        monkeypatch.setattr(module, 'VIEWS', small)
    monkeypatch.setattr(node_part, 'STARTS', 1)
    monkeypatch.setattr(node_part, 'SETTLE', 0.2)
    result = run(bench, ['messages', 'node'])
    values = {check['name']: check['value'] for check in result['checks']}
    assert set(values) == {'node_overhead_over_floor', 'newest_frame_share', 'start_seconds'}
    row = result['parts']['node'].tables[0][2][0]
    offered, dropped = row[6], row[7]
    assert offered > 20 and 0 <= dropped < offered and row[1] > 0
    assert values['newest_frame_share'] > 0.5 and 0.1 < values['start_seconds'] < 60
    assert [row[0] for row in result['parts']['messages'].tables[0][2][:3]] == [
        'decode',
        'build',
        'publish',
    ]


def test_the_newest_frame_is_told_from_an_old_one():
    pytest.importorskip('rclpy', reason='rclpy is not installed (extra: ros, or a sourced ROS 2)')
    from dar_ros.benchmark.node import TAKING, newest_at_start

    received = [(0.0, 0.004), (1.0, 1.004), (2.0, 2.004)]
    soon, later = 2.004 + TAKING / 2, 2.004 + 2 * TAKING
    assert newest_at_start([(0.0, 0.5), (1.0, 1.5)], received) == [True, True]
    assert newest_at_start([(1.0, soon), (1.0, later), (2.0, later)], received) == [
        True,
        False,
        True,
    ]


def test_the_command_prints_tables_and_fails_on_a_short_check(bundle, monkeypatch, capsys):
    arguments = ['benchmark', '--only', 'stages', '--rounds', '1', '--model', str(bundle.path)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert '| tiny_k5_ms |' in text and '**Stages of dar_tiny' in text
    monkeypatch.setitem(CHECKS, 'tiny_k5_ms', ('stages', 'max', 1e-3))
    assert cli.main([*arguments, '--check', '--json']) == 1
    captured = capsys.readouterr()
    checks = json.loads(captured.out)['checks']
    assert checks[0]['name'] == 'tiny_k5_ms' and checks[0]['ok'] is False
    assert captured.err.splitlines()[-1] == 'dar: tiny_k5_ms fell short'


def test_what_is_missing_is_said_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(NEEDS, 'peers', ('transformers',))
    monkeypatch.setitem(sys.modules, 'transformers', None)
    assert cli.main(['benchmark', '--only', 'stages', 'peers']) == 1
    out, error = capsys.readouterr()
    assert out == '' and error.count('\n') == 1
    assert re.match(r"dar: transformers is missing: .* -m pip install '?transformers", error)


def test_an_unknown_part_is_wrong_use():
    done = subprocess.run(
        [sys.executable, '-m', 'dar_ros.cli', 'benchmark', '--only', 'everything'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'everything' in done.stderr

"""
The parameter table: checks, atomic changes, and its three renderings (declared, dar.yaml, README).
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip(
    'rcl_interfaces', reason='rcl_interfaces is not installed (extra: ros, or a sourced ROS 2)'
)
from rclpy.parameter import Parameter as RosParameter

from dar_ros.errors import UsageError
from dar_ros.ros.outputs import TOPICS
from dar_ros.ros.parameters import PARAMETERS, changed, check, declare_one, settings

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = {p.name: p.default for p in PARAMETERS}


def updates(**values):
    return [RosParameter(name, value=value) for name, value in values.items()]


def test_defaults_are_valid(bundle):
    check(DEFAULTS, bundle)
    assert settings(DEFAULTS).resolve(bundle) == (bundle.num_steps, tuple(bundle.depth_range))


def test_a_change_of_several_is_atomic(bundle):
    with pytest.raises(UsageError, match='num_steps'):
        changed(DEFAULTS, updates(depth_scale=2.0, num_steps=12), bundle)
    new = changed(DEFAULTS, updates(depth_min=1.0, depth_max=5.0), bundle)
    assert (new['depth_min'], new['depth_max']) == (1.0, 5.0) and DEFAULTS['depth_max'] == 0.0


@pytest.mark.parametrize(
    'values',
    [
        {'depth_encoding': '8UC1'},
        {'beyond_range': 'zero'},
        {'depth_min': 30.0},
        {'image_rectified': 'perhaps'},
        {'num_steps': 6},
        {'depth_min': 5.0, 'depth_max': 4.0},
        *({p.name: float('nan')} for p in PARAMETERS if isinstance(p.default, float)),
    ],
)
def test_bad_values_are_refused(bundle, values):
    with pytest.raises(UsageError):
        changed(DEFAULTS, updates(**values), bundle)


def test_foreign_parameters_pass(bundle):
    assert changed(DEFAULTS, updates(use_sim_time=True), bundle) == DEFAULTS


def test_every_parameter_is_described():
    for parameter in PARAMETERS:
        descriptor = parameter.descriptor()
        assert descriptor.description.endswith('.') and descriptor.read_only == parameter.read_only


@pytest.mark.parametrize(
    'given, taken', [(True, 'true'), (False, 'false'), (float('inf'), 'inf'), ('true', 'true')]
)
def test_a_text_may_look_like_something_else(given, taken):
    """`image_rectified: true` is a boolean to ROS's YAML parser, and `inf` a number."""
    node = SimpleNamespace(
        get_parameter=lambda name: SimpleNamespace(value=given),
        undeclare_parameter=lambda name: None,
        declare_parameter=lambda name, value, *_, **__: SimpleNamespace(value=value),
    )
    assert declare_one(node, 'image_rectified', 'auto', None) == taken


def test_config_file_lists_every_parameter_with_its_default():
    yaml = pytest.importorskip('yaml', reason='PyYAML is not installed')
    listed = yaml.safe_load((ROOT / 'config' / 'dar.yaml').read_text())['/**']['ros__parameters']
    assert listed == DEFAULTS


def test_config_file_explains_every_parameter():
    """A comment before each: its choices, and (run time) unless it is read-only."""
    lines = (ROOT / 'config' / 'dar.yaml').read_text().splitlines()
    for parameter in PARAMETERS:
        (place,) = [i for i, line in enumerate(lines) if line.startswith(f'    {parameter.name}:')]
        comment = lines[place - 1]
        assert comment.startswith('    # ') and len(comment) > 15, parameter.name
        assert ('(run time)' in comment) != parameter.read_only, parameter.name
        assert all(choice in comment for choice in parameter.choices), parameter.name


def table_rows(heading):
    text = (ROOT / 'README.md').read_text()
    section = text.split(f'## {heading}')[1].split('\n## ')[0]
    return [
        [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
        for line in section.splitlines()
        if line.startswith('| `')
    ]


def test_readme_lists_every_parameter_with_its_default():
    rows = {row[0].strip('`'): row[1].strip('`') for row in table_rows('Parameters')}

    def text(value):
        return (
            str(value).lower() if isinstance(value, bool) else str(value) if value != '' else '""'
        )

    assert rows == {p.name: text(p.default) for p in PARAMETERS}


def test_readme_tells_what_acts_at_run_time():
    at_start = {row[0].strip('`') for row in table_rows('Parameters') if '(at start)' in row[2]}
    assert at_start == {p.name for p in PARAMETERS if p.read_only}


def test_readme_lists_every_topic_with_its_type():
    rows = {row[0].strip('`'): row[1] for row in table_rows('Topics')}
    assert rows == {
        **{topic: f'out, sensor_msgs/{kind.__name__}' for topic, kind in TOPICS.items()},
        'image': 'in, sensor_msgs/Image',
        'camera_info': 'in, sensor_msgs/CameraInfo',
        '/diagnostics': 'out, diagnostic_msgs/DiagnosticArray',
    }

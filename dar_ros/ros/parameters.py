"""Every parameter of the node as data: declared, described and checked from one table."""

import math
from dataclasses import dataclass, fields

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterValueException
from rclpy.parameter import Parameter as RosParameter

from dar_ros.backends import BACKENDS
from dar_ros.backends.base import PRECISIONS
from dar_ros.errors import UsageError
from dar_ros.pipeline import DepthSettings
from dar_ros.postprocess import BEYOND_RANGE, EDGE_THRESHOLD

DEPTH_ENCODINGS = ('32FC1', '16UC1')
RECTIFIED = ('auto', 'true', 'false')
TRANSPORTS = ('raw', 'compressed')


@dataclass(frozen=True)
class Parameter:
    """
    One row: the default fixes the type; bounds and choices are enforced, read-only means at start
    only.
    """

    name: str
    default: object
    text: str
    bounds: tuple = ()
    choices: tuple = ()
    read_only: bool = False

    def descriptor(self):
        """Return what `ros2 param describe` shows."""
        result = ParameterDescriptor(description=self.text, read_only=self.read_only)
        if self.choices:
            result.additional_constraints = 'one of: ' + ', '.join(self.choices)
        if self.bounds and isinstance(self.default, float):
            result.floating_point_range = [
                FloatingPointRange(from_value=self.bounds[0], to_value=self.bounds[1])
            ]
        elif self.bounds:
            result.integer_range = [
                IntegerRange(from_value=self.bounds[0], to_value=self.bounds[1], step=1)
            ]
        return result


PARAMETERS = (
    Parameter(
        'model',
        '',
        'Folder of a model bundle, or of a training checkpoint (by torch); empty: the bundled '
        'dar_tiny.',
        read_only=True,
    ),
    Parameter(
        'backend',
        'auto',
        'Inference backend; auto takes the best that passes its self-test.',
        choices=('auto', *BACKENDS),
        read_only=True,
    ),
    Parameter(
        'precision',
        'auto',
        'Arithmetic of the backend; auto is fp16 on a GPU, or fp32 where that computes wrongly, '
        'and fp32 on a CPU.',
        choices=PRECISIONS,
        read_only=True,
    ),
    Parameter(
        'threads',
        0,
        'CPU threads of the network; 0: all cores. One less than the cores keeps latency steady.',
        (0, 256),
        read_only=True,
    ),
    Parameter(
        'autostart', True, 'Configure and activate without a lifecycle manager.', read_only=True
    ),
    Parameter(
        'num_steps',
        0,
        'Autoregressive steps; fewer are faster and coarser; 0: all of the model.',
        (0, 16),
    ),
    Parameter(
        'latency_budget_ms',
        0.0,
        'Stop stepping when the next step would overrun this; 0: off.',
        (0.0, 10000.0),
    ),
    Parameter(
        'depth_min',
        0.0,
        "Nearest depth in metres, no nearer than the model's; 0: the model's.",
        (0.0, 1000.0),
    ),
    Parameter('depth_max', 0.0, "Farthest depth in metres; 0: the model's.", (0.0, 1000.0)),
    Parameter(
        'depth_encoding',
        '32FC1',
        'depth/image in metres (32FC1) or millimetres (16UC1).',
        choices=DEPTH_ENCODINGS,
    ),
    Parameter(
        'beyond_range',
        'inf',
        'What a pixel beyond depth_max becomes, in image and cloud.',
        choices=BEYOND_RANGE,
    ),
    Parameter('points_stride', 1, 'Every n-th row and column becomes points.', (1, 64)),
    Parameter('points_color', True, "Points carry the image's colour."),
    Parameter(
        'max_relative_uncertainty',
        0.0,
        'sigma / depth above which a pixel is invalid; 0: off.',
        (0.0, 10.0),
    ),
    Parameter('depth_scale', 1.0, 'Calibration factor on depth and uncertainty.', (0.01, 100.0)),
    Parameter(
        'rectify', False, 'Undistort the image by camera_info before the network.', read_only=True
    ),
    Parameter(
        'image_rectified',
        'auto',
        'Whether the image comes rectified, so of P; auto: if its topic is called image_rect...',
        choices=RECTIFIED,
        read_only=True,
    ),
    Parameter(
        'edge_threshold',
        EDGE_THRESHOLD,
        'Relative depth jump on both sides that drops a pixel from the cloud, unless a plane goes '
        'on there; 0: off.',
        (0.0, 1.0),
    ),
    Parameter(
        'image_transport',
        'raw',
        'Subscribe to image, or to image/compressed.',
        choices=TRANSPORTS,
        read_only=True,
    ),
    Parameter(
        'min_rate',
        0.0,
        'Depth images a second below which /diagnostics warns, while somebody listens; 0: off.',
        (0.0, 1000.0),
    ),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def declare(node):
    """Declare all; returns {name: value} with what the user gave."""
    if hasattr(node, 'add_pre_set_parameters_callback'):  # not in Humble
        node.add_pre_set_parameters_callback(_integers_to_floats)
    return {p.name: declare_one(node, p.name, p.default, p.descriptor()) for p in PARAMETERS}


def declare_one(node, name, default, descriptor):
    """
    Declare a parameter of the default's type and return its value; UsageError names a wrong one.

    A float takes an integer too: `depth_max: 10` is what people write. A text takes inf, nan, true
    and false, which ROS's YAML parser reads as something else even where a text is meant.
    """
    node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True))
    value = node.get_parameter(name).value
    node.undeclare_parameter(name)
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and type(value) in (float, bool):
        value = str(value).lower()
    if type(value) is not kind:
        raise UsageError(f'{name} must be of type {kind.__name__}, not {value!r}')
    try:
        return node.declare_parameter(name, value, descriptor, ignore_override=True).value
    except InvalidParameterValueException as error:
        raise UsageError(f'{name} {value!r} is refused: {error}') from None


def _integers_to_floats(updates):
    """Let `ros2 param set /dar depth_max 10` pass as well."""
    return [
        RosParameter(update.name, value=float(update.value))
        if type(update.value) is int
        and update.name in _BY_NAME
        and isinstance(_BY_NAME[update.name].default, float)
        else update
        for update in updates
    ]


def changed(values, updates, bundle=None):
    """
    Return a new {name: value} with rclpy parameters `updates` applied; UsageError with the reason
    changes nothing.

    With a bundle, what depends on the model (steps, range) is checked too.
    """
    result = dict(values)
    for update in updates:
        if update.name in _BY_NAME:
            result[update.name] = update.value
    check(result, bundle)
    return result


def check(values, bundle=None):
    """
    Raise UsageError for a value that is none of the choices, or settings that a bundle cannot
    serve.
    """
    for name, value in values.items():
        choices = _BY_NAME[name].choices
        if choices and value not in choices:
            raise UsageError(f'{name} {value!r} is none of {", ".join(choices)}')
        if isinstance(value, float) and not math.isfinite(value):  # no range excludes nan
            raise UsageError(f'{name} must be a finite number, not {value}')
    if bundle is not None:
        settings(values).resolve(bundle)


def settings(values):
    """Pick the pipeline's settings out of {name: value}."""
    return DepthSettings(**{field.name: values[field.name] for field in fields(DepthSettings)})

"""
Every exported graph as TensorRT gets it: fp16 that computes the same, operators that TensorRT 10.3
knows, and engines really built, by TensorRT for RTX, which needs no GPU for that.
"""

import importlib.util
import re

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed (extra: tensorrt)')
onnxruntime = pytest.importorskip(
    'onnxruntime', reason='onnxruntime is not installed (extra: runtime)'
)

from dar_ros.backends import graphs, tensorrt_build
from dar_ros.backends.base import self_test
from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.bundle import GRAPHS, Bundle
from dar_ros.errors import BackendError

FLOAT, HALF, UINT8 = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8)
# What the operator matrix of ONNX-TensorRT's 10.x parser lists as supported, as far as networks
# like ours use it; it takes opsets up to 20, and only the axes that are initializers.
ALLOWED = frozenset(
    'Abs Add And ArgMax AveragePool Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos '
    'DepthToSpace Div Equal Erf Exp Expand Flatten Floor Gather Gelu Gemm GlobalAveragePool '
    'Greater GreaterOrEqual HardSigmoid HardSwish Identity LayerNormalization LeakyRelu Less '
    'LessOrEqual Log MatMul Max MaxPool Min Mul Neg Not Or Pad Pow Reciprocal ReduceMax '
    'ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round Shape Sigmoid Sign Sin Slice '
    'Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where'.split()
)
AXES = {  # position of the input that must be an initializer
    'Slice': 3,
    'Squeeze': 1,
    'Unsqueeze': 1,
    'Pad': 3,
    'ReduceMax': 1,
    'ReduceMean': 1,
    'ReduceMin': 1,
    'ReduceSum': 1,
}
BUNDLES = ['bundle', 'edge_bundle']


@pytest.fixture(params=BUNDLES)
def served(request):
    """Return the bundled dar_tiny, then a dar_edge of random weights."""
    return request.getfixturevalue(request.param)


def prepared(bundle, graph, precision):
    return onnx.load_from_string(graphs.prepared_graph(bundle.file(f'{graph}.onnx'), precision))


@pytest.fixture
def halved(served, tmp_path):
    """Return the bundle with its graphs in fp16, and the bundle."""
    for graph in GRAPHS:
        (tmp_path / f'{graph}.onnx').write_bytes(
            graphs.prepared_graph(served.file(f'{graph}.onnx'), 'fp16')
        )
    (tmp_path / 'reference.npz').write_bytes(served.file('reference.npz').read_bytes())
    return Bundle(tmp_path, served.manifest), served


# Operators


def attribute(node, name, default=None):
    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default
    )


@pytest.mark.parametrize('precision', ['fp16', 'fp32'])
def test_the_operators_are_those_of_tensorrt_10(served, precision):
    for name in GRAPHS:
        model = prepared(served, name, precision)
        onnx.checker.check_model(model, full_check=True)
        assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)]
        assert not model.functions
        constant = {tensor.name for tensor in model.graph.initializer}
        types = graphs._types(model)
        for node in model.graph.node:
            assert node.op_type in ALLOWED, f'{name}: {node.op_type}'
            where = AXES.get(node.op_type)
            if where is not None and len(node.input) > where and node.input[where]:
                assert node.input[where] in constant, f'{name}: axes of {node.op_type}'
            if node.op_type in ('MaxPool', 'LayerNormalization'):
                assert len(node.output) == 1
            if node.op_type in ('MaxPool', 'AveragePool'):
                assert set(attribute(node, 'dilations', [1])) == {1}
            if node.op_type == 'Resize':
                assert attribute(node, 'mode') in (b'nearest', b'linear')
                assert not attribute(node, 'antialias', 0)
            if node.op_type == 'Cast' and UINT8 in (attribute(node, 'to'), types[node.input[0]]):
                other = {attribute(node, 'to'), types[node.input[0]]} - {UINT8}
                assert other <= {FLOAT, HALF}, 'TensorRT casts uint8 from and to floats only'
            elif any(types.get(tensor) == UINT8 for tensor in (*node.input, *node.output)):
                raise AssertionError(f'{name}: uint8 in {node.op_type}; TensorRT knows it in Cast')


# fp16


def test_what_stays_fp32(served):
    for name in GRAPHS:
        model = prepared(served, name, 'fp16')
        types = graphs._types(model)
        for value in (*model.graph.input, *model.graph.output):
            assert types[value.name] != HALF
        producer = {output: node for node in model.graph.node for output in node.output}
        first = True
        for node in model.graph.node:
            floats = {
                types[t] for t in (*node.input, *node.output) if types.get(t) in (FLOAT, HALF)
            }
            if node.op_type != 'Cast' and node.op_type != 'Resize':
                assert len(floats) <= 1, f'{name}: {node.op_type} mixes types'
            if node.op_type == 'LayerNormalization':
                assert floats == {FLOAT}
            if node.op_type in ('Conv', 'MatMul', 'Gemm'):
                assert floats == {FLOAT if name == 'encoder' and first else HALF}
                first = False
        for output in ('depth', 'next_low', 'next_high', 'metric_depth', 'range_class', 'scale'):
            if output in producer:
                assert producer[output].op_type != 'Cast' or output == 'range_class'
        if name == 'upsample':
            assert HALF not in types.values()
        halves = [t for t in model.graph.initializer if t.data_type == HALF]
        assert all(np.isfinite(onnx.numpy_helper.to_array(tensor)).all() for tensor in halves)


def test_fp32_is_left_alone(served):
    """But for the weights that a bundle holds for other uses."""
    for name in ('encoder', 'step'):
        found, kept = prepared(served, name, 'fp32'), onnx.load(str(served.file(f'{name}.onnx')))
        used = {given for node in kept.graph.node for given in node.input}
        weights = [tensor for tensor in kept.graph.initializer if tensor.name in used]
        assert list(found.graph.initializer) == weights
        for model in (found, kept):
            del model.graph.initializer[:]
        assert found == kept


def test_no_value_goes_through_fp16_on_its_way_between_fp32(served):
    """A window that were cast down and up again would be off by centimetres at 80 m."""
    for name in GRAPHS:
        model = prepared(served, name, 'fp16')
        producer = {output: node for node in model.graph.node for output in node.output}
        for node in model.graph.node:
            before = producer.get(node.input[0]) if node.op_type == 'Cast' else None
            assert before is None or before.op_type != 'Cast' or UINT8 == attribute(node, 'to')


def shaded_blocks(size):
    """Return a picture with smooth shading, edges and texture; uint8 (h, w, 3)."""
    rows, columns = size
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    y, x = y / rows, x / columns
    image = np.stack([0.4 + 0.5 * y, 0.5 + 0.3 * x, 0.6 - 0.4 * y * x], -1)
    for left, top, right, bottom, shade in (
        (0.1, 0.4, 0.3, 0.9, 0.2),
        (0.5, 0.2, 0.9, 0.5, 0.8),
        (0.6, 0.6, 0.75, 1.0, 0.35),
    ):
        image[(x > left) & (x < right) & (y > top) & (y < bottom)] = shade
    image += 0.05 * (np.sin(80 * x) * np.sin(60 * y))[..., None]
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def test_fp16_depth_stays_near_fp32(halved):
    """
    With fp32's windows given, at every step: 0.5 % at every pixel, 0.2 % on average.

    Without them a window may tip over. The reference's pattern, which no room has, is too fine for
    this: up to 1.2 %.
    """
    half, full = (OnnxRuntimeBackend(bundle) for bundle in halved)
    metres = np.exp if half.bundle.bin_space == 'log' else np.asarray
    given = shaded_blocks(half.bundle.input_size)
    for image in (given, given[:, ::-1].copy(), given // 2):
        half.start(image, 0.3, 30.0)
        full.start(image, 0.3, 30.0)
        for _ in range(half.bundle.num_steps):
            for window in ('low', 'high'):
                half._state[window] = full._state[window]
            half.step()
            full.step()
            found, expected = metres(half._last['depth']), metres(full._last['depth'])
            error = np.abs(found - expected) / expected
            assert error.max() < 0.005 and error.mean() < 0.002
            # Where both chose the same bins, the windows agree as fp32 does.
            for window in ('low', 'high'):
                apart = np.abs(half._state[window] - full._state[window])
                assert np.median(apart) < 1e-6


def test_fp16_passes_the_self_test(halved):
    self_test(OnnxRuntimeBackend(halved[0]))


def test_weights_beyond_fp16_are_clipped(tmp_path):
    helper = onnx.helper
    weight = onnx.numpy_helper.from_array(np.array([[1e6, -np.inf], [3.0, 1e-3]], np.float32), 'w')
    value = [helper.make_tensor_value_info(n, FLOAT, [1, 2]) for n in ('x', 'y')]
    node = helper.make_node('MatMul', ['x', 'w'], ['y'])
    graph = helper.make_graph([node], 'graph', value[:1], value[1:], [weight])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)]), tmp_path / 'm'
    )
    model = onnx.load_from_string(graphs.prepared_graph(tmp_path / 'm', 'fp16'))
    array = onnx.numpy_helper.to_array(model.graph.initializer[0])
    assert array.dtype == np.float16 and array.max() == 65504 and array.min() == -65504
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    found = session.run(None, {'x': np.array([[0.5, 2.0]], np.float32)})[0]
    assert found.dtype == np.float32 and found[0, 0] == pytest.approx(32758, rel=1e-3)


def test_control_flow_is_refused(tmp_path):
    helper = onnx.helper
    value = helper.make_tensor_value_info('x', FLOAT, [1])
    branch = helper.make_graph([], 'branch', [], [value])
    condition = helper.make_tensor_value_info('c', onnx.TensorProto.BOOL, [1])
    node = helper.make_node('If', ['c'], ['y'], then_branch=branch, else_branch=branch)
    result = helper.make_tensor_value_info('y', FLOAT, [1])
    onnx.save(
        helper.make_model(helper.make_graph([node], 'g', [condition], [result])), tmp_path / 'm'
    )
    with pytest.raises(BackendError, match='control flow'):
        graphs.prepared_graph(tmp_path / 'm', 'fp16')


# Profiles


def test_there_is_a_profile_for_every_step(served):
    assert tensorrt_build.step_shapes(served, 'encoder') == [{}]
    steps = tensorrt_build.step_shapes(served, 'step')
    assert len(steps) == len(tensorrt_build.step_shapes(served, 'upsample')) == served.num_steps
    seen = []
    backend = OnnxRuntimeBackend(served)
    run = backend.run_step
    backend.run_step = lambda feeds: seen.append(feeds) or run(feeds)
    self_test(backend)
    graph = onnx.load(str(served.file('step.onnx'))).graph
    for k, (feeds, sizes) in enumerate(zip(seen, steps)):
        for value in graph.input:
            fill = iter(sizes.get(value.name, ()))
            sides = value.type.tensor_type.shape.dim
            shape = tuple(next(fill) if s.dim_param else s.dim_value for s in sides)
            assert shape == feeds[value.name].shape, f'{value.name} of step {k + 1}'
    assert len(seen) == served.num_steps


# Engines


@pytest.fixture(scope='module')
def rtx():
    """Return TensorRT for RTX, which builds without a GPU."""
    if importlib.util.find_spec('tensorrt_rtx_bindings') is None:
        pytest.skip('tensorrt_rtx_bindings is not installed (extra: test)')
    return pytest.importorskip('tensorrt_rtx_bindings')


@pytest.mark.parametrize('precision', ['fp16', 'fp32'])
@pytest.mark.parametrize('graph', GRAPHS)
def test_engines_are_built(rtx, served, graph, precision, monkeypatch):
    """For compute capability 8.6 and 8.9, with a profile for every step, and progress."""
    monkeypatch.setattr(tensorrt_build, 'PROGRESS_PERIOD', 0.0)
    lines = []
    plan = tensorrt_build.build_engine(
        rtx,
        graphs.prepared_graph(served.file(f'{graph}.onnx'), precision),
        tensorrt_build.step_shapes(served, graph),
        ((8, 6), (8, 9)),
        progress=lines.append,
        label=graph,
    )
    weights = sum(
        onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in prepared(served, graph, precision).graph.initializer
    )
    assert len(plan) > weights
    assert lines and all(line.startswith(f'{graph}: ') and line.endswith('%') for line in lines)


@pytest.mark.parametrize('k', [0, -1], ids=['first', 'last'])
def test_engines_of_one_step_are_built(rtx, bundle, k):
    """As TensorRT below 10.8 gets them: an engine for every step, with that step's profile."""
    for graph in ('step', 'upsample'):
        model = graphs.prepared_graph(bundle.file(f'{graph}.onnx'), 'fp16')
        profile = tensorrt_build.step_shapes(bundle, graph)[k]
        assert tensorrt_build.build_engine(rtx, model, [profile], ((8, 6),), label=graph)


def test_strong_typing_is_what_the_graph_says(rtx, bundle):
    """fp16 makes the engine of the encoder about half as large; nothing else asks for fp16."""
    sizes = [
        len(
            tensorrt_build.build_engine(
                rtx, graphs.prepared_graph(bundle.file('encoder.onnx'), precision), [{}], ((8, 9),)
            )
        )
        for precision in ('fp16', 'fp32')
    ]
    assert sizes[0] < 0.65 * sizes[1]


def test_ctrl_c_ends_a_build(rtx, bundle, monkeypatch):
    """As KeyboardInterrupt, not as a failed build, after which fp32 would be built."""
    monkeypatch.setattr(tensorrt_build, 'PROGRESS_PERIOD', 0.0)
    model = graphs.prepared_graph(bundle.file('step.onnx'), 'fp16')
    profiles, lines = tensorrt_build.step_shapes(bundle, 'step'), []

    def interrupted(line):
        lines.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorrt_build.build_engine(rtx, model, profiles, ((8, 6),), progress=interrupted)
    assert len(lines) == 1  # the library asks once more at most, and builds on no further


def test_a_build_speaks_within_its_one_outermost_phase(rtx, bundle, monkeypatch):
    """Nearly all of a build lies within one step of that; who is silent there cannot be ended."""
    monkeypatch.setattr(tensorrt_build, 'PROGRESS_PERIOD', 0.0)
    model, lines = graphs.prepared_graph(bundle.file('upsample.onnx'), 'fp32'), []
    profiles = tensorrt_build.step_shapes(bundle, 'upsample')
    tensorrt_build.build_engine(rtx, model, profiles, ((8, 6),), progress=lines.append, label='x')
    outer = [line for line in lines if re.fullmatch(r'x: Building engine, \d+%', line)]
    nested = [line for line in lines if re.fullmatch(r'x: Building engine: .+, \d+%', line)]
    assert len(nested) > 10 * len(outer) > 0 and len(outer) + len(nested) == len(lines)
    assert any('Timing' in line or 'costs' in line for line in nested)


def test_ctrl_c_within_the_library_s_log_is_not_lost(rtx):
    class Text(str):
        def splitlines(self):
            raise KeyboardInterrupt

    logger = tensorrt_build.quiet_logger(rtx)
    logger.log(rtx.ILogger.WARNING, Text('a line'))
    monitor = tensorrt_build._monitor(rtx, 'step', None, logger)
    assert logger.interrupted and not monitor.step_complete('Building', 0)


def test_a_gpu_that_rtx_does_not_serve_is_refused(rtx, bundle):
    """An Orin (8.7) and an H100 (9.0) need standard TensorRT."""
    model = graphs.prepared_graph(bundle.file('upsample.onnx'), 'fp32')
    profiles = tensorrt_build.step_shapes(bundle, 'upsample')
    for capability, text in (((8, 7), '8.7'), ((9, 0), '9.0')):
        with pytest.raises(BackendError, match=f'capability {text}; install standard TensorRT'):
            tensorrt_build.build_engine(rtx, model, profiles, (capability,))


def test_a_graph_that_cannot_be_read_is_named(rtx):
    with pytest.raises(BackendError, match='cannot read the step'):
        tensorrt_build.build_engine(rtx, b'no onnx', [{}], ((8, 6),), label='step')


def test_a_profile_that_does_not_fit_fails_the_build(rtx, bundle):
    """The keys of step 2 lie on 6x8 tokens: any other prefix of the sum is refused or rebuilt."""
    model = graphs.prepared_graph(bundle.file('step.onnx'), 'fp32')
    sizes = dict(tensorrt_build.step_shapes(bundle, 'step')[1], past_values=(5,))
    with pytest.raises(BackendError, match='cannot build the step'):
        tensorrt_build.build_engine(rtx, model, [sizes], ((8, 6),), label='step')

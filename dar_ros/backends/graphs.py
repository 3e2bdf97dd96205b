"""
The bundle's ONNX graphs as TensorRT takes them: fp16 where that is safe, fp32 inputs and outputs.

A network of TensorRT 10 and 11 that is strongly typed computes in the types its graph names. So
the graph is converted, once for every engine that is built, and nothing is left to a builder flag.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dar_ros.errors import BackendError

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
HALF_MAX = 65504.0

# Products of matrices bound what stays fp32: they are where fp16 pays.
_PRODUCTS = ('Conv', 'ConvTranspose', 'MatMul', 'Gemm')
_ALWAYS_FULL = ('LayerNormalization', 'Constant', 'ConstantOfShape', 'Range')
# Windows, the pixels before the first product, and what leads from the last product to depth.
_FULL_FROM = ('image', 'low', 'high')
_FULL_TO = ('depth', 'next_low', 'next_high', 'metric_depth', 'range_class', 'scale')


def prepared_graph(path, precision):
    """
    Return an ONNX file of a bundle as bytes that TensorRT takes; precision is fp16 or fp32.

    In fp16 these stay fp32: inputs and outputs, the first convolution, layer norms, windows, the
    softmax over bins, its expectation and depth, and the whole upsampling.
    """
    model = onnx.load(str(path))
    if any(a.type in (a.GRAPH, a.GRAPHS) for node in model.graph.node for a in node.attribute):
        raise BackendError(f'{path} has control flow, which fp16 conversion does not know')
    _cast_to_uint8_from_float(model.graph)
    if precision == 'fp16':
        _to_half(model)
    # Bundles keep weights that no node uses, and converted ones have left theirs behind.
    used = {name for node in model.graph.node for name in node.input}
    _replace(model.graph.initializer, [t for t in model.graph.initializer if t.name in used])
    return model.SerializeToString()


def _types(model):
    """Element type of every named tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types


def _cast_to_uint8_from_float(graph):
    """Cast integers to uint8 through float: TensorRT casts to uint8 from floating point only."""
    nodes = []
    for node in graph.node:
        if node.op_type == 'Cast' and _target(node).i == TensorProto.UINT8:
            through = f'{node.input[0]}_as_float'
            nodes.append(helper.make_node('Cast', [node.input[0]], [through], to=FLOAT))
            node.input[0] = through
        nodes.append(node)
    _replace(graph.node, nodes)


def full_precision_nodes(graph):
    """Return indices of the nodes that stay fp32 in fp16; see the constants above."""
    producer = {name: [i] for i, node in enumerate(graph.node) for name in node.output}
    consumers = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            consumers.setdefault(name, []).append(i)
    kept = {i for i, node in enumerate(graph.node) if node.op_type in _ALWAYS_FULL}

    def spread(names, neighbors, onward):
        names, seen = list(names), set()
        while names:
            for i in neighbors(names.pop()):
                if i not in seen and graph.node[i].op_type not in _PRODUCTS:
                    seen.add(i)
                    names += onward(graph.node[i])
        return seen

    kept |= spread(_FULL_FROM, lambda name: consumers.get(name, ()), lambda node: node.output)
    # The first product sums few channels of large weights, and all that follows inherits its
    # rounding: in fp32 it halves the error of the depth, for a few hundredths of the work.
    kept |= {
        i
        for name in _reached_from('image', graph, kept)
        for i in consumers.get(name, ())
        if graph.node[i].op_type in _PRODUCTS
    }
    kept |= spread(_FULL_TO, lambda name: producer.get(name, ()), lambda node: node.input)
    return kept


def _reached_from(name, graph, nodes):
    """Return `name` and all that `nodes` (indices) make of it."""
    reached = {name}
    for i in sorted(nodes):  # ONNX keeps the nodes in an order in which they can run
        if reached.intersection(graph.node[i].input):
            reached.update(graph.node[i].output)
    return reached


def _to_half(model):
    """Convert a model in place; what stays fp32 is fed through casts, each made once."""
    graph, types = model.graph, _types(model)
    kept = full_precision_nodes(graph)
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    now = {name: kind for name, kind in types.items() if kind == FLOAT}  # float tensors' types
    casts, nodes = {}, []

    def as_type(name, kind):
        """Return the name under which a float tensor is found in the type `kind`."""
        if now[name] == kind:
            return name
        if (name, kind) not in casts:
            other = casts[name, kind] = f'{name}_fp16' if kind == HALF else f'{name}_fp32'
            if name in initializers:
                values = numpy_helper.to_array(initializers[name]).clip(-HALF_MAX, HALF_MAX)
                graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), other))
            else:
                nodes.append(helper.make_node('Cast', [name], [other], to=kind))
        return casts[name, kind]

    for i, node in enumerate(graph.node):
        kind = FLOAT if i in kept else HALF
        for j, name in enumerate(node.input):
            scales = node.op_type == 'Resize' and j in (1, 2)  # float32 by ONNX's definition
            if name in now and not scales:
                node.input[j] = as_type(name, kind)
        for name in node.output:
            if name in now:
                now[name] = kind
        if node.op_type == 'Cast' and _target(node).i == FLOAT:
            _target(node).i = kind
        nodes.append(node)
    _full_outputs(graph, nodes, now)
    _replace(graph.node, nodes)
    del graph.value_info[:]


def _full_outputs(graph, nodes, now):
    """Cast what the graph gives back to fp32 under its own name."""
    halves = {v.name: f'{v.name}_half' for v in graph.output if now.get(v.name) == HALF}
    for node in nodes:
        for names in (node.input, node.output):
            for j, name in enumerate(names):
                if name in halves:
                    names[j] = halves[name]
    for name, half in halves.items():
        nodes.append(helper.make_node('Cast', [half], [name], to=FLOAT))


def _target(cast):
    """Return the attribute with the type that a Cast casts to."""
    return next(attribute for attribute in cast.attribute if attribute.name == 'to')


def _replace(field, items):
    """Put other items into a repeated field of a protobuf message."""
    items = list(items)
    del field[:]
    field.extend(items)

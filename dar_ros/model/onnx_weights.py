"""The weights of an ONNX graph that torch exported, by the names they had in torch."""

from onnx import numpy_helper


def named_weights(graph):
    """
    {name: array} of a graph's weights.

    A linear layer's weight is stored transposed and nameless: its bias, added to the product,
    tells whose it is.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    products = {node.output[0]: node for node in graph.node if node.op_type == 'MatMul'}
    linear = {}
    for node in graph.node:
        product = [products[name] for name in node.input if name in products]
        bias = [name for name in node.input if name in weights and name.endswith('.bias')]
        if node.op_type == 'Add' and product and bias and product[0].input[1] in weights:
            key = bias[0].removesuffix('.bias') + '.weight'
            linear[key] = weights[product[0].input[1]].T
    return weights | linear

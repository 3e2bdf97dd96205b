"""
dar_edge beside Depth Anything V2 Small: same input size, same runtime, random weights.

Speed does not depend on the weights, so both are built from their configurations; nothing is
downloaded.
"""

import numpy as np

from dar_ros.benchmark import Part
from dar_ros.benchmark.timing import interleaved, median_ratio, p50_p95


def run(bench):
    """`edge_k5_over_dav2s`, `edge_k2_over_dav2s`; the encoder alone is the floor of both."""
    model, bundle = bench.edge
    peer = session(export_dav2s(bench.folder / 'dav2s.onnx', bundle.input_size), bench.threads)
    vit = session(export_backbone(model, bench.folder / 'vit_s.onnx'), bench.threads)
    from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend

    backend = OnnxRuntimeBackend(bundle, threads=bench.threads)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*bundle.input_size, 3), np.uint8)
    pixels = random.standard_normal((1, 3, *bundle.input_size), np.float32)

    def steps(count):
        backend.start(image, *bundle.depth_range)
        for _ in range(count):
            backend.step()
        return backend.finish()

    calls = {f'dar_edge, K = {k}': lambda k=k: steps(k) for k in range(1, bundle.num_steps + 1)}
    calls['dar_edge, encode alone'] = lambda: backend.start(image, *bundle.depth_range)
    calls['Depth Anything V2 Small'] = lambda: peer.run(None, {'pixels': pixels})
    calls['ViT-S/14 alone'] = lambda: vit.run(None, {'pixels': pixels})
    times = interleaved(calls, bench.rounds)
    over = {name: median_ratio(times[name], times['Depth Anything V2 Small']) for name in calls}
    part = Part()
    for k in (5, 2):
        part.values[f'edge_k{k}_over_dav2s'] = round(over[f'dar_edge, K = {k}'], 3)
    rows = [(name, *p50_p95(times[name]), over[name]) for name in calls]
    height, width = bundle.input_size
    title = f'Peers at {height}x{width}, onnxruntime fp32, {bench.threads} threads, random weights'
    part.tables.append((title, ('network', 'p50 ms', 'p95 ms', 'over the peer'), rows))
    backend.close()
    return part


def random_model(name, folder):
    """Return the DAR of a preset with random weights, and its exported bundle."""
    import torch

    from dar_ros.export import export_model
    from dar_ros.model.dar import DAR
    from dar_ros.model.presets import preset

    torch.manual_seed(0)
    model = DAR(preset(name)).eval()
    return model, export_model(model, folder)


def export_dav2s(path, size):
    """Write Depth Anything V2 Small, (1, 3, h, w) float32 -> relative depth, at an input size."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    from dar_ros.export import to_onnx

    backbone = Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        num_hidden_layers=12,
        image_size=518,
        patch_size=14,
        out_features=['stage3', 'stage6', 'stage9', 'stage12'],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_in_index=-1,
        head_hidden_size=32,
    )
    torch.manual_seed(0)

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = DepthAnythingForDepthEstimation(config)

        def forward(self, pixels):
            return self.model(pixels).predicted_depth

    return to_onnx(Graph(), (torch.zeros(1, 3, *size),), path, ['pixels'], ['depth'])


def export_backbone(model, path):
    """Write the backbone of a DAR alone, without neck and projections."""
    import torch

    from dar_ros.export import to_onnx

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = model.encoder

        def forward(self, pixels):
            return self.encoder.features(pixels)[-1]

    size = model.config.input_size
    return to_onnx(Graph(), (torch.zeros(1, 3, *size),), path, ['pixels'], ['features'])


def session(path, threads):
    """Open a graph with the options that our own backend uses."""
    import onnxruntime

    from dar_ros.backends.onnxruntime_backend import session_options

    return onnxruntime.InferenceSession(
        str(path), session_options(threads), providers=['CPUExecutionProvider']
    )

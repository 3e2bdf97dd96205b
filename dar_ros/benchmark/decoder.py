"""
Cached steps against recomputing the whole prefix under the causal mask at every step.

The decoder is what lies between encode and upsample: embedding, transformer, bins injection,
heads. Both sides have the same weights and run in onnxruntime. The cached side is step.onnx as it
is deployed, with dynamic shapes; the other side is a graph of its own for every step, with fixed
shapes. So nothing but the cache can make the cached side faster.
"""

import numpy as np

from dar_ros.backends.base import HANDED_ON
from dar_ros.benchmark import Part
from dar_ros.benchmark.peers import session
from dar_ros.benchmark.timing import interleaved, median_ratio, p50_p95
from dar_ros.errors import DarError

ALLOWED = 1.15  # times the ratio of the FLOPs
TOLERANCE, SHARE = 1e-3, 0.999  # relative depth, as the export's parity check
RECOMPUTE_INPUTS = ('prefix', 'latent', 'low', 'high', 'memory_keys', 'memory_values', 'detail')


class DisagreementError(DarError):
    """Two ways to compute the same depth do not agree."""


def run(bench):
    """`decoder_cached_over_recompute`: time over time, beside FLOPs over FLOPs."""
    import torch

    from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
    from dar_ros.model.reference import reference_run

    model, bundle = bench.edge
    with torch.no_grad():
        reference = reference_run(model)
        modules = [_recompute_graph(model, k) for k in range(bundle.num_steps)]
        arguments = _recompute_arguments(model, reference, modules)
        flops = _flops(model, reference, modules, arguments)
    backend = OnnxRuntimeBackend(bundle, threads=bench.threads)
    calls = {
        'cached': _cached(backend, model, reference),
        'recomputed': _recomputed(bench, modules, arguments),
    }
    _compare(calls['cached'](), calls['recomputed'](), bundle.bin_space)
    times = interleaved(calls, bench.rounds)
    backend.close()
    return _part(bench, times, *flops)


def _cached(backend, model, reference):
    """Return what takes all steps of the reference on step.onnx; it returns their depths."""
    from dar_ros.model.export_graphs import STEP_INPUTS
    from dar_ros.model.reference import step_inputs

    # Of every step what does not come from the one before: the first step's state, sizes, image.
    given = [
        {
            name: tensor.numpy()
            for name, tensor in zip(STEP_INPUTS, step_inputs(model, reference, k))
        }
        for k in range(model.config.num_steps)
    ]

    def cached():
        state, depths = {}, []
        for feeds in given:
            found = backend.run_step({**feeds, **state})
            state = {name: found[output] for name, output in HANDED_ON.items()}
            depths.append(found['depth'])
        return depths

    return cached


def _recomputed(bench, modules, arguments):
    """Return the same, on a graph of its own for every step."""
    from dar_ros.export import to_onnx

    outputs = ('next_latent', 'next_low', 'next_high', 'tokens', 'depth')
    sessions = []
    for k, (module, given) in enumerate(zip(modules, arguments)):
        path = bench.folder / f'recompute_{k}.onnx'
        to_onnx(module, given, path, RECOMPUTE_INPUTS, outputs)
        sessions.append(session(path, bench.threads))
    start = {name: tensor.numpy() for name, tensor in zip(RECOMPUTE_INPUTS, arguments[0])}

    def recomputed():
        feeds, depths = dict(start), []
        for opened in sessions:
            known = {i.name for i in opened.get_inputs()}
            found = opened.run(None, {n: v for n, v in feeds.items() if n in known})
            feeds.update(zip(('latent', 'low', 'high', 'prefix'), found))
            depths.append(found[4])
        return depths

    return recomputed


def _part(bench, times, cached_flops, full_flops):
    """Return the Part of the times and FLOPs of both."""
    bundle = bench.edge[1]
    ratio, flops = median_ratio(times['cached'], times['recomputed']), cached_flops / full_flops
    part = Part()
    part.values['decoder_cached_over_recompute'] = round(ratio, 3)
    part.limits['decoder_cached_over_recompute'] = round(ALLOWED * flops, 3)
    part.tables.append(
        (
            f'Decoder of {bundle.name}, all {bundle.num_steps} steps, onnxruntime, '
            f'{bench.threads} threads',
            ('', 'p50 ms', 'p95 ms', 'GFLOP'),
            [
                ('cached steps', *p50_p95(times['cached']), cached_flops / 1e9),
                ('masked full prefix', *p50_p95(times['recomputed']), full_flops / 1e9),
                ('ratio', ratio, '', flops),
            ],
        )
    )
    part.notes.append('The depths of both agree at every step as the export demands.')
    return part


def _recompute_graph(model, k):
    """Return step k (from 0) as a module that computes the tokens of steps 0..k anew."""
    import torch

    from dar_ros.model.dar import EncodedImage, StepState
    from dar_ros.model.transformer import KeyValues, patchwise_causal_mask

    grids, depth_grids = model.config.grid_sizes(), model.config.depth_grid_sizes()
    lengths = [rows * columns for rows, columns in grids[: k + 1]]

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model
            self.register_buffer('mask', patchwise_causal_mask(lengths))

        def forward(self, prefix, latent, low, high, memory_keys, memory_values, detail):
            memory = KeyValues(memory_keys, memory_values)
            y = model.tokens(latent, grids[k], torch.tensor([k]))
            tokens = torch.cat([prefix, y], 1) if k else y  # (1, L, C)
            out, cache = model.transformer(
                tokens, model.transformer.empty_cache(memory), memory, self.mask
            )
            state, output = model.decode(
                out[:, -lengths[-1] :],
                StepState(latent, low, high, cache),
                cache,
                EncodedImage(memory, detail, None, None),
                grids[k],
                depth_grids[k],
            )
            return state.latent, state.low, state.high, tokens, output.depth

    return Graph().eval()


def _recompute_arguments(model, reference, modules):
    """Return what every module takes, by running one after the other."""
    import torch

    encoded, state = reference['encoded'], reference['states'][0]
    given = (
        torch.zeros(1, 0, model.config.width),
        state.latent,
        state.low.contiguous(),
        state.high.contiguous(),
    )
    fixed = (*encoded.memory, encoded.detail)
    arguments = []
    for module in modules:
        arguments.append((*given, *fixed))
        latent, low, high, tokens, _ = module(*arguments[-1])
        given = (tokens, latent, low, high)
    return arguments


def _flops(model, reference, modules, arguments):
    """FLOPs of all steps, cached and recomputed: torch counts products and convolutions."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from dar_ros.model.export_graphs import StepGraph
    from dar_ros.model.reference import step_inputs

    def count(run):
        # The plain attention: its products are counted, a fused kernel's may not be.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops()

    step, steps = StepGraph(model), range(model.config.num_steps)
    return (
        count(lambda: [step(*step_inputs(model, reference, k)) for k in steps]),
        count(lambda: [module(*given) for module, given in zip(modules, arguments)]),
    )


def _compare(cached, recomputed, bin_space):
    for k, (found, expected) in enumerate(zip(cached, recomputed)):
        if bin_space == 'log':
            found, expected = np.exp(found), np.exp(expected)
        share = (np.abs(found - expected) <= TOLERANCE * np.abs(expected)).mean()
        if share < SHARE:
            raise DisagreementError(
                f'step {k + 1}: cached and recomputed depth agree on {share:.2%} of the pixels'
            )

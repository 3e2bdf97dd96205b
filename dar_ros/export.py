"""
Checkpoint -> model bundle, with a parity check that fails the export.

Three graphs, opset 18: encoder.onnx once an image; step.onnx once a step, dynamic in grid and
prefix length, so that its weights exist once; upsample.onnx once an image, after the last step
taken, so that no intermediate step pays for full resolution.
"""

import copy
import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.export import Dim

from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.bundle import GRAPHS, Bundle, open_bundle, write_manifest
from dar_ros.errors import DarError
from dar_ros.manifest import describe
from dar_ros.model.checkpoint import load_checkpoint
from dar_ros.model.export_graphs import (
    ENCODER_OUTPUTS,
    STEP_INPUTS,
    STEP_OUTPUTS,
    UPSAMPLE_INPUTS,
    UPSAMPLE_OUTPUTS,
    EncoderGraph,
    StepGraph,
    UpsampleGraph,
)
from dar_ros.model.from_bundle import PREFIX, norm_scale, norms_after_convolutions, unfolded_keys
from dar_ros.model.mtbin import from_bin_space
from dar_ros.model.onnx_weights import named_weights
from dar_ros.model.reference import reference_arrays, reference_run, step_inputs
from dar_ros.model.resized import resized
from dar_ros.preprocess import ResizeSpec

OPSET = 18
WEIGHT_BITS = 11  # of a weight's mantissa that are kept: as many as fp16 has
GIVEN_RANGE_TOLERANCE = 1e-4  # relative depth, windows given from torch
FREE_TOLERANCE, FREE_SHARE = 1e-3, 0.999  # free-running
FREE_SCALE_TOLERANCE = 1e-2  # relative uncertainty, free-running
FILE_LIMIT = 2**31  # bytes of an ONNX file


class ExportError(DarError):
    """The exported graphs do not say what torch says."""


def export(checkpoint, out, input_size=None, encoder=None):
    """
    Write the bundle of a checkpoint folder to `out`; ExportError if onnxruntime disagrees with
    torch. `encoder` is the backbone's file, of a checkpoint that comes without.
    """
    model, record = load_checkpoint(checkpoint, encoder)
    size = model.config.input_size
    if input_size and tuple(input_size) != size:
        model = resized(model, input_size)
        if 'row_medians' in record:
            old = np.array(record['row_medians'])
            spec = ResizeSpec.fit(size, input_size)
            rows = (np.arange(input_size[0]) + 0.5 - spec.top) / spec.scale - 0.5
            # Twice the pixels, twice the focal length: half the canonical depth.
            old = old / spec.scale
            record['row_medians'] = np.interp(rows, np.arange(len(old)), old).tolist()
    return export_model(model, out, record)


@torch.no_grad()
def export_model(model, out, record=None):
    """
    Write the bundle of a model; `record` is what training left in the checkpoint.

    The weights are rounded to what fp16 resolves: a bundle then packs to two thirds of its
    size.
    """
    model, out = model.eval(), Path(out)
    _require_small_graphs(model)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = with_rounded_weights(model)
        reference = reference_run(model)
        _export_graphs(model, folder, reference)
        _add_what_was_folded(model, folder)
        np.savez_compressed(folder / 'reference.npz', **reference_arrays(reference))
        write_manifest(folder, describe(model, record or {}))
        check_parity(model, folder, reference)
        out.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            shutil.copyfile(file, out / file.name)
    return open_bundle(out)


@torch.no_grad()
def with_rounded_weights(model):
    """
    Return a copy whose matrices and kernels are rounded to WEIGHT_BITS bits.

    A kernel before a batch norm is rounded as the exporter will fold it.
    """
    model = copy.deepcopy(model)
    norms = norms_after_convolutions(model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            norm = norms.get(name.removesuffix('.weight'))
            scale = norm_scale(model.get_submodule(norm)) if norm else torch.ones(())
            scale = torch.where(scale == 0, 1, scale).view(-1, *[1] * (parameter.dim() - 1))
            parameter.copy_(_rounded(parameter * scale) / scale)
    return model


def _rounded(values):
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2**WEIGHT_BITS) / 2**WEIGHT_BITS, exponent)


def _require_small_graphs(model):
    """ExportError for a network of which a graph would not fit into one ONNX file."""
    whole, encoder = (
        sum(4 * tensor.numel() for tensor in part.parameters()) for part in (model, model.encoder)
    )
    for name, size in (('encoder', encoder), ('step', whole - encoder)):
        if size >= FILE_LIMIT:
            raise ExportError(
                f'{model.config.name} has {size / 2**30:.1f} GiB of weights in {name}.onnx, and '
                'an ONNX file ends at 2: it is served from its checkpoint, by torch'
            )


def _round_folded(path):
    """Round a graph's kernels again: a folded batch norm left them off by a float's last bit."""
    graph = onnx.load(path)
    for tensor in graph.graph.initializer:
        if tensor.name.endswith('.weight') and len(tensor.dims) > 1:
            values = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(_rounded(values).numpy(), tensor.name))
    onnx.save(graph, path)


def _add_what_was_folded(model, folder):
    """
    Add to encoder.onnx, as initializers that nothing uses, the weights that the graphs lack.

    The exporter computes what depends on weights alone, as a ViT's class token or positions at
    another size, and of equal weights it keeps one. A bundle is to hold all of its network.
    """
    held = set()
    for graph in GRAPHS:
        held |= named_weights(onnx.load(folder / f'{graph}.onnx').graph).keys()
    encoder, state = onnx.load(folder / 'encoder.onnx'), model.state_dict()
    for key in unfolded_keys(model):
        if PREFIX + key not in held:
            tensor = numpy_helper.from_array(state[key].numpy(), PREFIX + key)
            encoder.graph.initializer.append(tensor)
    onnx.save(encoder, folder / 'encoder.onnx')


def _export_graphs(model, folder, reference):
    to_onnx(
        EncoderGraph(model),
        (reference['image'],),
        folder / 'encoder.onnx',
        ('image',),
        ENCODER_OUTPUTS,
    )
    k = min(2, model.config.num_steps - 1)
    rows, columns = Dim('rows'), Dim('columns')
    prior = {2: rows, 3: columns}
    prefix = {3: Dim('prefix')}
    dynamic = dict.fromkeys(STEP_INPUTS)
    dynamic.update(
        latent=prior,
        low=prior,
        high=prior,
        token_grid={0: Dim('token_rows'), 1: Dim('token_columns')},
        depth_grid={0: Dim('depth_rows'), 1: Dim('depth_columns')},
        past_keys=prefix,
        past_values=prefix,
    )
    to_onnx(
        StepGraph(model),
        step_inputs(model, reference, k),
        folder / 'step.onnx',
        STEP_INPUTS,
        STEP_OUTPUTS,
        dynamic,
    )
    output = reference['outputs'][k]
    grid = {2: rows, 3: columns}
    dynamic = {'depth': grid, 'range_logits': grid, 'log_scale': grid, 'upsample_mask': None}
    to_onnx(
        UpsampleGraph(model),
        (output.depth, output.range_logits, output.log_scale, reference['encoded'].upsample_mask),
        folder / 'upsample.onnx',
        UPSAMPLE_INPUTS,
        UPSAMPLE_OUTPUTS,
        dynamic,
    )
    for graph in GRAPHS:
        _round_folded(folder / f'{graph}.onnx')


def to_onnx(module, arguments, path, inputs, outputs, dynamic_shapes=None):
    """Write a module as an ONNX graph with names for its inputs and outputs; returns the path."""
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            module.eval(),
            arguments,
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
            external_data=False,
            verbose=False,
        )
    return path


def check_parity(model, folder, reference):
    """
    Run the bundle in onnxruntime against torch; ExportError if they differ.

    With the windows given from torch every step's depth agrees within 1e-4; free-running, where a
    window may tip over at a bin's edge, 99.9 % of the pixels agree within 1e-3.
    """
    manifest = json.loads((folder / 'model.json').read_text())
    backend = OnnxRuntimeBackend(Bundle(folder, manifest))
    space = model.config.bin_space
    for k, output in enumerate(reference['outputs']):
        given = {
            name: tensor.numpy()
            for name, tensor in zip(STEP_INPUTS, step_inputs(model, reference, k))
        }
        found = backend.run_step(given)['depth']
        error = _relative(
            from_bin_space(torch.from_numpy(found), space), from_bin_space(output.depth, space)
        )
        if error.max() > GIVEN_RANGE_TOLERANCE:
            raise ExportError(
                f'step {k + 1} of step.onnx differs from torch by {error.max():.1e} (limit '
                f'{GIVEN_RANGE_TOLERANCE:.0e})'
            )
    backend.start(
        reference['image'][0].numpy(), float(reference['depth_min']), float(reference['depth_max'])
    )
    for k, depth in enumerate(reference['depth']):
        backend.step()
        found = backend.finish()
        agree = _relative(torch.from_numpy(found.depth), depth) <= FREE_TOLERANCE
        agree &= torch.from_numpy(found.range_class) == reference['range_class'][k]
        scale = reference['scale'][k]
        agree &= _relative(torch.from_numpy(found.scale), scale) <= FREE_SCALE_TOLERANCE
        share = agree.float().mean()
        if share < FREE_SHARE:
            raise ExportError(
                f'step {k + 1}, free-running: only {share:.2%} of the pixels agree with torch'
            )


def _relative(found, expected):
    return (found - expected).abs() / expected

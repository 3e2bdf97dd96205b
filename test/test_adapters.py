"""Adapters behind a ViT's blocks: what they add, what they leave alone, their way to a bundle."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed (extra: train)')
torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
timm = pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from run_model import depth_by, depth_by_torch, picture
from safetensors.torch import save_file

from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.errors import UsageError
from dar_ros.export import export_model, with_rounded_weights
from dar_ros.model.checkpoint import load_checkpoint, save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.dinov2 import load_encoder_file
from dar_ros.model.presets import PRESETS
from dar_ros.training.publish import main as publish
from dar_ros.training.sources import freeze, trained_model

CONFIG = replace(
    PRESETS['dar_edge'],
    input_size=(56, 112),
    width=32,
    heads=2,
    latent_width=16,
    memory_width=32,
    adapter_width=8,
)


def trained():
    """Return a DAR in which nothing is zero that training changes."""
    torch.manual_seed(0)
    model = DAR(CONFIG).eval()
    with torch.no_grad():
        for adapter in model.encoder.adapters:
            adapter.up.weight.normal_(std=0.3)
        for parameter in model.parameters():  # of equal ones the exporter keeps one
            parameter += 0.01 * torch.randn_like(parameter) if parameter.dim() == 1 else 0
    return model


@torch.inference_mode()
def memory(model):
    """Return what the steps of `model` attend to in `picture`."""
    return model.encoder(picture())[0]


def test_they_change_nothing_until_trained():
    """So that they can join a trained network; the ViT's names stay those of its file."""
    torch.manual_seed(0)
    plain, joined = DAR(replace(CONFIG, adapter_width=0)).eval(), DAR(CONFIG).eval()
    missing, unexpected = joined.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all(key.startswith('encoder.adapters.') for key in missing)
    ours, theirs = (model.encoder.backbone.state_dict() for model in (joined, plain))
    assert ours.keys() == theirs.keys()
    assert torch.equal(memory(joined), memory(plain))


@torch.no_grad()
def test_every_block_has_its_own():
    model = trained()
    assert len(model.encoder.adapters) == len(model.encoder.backbone.blocks) == 12
    found = memory(model)
    for adapter in model.encoder.adapters:
        kept = adapter.up.weight.clone()
        adapter.up.weight.zero_()
        assert (memory(model) - found).abs().mean() > 1e-3
        adapter.up.weight.copy_(kept)
    assert torch.equal(memory(model), found)


@torch.no_grad()
def test_a_copy_has_adapters_of_its_own():
    """As a run's average is one."""
    model = trained()
    found, other = memory(model), copy.deepcopy(model)
    for adapter in model.encoder.adapters:
        adapter.up.weight.zero_()
        adapter.up.bias.zero_()
    assert torch.equal(memory(other), found) and not torch.equal(memory(model), found)


def test_they_train_behind_a_frozen_vit():
    model = freeze(trained(), ['encoder.backbone'])
    model.encoder(picture())[0].square().mean().backward()
    for name, parameter in model.encoder.named_parameters():
        if name.startswith('adapters.'):
            assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.encoder.backbone.parameters())


def test_they_are_published_without_the_vit(tmp_path, monkeypatch):
    """And come back, rounded to fp16, beside the ViT's own file."""
    model, file = trained(), tmp_path / 'vit.pth'
    torch.save(timm.create_model(CONFIG.backbone, img_size=518, num_classes=0).state_dict(), file)
    load_encoder_file(model, file)
    record = {'training': {'freeze': ['encoder.backbone'], 'init': str(file)}}
    save_checkpoint(tmp_path / 'run', model, record)
    (tmp_path / 'apart').mkdir()
    (tmp_path / 'apart' / 'thesis.tex').touch()
    with pytest.raises(SystemExit):
        publish([str(tmp_path / 'run'), '--source', 'a file', '--out', str(tmp_path / 'apart')])
    assert (tmp_path / 'apart' / 'thesis.tex').exists()
    # Of the checkpoint that lay there before nothing is read.
    (tmp_path / 'apart' / 'config.json').touch()
    save_file({'of_another': torch.zeros(1)}, tmp_path / 'apart' / 'model-1.safetensors')
    publish([str(tmp_path / 'run'), '--source', 'a file', '--out', str(tmp_path / 'apart')])
    assert json.loads((tmp_path / 'apart' / 'config.json').read_text())['backbone_weights']
    found, _ = load_checkpoint(tmp_path / 'apart', file)
    wanted = memory(with_rounded_weights(model))
    assert (memory(found) - wanted).abs().mean() < 0.01
    model.encoder.adapters[5].up.weight.data.zero_()
    assert (memory(found) - memory(model)).abs().mean() > 0.02


def test_their_bundle_computes_the_same_and_goes_on(tmp_path):
    model = with_rounded_weights(trained())
    bundle = export_model(model, tmp_path / 'bundle', {'training': {'model': CONFIG.to_dict()}})
    wanted = depth_by_torch(model, picture())
    found = depth_by(OnnxRuntimeBackend(bundle), picture())
    assert np.isclose(found, wanted, rtol=1e-3).mean() > 0.999
    again, state = trained_model(bundle.path).state_dict(), model.state_dict()
    adapters = [key for key in state if key.startswith('encoder.adapters.')]
    assert len(adapters) == 12 * 6
    for key in adapters:
        assert torch.equal(again[key], state[key]), key


def test_a_cnn_has_no_blocks_for_them():
    with pytest.raises(UsageError, match='adapter_width: tf_efficientnet_lite0 is no ViT'):
        replace(PRESETS['dar_tiny'], adapter_width=8)

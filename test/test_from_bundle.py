"""A bundle as a torch model: the same depth, and training that goes on from it."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')
pytest.importorskip('onnx', reason='onnx is not installed (extra: train)')

from dar_ros.errors import UsageError
from dar_ros.export import export_model
from dar_ros.model.dar import DAR
from dar_ros.model.from_bundle import config_of_bundle, load_bundle_weights, model_from_bundle
from dar_ros.model.mtbin import from_bin_space
from dar_ros.model.pretrained import load_imagenet_encoder
from dar_ros.model.resized import resized

TOLERANCE = 1e-4 + 2**-11  # the latter is what fp16 in reference.npz rounds


@torch.no_grad()
def reference_depth(model, bundle):
    arrays = {name: torch.from_numpy(a) for name, a in bundle.reference().items()}
    outputs, encoded = model(arrays['image'], arrays['depth_min'], arrays['depth_max'])
    for output in outputs:
        fine = model.upsample(output, encoded.upsample_mask)
        yield from_bin_space(fine.depth, model.config.bin_space)[0, 0].numpy()


def test_a_model_of_the_bundle_computes_what_the_bundle_computes(bundle):
    model = model_from_bundle(bundle)
    for found, expected in zip(reference_depth(model, bundle), bundle.reference()['depth']):
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@torch.no_grad()
def test_the_steps_get_more_than_signs(bundle):
    image = torch.from_numpy(bundle.reference()['image'])
    encoded = model_from_bundle(bundle).encode(image)
    assert (encoded.detail.abs() > 4).float().mean() < 0.05  # tanh(4) is 0.999
    assert (encoded.start.abs() > 0.999).float().mean() < 0.05


def test_the_norms_that_a_model_has_change_nothing(bundle):
    model = DAR(config_of_bundle(bundle))
    load_imagenet_encoder(model)
    before = model.encoder.backbone.bn1.running_var.clone()
    load_bundle_weights(model, bundle).eval()
    assert torch.equal(model.encoder.backbone.bn1.running_var, before)
    assert (before - 1).abs().max() > 0.1  # not the identity that a new model has
    for found, expected in zip(reference_depth(model, bundle), bundle.reference()['depth']):
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE)


@pytest.mark.parametrize('changes', [{'layers': 3}, {'width': 64}], ids=['more', 'narrower'])
def test_another_network_is_refused(bundle, changes):
    with pytest.raises(UsageError, match='another network'):
        load_bundle_weights(DAR(replace(config_of_bundle(bundle), **changes)), bundle)


def test_a_bundle_of_another_size_holds_all_of_its_weights(bundle, tmp_path):
    """Small enough, resized positions are folded by the exporter: they are kept beside."""
    model = resized(model_from_bundle(bundle), (96, 128))
    other = export_model(model, tmp_path / 'other', dict(bundle.provenance))
    found = model_from_bundle(other)
    assert found.config.input_size == (96, 128)
    for depth, expected in zip(reference_depth(found, other), other.reference()['depth']):
        np.testing.assert_allclose(depth, expected, rtol=TOLERANCE)

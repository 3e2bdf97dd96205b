"""Losses by hand, and compiled."""

import math
import shutil

import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.errors import UsageError
from dar_ros.model.dar import DAR, Upsampled
from dar_ros.model.presets import preset
from dar_ros.training.losses import (
    LossConfig,
    LossModule,
    range_classes,
    silog,
    step_losses,
    total_loss,
)


def test_silog_by_hand():
    error = torch.tensor([1.0, 3.0, 99.0]).view(1, 1, 1, 3)
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    expected = 10 * math.sqrt(5 - 0.85 * 4 + 1e-6)
    assert silog(error, valid, 10, 0.85) == pytest.approx(expected)
    assert silog(error, torch.zeros_like(valid), 10, 0.85) == 0


def test_the_mean_of_the_error_adds_to_the_depth_loss():
    depth = torch.tensor([2.0, 4.0, math.nan]).view(1, 1, 1, 3)
    predicted = torch.log(torch.tensor([1.0, 1.0, 9.0])).view(1, 1, 1, 3)
    fine = Upsampled(predicted, torch.zeros(1, 3, 1, 3), torch.zeros(1, 1, 1, 3))
    ranges = torch.tensor([0.1]), torch.tensor([10.0])
    losses = [
        step_losses(fine, depth, *ranges, 'log', LossConfig(l1_weight=weight))['depth']
        for weight in (0.0, 2.0)
    ]
    assert losses[1] - losses[0] == pytest.approx(2 * (math.log(2) + math.log(4)) / 2)


def test_silog_is_a_mean_over_images():
    """
    Two images in one batch cost the mean of what each costs: the batch may be cut over processes.
    """
    error, valid = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4) > 0.3
    alone = [silog(error[i : i + 1], valid[i : i + 1], 10, 0.5) for i in range(2)]
    assert silog(error, valid, 10, 0.5) == pytest.approx(sum(alone) / 2)


@pytest.mark.skipif(shutil.which('g++') is None, reason='g++ is not installed')
def test_compiled_losses_are_the_same():
    """Values and gradients, at one input size; the network itself is not compiled."""
    torch.manual_seed(0)
    model = DAR(preset('dar_tiny'))
    image = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    depth = torch.rand(2, 1, 64, 96) * 30
    depth[:, :, :8] = float('nan')
    ranges = torch.tensor([0.3, 0.5]), torch.tensor([10.0, 20.0])
    found = []
    for compiled in (False, True):
        losses = LossModule(model, LossConfig(l1_weight=1.0, compile=compiled)).eval()
        model.zero_grad()
        loss, last = losses(image, depth, *ranges)
        loss.backward()
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        found.append(torch.stack([loss.detach(), *(v.detach() for v in last.values()), *norms]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_compiling_without_a_compiler_is_one_line(monkeypatch):
    monkeypatch.setenv('CXX', '/nowhere/g++')
    with pytest.raises(UsageError, match='apt-get install g'):
        LossModule(DAR(preset('dar_tiny')), LossConfig(compile=True))


def test_range_classes():
    depth = torch.tensor([0.05, 1.0, 30.0, math.inf, math.nan]).view(1, 1, 1, 5)
    assert range_classes(depth, torch.tensor([0.1]), torch.tensor([10.0])).flatten().tolist() == [
        0,
        1,
        2,
        2,
        255,
    ]


def test_unknown_and_out_of_range_pixels_have_no_depth_loss():
    depth = torch.tensor([2.0, math.inf, math.nan, 50.0]).view(1, 1, 1, 4)
    predicted = torch.zeros(1, 1, 1, 4, requires_grad=True)
    fine = Upsampled(
        predicted, torch.zeros(1, 3, 1, 4, requires_grad=True), torch.zeros(1, 1, 1, 4)
    )
    terms = step_losses(
        fine, depth, torch.tensor([0.1]), torch.tensor([10.0]), 'log', LossConfig()
    )
    total_loss([terms], LossConfig()).backward()
    assert predicted.grad.flatten().ne(0).tolist() == [True, False, False, False]
    assert fine.range_logits.grad.abs().sum(1).flatten().ne(0).tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_uncertainty_moves_nothing_but_itself():
    depth = torch.full((1, 1, 2, 2), 2.0)
    predicted, log_scale = (torch.zeros(1, 1, 2, 2, requires_grad=True) for _ in range(2))
    fine = Upsampled(predicted, torch.zeros(1, 3, 2, 2), log_scale)
    step_losses(fine, depth, torch.tensor([0.1]), torch.tensor([10.0]), 'log', LossConfig())[
        'scale'
    ].backward()
    assert predicted.grad is None and log_scale.grad.ne(0).all()


def test_uncertainty_and_the_total_by_hand():
    """|g| / b + log b, in either bin space; every term and step by its own weight."""
    depth, zero = torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2)
    ranges = torch.tensor([0.1]), torch.tensor([10.0])
    for space, predicted in (('log', zero), ('linear', zero + 1)):
        fine = Upsampled(predicted, torch.zeros(1, 3, 2, 2), zero + math.log(0.25))
        terms = step_losses(fine, depth, *ranges, space, LossConfig())
        assert terms['scale'] == pytest.approx(math.log(2) / 0.25 + math.log(0.25))
    config = LossConfig(class_weight=3.0, scale_weight=5.0, step_weights=(1.0, 10.0))
    steps = [{'depth': 1.0, 'range': 2.0, 'scale': 4.0}, {'depth': 7.0, 'range': 0, 'scale': 0}]
    assert total_loss(steps, config) == pytest.approx(1 + 3 * 2 + 5 * 4 + 10 * 7)

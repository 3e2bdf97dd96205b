"""The network: caching, causality, windows, injection, gradients, camera scale."""

from dataclasses import replace

import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
timm = pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.errors import UsageError
from dar_ros.model import mtbin
from dar_ros.model.dar import DAR, convex_upsample
from dar_ros.model.encoder import NeckBlock
from dar_ros.model.presets import PRESETS, preset
from dar_ros.model.transformer import KeyValues, patchwise_causal_mask

SMALL = replace(
    PRESETS['dar_tiny'], input_size=(64, 96), width=32, heads=2, latent_width=16, memory_width=32
)


def build(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return DAR(config).eval()


def inputs(config=SMALL, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(
        0, 256, (batch, *config.input_size, 3), dtype=torch.uint8, generator=generator
    )
    return image, torch.full((batch,), 0.1), torch.full((batch,), 20.0)


def run(model, image, low, high):
    """All steps; returns outputs, and per step the tokens that went in and came out."""
    encoded = model.encode(image)
    state = model.initial_state(encoded, low, high)
    trace = []
    for k, (grid, depth_grid) in enumerate(
        zip(model.config.grid_sizes(), model.config.depth_grid_sizes())
    ):
        index = torch.tensor([k])
        y = model.tokens(state.latent, grid, index)
        out, cache = model.transformer(y, state.cache, encoded.memory)
        before = state
        state, output = model.decode(out, state, cache, encoded, grid, depth_grid)
        trace.append((y, out, before, output))
    return encoded, trace


@torch.inference_mode()
def test_cached_steps_equal_one_masked_pass():
    model = build()
    encoded, trace = run(model, *inputs())
    y = torch.cat([item[0] for item in trace], 1)
    mask = patchwise_causal_mask([item[0].shape[1] for item in trace])
    masked, _ = model.transformer(
        y, model.transformer.empty_cache(encoded.memory), encoded.memory, mask
    )
    cached = torch.cat([item[1] for item in trace], 1)
    assert torch.allclose(masked, cached, atol=1e-5)
    unmasked, _ = model.transformer(
        y, model.transformer.empty_cache(encoded.memory), encoded.memory
    )
    assert not torch.allclose(unmasked, cached, atol=1e-3)


def test_mask_is_blockwise():
    mask = patchwise_causal_mask([1, 2])
    assert mask.tolist() == [[True, False, False], [True, True, True], [True, True, True]]


@torch.inference_mode()
def test_training_takes_the_steps_that_are_served():
    model = build()
    outputs, _ = model(*inputs())
    _, trace = run(model, *inputs())
    assert len(outputs) == len(trace) == SMALL.num_steps
    assert all(torch.equal(a.depth, b.depth) for a, (*_, b) in zip(outputs, trace))


@torch.inference_mode()
def test_candidates_come_from_the_previous_choice():
    """Every pixel's window is the hull of its neighbours' windows, and it narrows somewhere."""
    model = build()
    _, trace = run(model, *inputs())
    widths = []
    for (_, _, before, output), (_, _, after, _) in zip(trace, trace[1:]):
        low, high = mtbin.hull(before.low, before.high, output.depth.shape[-2:])
        assert ((output.depth >= low) & (output.depth <= high)).all()
        widths.append((high - low).mean())
        low, high = mtbin.narrow(
            low, high, output.depth, model.config.num_bins, model.config.window_neighbors
        )
        assert torch.equal(low, after.low) and torch.equal(high, after.high)
    assert all(later < earlier for earlier, later in zip(widths, widths[1:]))


@pytest.mark.parametrize('bin_space', ['linear', 'log'])
@pytest.mark.parametrize('neighbors', [1, 2])
def test_window_is_the_papers(bin_space, neighbors):
    """
    Against edges written out: [b^max(t-m,1), b^min(t+m+1,N+1)] for every bin, both borders
    included.
    """
    num_bins, low, high = 8, 0.1, 10.0
    edges = mtbin.to_bin_space(torch.tensor([low, high]), bin_space)
    edges = torch.linspace(edges[0], edges[1], num_bins + 1)
    for t in range(1, num_bins + 1):
        u = (edges[t - 1] + edges[t]) / 2
        new_low, new_high = mtbin.narrow(edges[0], edges[-1], u, num_bins, neighbors)
        assert new_low == pytest.approx(edges[max(t - neighbors, 1) - 1].item(), abs=1e-5)
        assert new_high == pytest.approx(
            edges[min(t + neighbors + 1, num_bins + 1) - 1].item(), abs=1e-5
        )
        assert new_low <= u <= new_high
    top_low, top_high = mtbin.narrow(edges[0], edges[-1], edges[-1], num_bins, neighbors)
    assert top_high == pytest.approx(edges[-1].item()) and top_low < edges[-2]


def test_top_bin_is_reachable_at_every_step():
    low, high = torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 4, 4), 10.0)
    for _ in range(5):
        probs = torch.zeros(1, 16, 4, 4)
        probs[:, -1] = 1
        depth = mtbin.expected_value(low, high, probs)
        low, high = mtbin.narrow(low, high, depth, 16)
        assert torch.allclose(high, torch.tensor(10.0))


def test_expected_value_is_the_sum_over_centers():
    low, high = torch.full((1, 1, 2, 2), 1.0), torch.full((1, 1, 2, 2), 9.0)
    probs = torch.softmax(torch.randn(1, 8, 2, 2), 1)
    centers = torch.tensor([1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5]).view(1, -1, 1, 1)
    assert torch.allclose(
        mtbin.expected_value(low, high, probs), (centers * probs).sum(1, keepdim=True)
    )


def test_hull_holds_both_sides_of_an_edge():
    low = torch.ones(1, 1, 4, 4)
    high = low + 1
    low[..., 2:], high[..., 2:] = 8, 9
    fine_low, fine_high = mtbin.hull(low, high, (8, 8))
    assert fine_low[0, 0, 0].tolist() == [1, 1, 1, 1, 1, 1, 8, 8]
    assert fine_high[0, 0, 0].tolist() == [2, 2, 9, 9, 9, 9, 9, 9]


@torch.inference_mode()
def test_features_of_any_scale_reach_the_steps_unsaturated():
    model = build()
    for lateral in (*model.encoder.laterals, model.encoder.detail_lateral):
        lateral.weight *= 100
    encoded = model.encode(inputs()[0])
    assert (encoded.detail.abs() > 4).float().mean() < 0.01  # tanh(4) is 0.999
    assert (encoded.start.abs() > 0.999).float().mean() < 0.01
    assert encoded.detail.std() > 0.3


@torch.inference_mode()
def test_candidates_change_the_output_of_their_step():
    model = build()
    encoded, trace = run(model, *inputs())
    y, out, before, output = trace[2]
    other = before._replace(low=before.low - 0.5, high=before.high + 0.5)
    cache = KeyValues(*before.cache)
    sizes = model.config.grid_sizes()[2], model.config.depth_grid_sizes()[2]
    _, changed = model.decode(out, other, cache, encoded, *sizes)
    assert not torch.allclose(changed.range_logits, output.range_logits, atol=1e-4)


@torch.inference_mode()
def test_the_next_step_sees_what_the_injection_made():
    """r_k, the injection's output, is fed back, and not the transformer's."""
    model = build()
    encoded, trace = run(model, *inputs())
    _, out, before, _ = trace[1]
    sizes = model.config.grid_sizes()[1], model.config.depth_grid_sizes()[1]
    state, _ = model.decode(out, before, before.cache, encoded, *sizes)
    for parameter in model.injection.parameters():
        parameter += 0.1
    changed, output = model.decode(out, before, before.cache, encoded, *sizes)
    assert not torch.allclose(changed.latent, state.latent, atol=1e-3)
    assert torch.equal(model.range_head(changed.latent).float(), output.range_logits)


def test_nothing_depends_on_a_later_step():
    """The gradient of step k's depth with respect to the embedding of a later step is zero."""
    model = build()
    outputs, _ = model(*inputs())
    (gradient,) = torch.autograd.grad(outputs[2].depth.sum(), model.step_embedding)
    assert (gradient[:3].abs().sum(1) > 0).all() and (gradient[3:] == 0).all()


@pytest.mark.parametrize('name', ['dar_tiny', 'dar_edge'])
def test_every_parameter_gets_a_gradient(name):
    config = replace(
        PRESETS[name], input_size=(56, 112) if 'vit' in PRESETS[name].backbone else (64, 96)
    )
    model = build(config).train()
    for module in model.modules():
        if isinstance(module, NeckBlock):  # zero at first, it hides what is before it
            torch.nn.init.normal_(module.project.weight)
    image, low, high = inputs(config, batch=1)
    outputs, encoded = model(image, low, high)
    loss = 0
    for output in outputs:
        fine = model.upsample(output, encoded.upsample_mask)
        # Random weights: sums of products, lest softmax's and symmetric gradients cancel.
        loss = loss + sum((torch.randn_like(t) * t.square()).sum() for t in fine)
    loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not without


@torch.inference_mode()
@pytest.mark.parametrize('bin_space', ['linear', 'log'])
def test_convex_upsampling_stays_within_its_neighbors(bin_space):
    x = torch.rand(1, 2, 4, 5)
    fine = convex_upsample(x, torch.randn(1, 144, 4, 5))
    assert fine.shape == (1, 2, 16, 20)
    assert fine.min() >= x.min() and fine.max() <= x.max()
    constant = convex_upsample(torch.full((1, 1, 4, 5), 3.0), torch.randn(1, 144, 4, 5))
    assert torch.allclose(constant, torch.tensor(3.0), atol=1e-5)


def test_paper_presets_have_the_papers_sizes():
    for name, millions in (('dar_small', 440), ('dar_base', 1000), ('dar_large', 2000)):
        with torch.device('meta'):
            model = DAR(preset(name))
        total = sum(p.numel() for p in model.parameters()) / 1e6
        assert total == pytest.approx(millions, rel=0.05), f'{name}: {total:.0f} M'


@pytest.mark.parametrize('name', PRESETS)
def test_pixels_are_scaled_as_the_backbone_was_trained(name):
    # EfficientNet-Lite is not scaled as ImageNet's other networks are.
    config = preset(name)
    trained = timm.get_pretrained_cfg(config.backbone)
    assert (config.pixel_mean, config.pixel_std) == (trained.mean, trained.std)


@pytest.mark.parametrize('name', PRESETS)
def test_grids_grow(name):
    config = preset(name)
    tokens, depths = config.grid_sizes(), config.depth_grid_sizes()
    for sizes in (tokens, depths):
        assert all(a[0] < b[0] and a[1] < b[1] for a, b in zip(sizes, sizes[1:]))
    # Twice the tokens, but for the rounding of a side: 35 / 4 tokens and 35 / 2 depths.
    assert all(d[0] >= 2 * t[0] - 1 and d[1] >= 2 * t[1] - 1 for t, d in zip(tokens, depths))
    assert depths[-1] == tuple(side // 4 for side in config.input_size)


def test_bad_configurations_are_refused():
    with pytest.raises(UsageError, match='no preset'):
        preset('dar_huge')
    with pytest.raises(UsageError, match='bin_space'):
        replace(SMALL, bin_space='cubic')
    with pytest.raises(UsageError, match='multiples of 8'):
        replace(SMALL, input_size=(65, 96))
    # Its patches of 14 pixels would not see the last rows, and stretch the others.
    with pytest.raises(UsageError, match='multiples of 56'):
        replace(PRESETS['dar_edge'], input_size=(192, 256))

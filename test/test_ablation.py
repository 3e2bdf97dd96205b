"""Every switch of the ablation changes the computation it names, and nothing else."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='torch is not installed (extra: train)')
pytest.importorskip('timm', reason='timm is not installed (extra: train)')

from dar_ros.datasets.frames import Frame
from dar_ros.errors import UsageError
from dar_ros.geometry import Intrinsics
from dar_ros.model.checkpoint import save_checkpoint
from dar_ros.model.dar import DAR
from dar_ros.model.presets import PRESETS
from dar_ros.pipeline import open_pipeline
from dar_ros.training import ablation
from dar_ros.training.config import parse_config
from dar_ros.training.datasets import AugmentConfig, RangeConfig, TrainingSamples
from dar_ros.training.sources import initial_model
from dar_ros.training.validation import predictions

ROOT = Path(__file__).resolve().parents[1]
SMALL = replace(
    PRESETS['dar_tiny'], input_size=(64, 96), width=32, heads=2, latent_width=16, memory_width=32
)


def run(**changes):
    torch.manual_seed(0)
    model = DAR(replace(SMALL, **changes)).eval()
    image = torch.randint(0, 256, (1, 64, 96, 3), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model, lambda low, high: model(
            image.byte(), torch.tensor([low]), torch.tensor([high])
        )[0]


@pytest.mark.parametrize('injected', [True, False])
def test_without_injection_no_step_sees_its_window(injected):
    """Unrefined windows of another range: only injection can tell the network of them."""
    _, forward = run(use_injection=injected, refine_bins=False)
    near, far = forward(0.1, 5.0), forward(0.2, 60.0)
    same = [torch.equal(a.range_logits, b.range_logits) for a, b in zip(near, far)]
    assert same == [not injected] * 5
    names = [name for name, _ in run(use_injection=injected)[0].named_parameters()]
    assert any(name.startswith('injection') for name in names) == injected


@pytest.mark.parametrize('refined', [True, False])
def test_without_refinement_every_window_is_the_whole_range(refined):
    model, forward = run(refine_bins=refined)
    states, step = [], model.step
    model.step = lambda state, *rest: states.append(state) or step(state, *rest)
    forward(0.1, 10.0)
    whole = np.log([0.1, 10.0])
    widths = [float((state.high - state.low).mean()) for state in states]
    assert widths[0] == pytest.approx(whole[1] - whole[0], abs=1e-5)
    if refined:
        assert all(b < a for a, b in zip(widths, widths[1:]))
    else:
        assert widths == pytest.approx([widths[0]] * 5, abs=1e-5)


def test_without_bins_each_step_regresses_within_the_whole_range():
    model, forward = run(use_bins=False)
    assert model.bin_head.out_channels == 1 and run()[0].bin_head.out_channels == 8
    with torch.no_grad():
        model.bin_head.weight.zero_()
        model.bin_head.bias.fill_(0.0)
    for output in forward(0.1, 10.0):  # the middle of the range in log space
        assert torch.allclose(output.depth.exp(), torch.tensor(1.0), atol=1e-4)


def view(focal, depth=4.0):
    """Return a wall `depth` metres ahead, seen by a camera of that focal length."""
    image = np.full((64, 96, 3), 90, np.uint8)
    return Frame(image, np.full((64, 96), depth, np.float32), Intrinsics(focal, focal, 47.5, 31.5))


@pytest.mark.parametrize('canonical', [True, False])
def test_without_a_canonical_camera_the_focal_length_is_ignored(canonical, tmp_path):
    """In what training learns from, in validation, and in what is served."""
    config = replace(SMALL, canonical=canonical, canonical_focal=80.0)
    factor = 2.0 if canonical else 1.0
    still = AugmentConfig(min_crop=1.0, max_shift=0, reshape=0, flip=0, color=0)
    frames = [view(80.0), view(40.0)]
    samples = TrainingSamples(frames, (64, 96), config, RangeConfig(), still, (0, 0), 2)
    depths = sorted(float(samples[n][1].nanmedian()) for n in range(2))
    assert depths == pytest.approx([4.0, 4.0 * factor])

    torch.manual_seed(0)
    model = DAR(config).eval()
    for frame, expected in zip(frames, (1.0, factor)):
        ((_, depth, low, high),) = predictions(model, [frame], (64, 96))
        assert float(depth.nanmedian()) == pytest.approx(4.0 * expected)
        found = (float(low), float(high))
        assert found == pytest.approx([z * expected for z in config.depth_range])

    save_checkpoint(tmp_path, model)
    pipeline = open_pipeline(tmp_path)
    assert pipeline.bundle.canonical_focal == (80.0 if canonical else None)
    first, second = (pipeline(frame.image, frame.intrinsics).depth for frame in frames)
    assert np.array_equal(first, second) != canonical


def test_the_grids_do_not_grow_without_resolution_steps():
    configs = ablation.variant_configs(ROOT / 'config' / 'training' / 'ablation.yaml')
    model = configs['no_resolution_steps'][0].model
    assert len(set(model.grid_sizes())) == len(set(model.depth_grid_sizes())) == 1
    assert model.num_steps == 5 and model.grid_sizes()[-1] == PRESETS['dar_tiny'].grid_sizes()[-1]


def test_the_shipped_ablation_has_the_rows_that_decide():
    configs = ablation.variant_configs(ROOT / 'config' / 'training' / 'ablation.yaml')
    for name, change in {
        'no_bins': {'use_bins': False},
        'both_unrefined': {'refine_bins': False},
        'linear_8': {'bin_space': 'linear'},
        'no_injection': {'use_injection': False},
        'no_canonical_camera': {'canonical': False},
    }.items():
        assert configs[name][0].model == replace(configs['both'][0].model, **change)
    assert configs['random_encoder'][0].init == 'random' and configs['both'][0].init == 'imagenet'
    assert [c.seed for c in configs['both']] == [0, 1]
    outs = [config.out for seeds in configs.values() for config in seeds]
    assert len(set(outs)) == len(outs)


@pytest.mark.parametrize(
    'text, word',
    [
        ('base: {}', 'variants'),
        ('x: [', 'YAML'),
        ('base: {}\nvariants: {a: {}}', 'model'),
        ('base: {model: dar_tiny, out: x}\nvariants: {a: {}}', 'write model: {preset: dar_tiny}'),
    ],
)
def test_a_wrong_ablation_file_is_named(tmp_path, text, word):
    path = tmp_path / 'ablation.yaml'
    path.write_text(text)
    with pytest.raises(UsageError, match=word) as caught:
        ablation.variant_configs(path)
    assert str(path) in str(caught.value)


def test_the_report_is_a_mean_over_seeds(tmp_path):
    settings = {
        'train_data': 'a',
        'val_data': 'b',
        'init': 'random',
        'stages': [{'size': [64, 96], 'iterations': 1, 'batch': 1}],
        'model': {
            'preset': 'dar_tiny',
            'width': 32,
            'heads': 2,
            'latent_width': 16,
            'memory_width': 32,
        },
    }
    seeds = []
    for seed, error in ((0, 0.2), (1, 0.4)):
        config = parse_config(
            {**settings, 'name': 'x', 'seed': seed, 'out': str(tmp_path / str(seed))}
        )
        validation = {'abs_rel': [2 * error, error], 'd1': [0.1, 1 - error]}
        record = {'validation': validation, 'training': asdict(config), 'iteration': 1}
        for name in ('best', 'last'):
            save_checkpoint(Path(config.out) / name, initial_model(config), record)
        seeds.append(config)
    row = ablation.report({'x': seeds}).splitlines()[-1]
    assert row.startswith('| x |') and '| 0.600 0.300 | 0.700 | 0.200 0.400 |' in row
    # What was cut short, or trained otherwise, stands under no common budget.
    longer = replace(seeds[0], stages=(replace(seeds[0].stages[0], iterations=4),))
    assert '| x **(x: 1 of 4 iterations)** |' in ablation.report({'x': [longer, seeds[1]]})
    other = replace(seeds[1], validate_every=7, model=replace(seeds[1].model, num_bins=16))
    assert '**(x: other validate_every, model)**' in ablation.report({'x': [seeds[0], other]})

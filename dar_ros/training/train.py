"""`dar train`: one process, exact resume, checkpoints in safetensors."""

import csv
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dar_ros.errors import UsageError
from dar_ros.model.checkpoint import (
    load_checkpoint,
    read_json,
    save_checkpoint,
    save_tensors,
    write_json,
)
from dar_ros.model.dar import DAR
from dar_ros.model.mtbin import from_bin_space
from dar_ros.model.pretrained import load_imagenet_encoder
from dar_ros.simulation.dataset import SimDataset
from dar_ros.training.config import load_config
from dar_ros.training.datasets import TrainingSamples, to_canonical
from dar_ros.training.losses import IN_RANGE, range_classes, step_losses, total_loss
from dar_ros.training.statistics import row_medians, sigma_factors

LOG_FIELDS = ('iteration', 'size', 'rate', 'loss', 'depth_loss', 'range_loss', 'scale_loss')


def train(config_path, resume=False, out=None):
    """Train by a YAML file; returns the folder of the best checkpoint."""
    config = load_config(config_path, {'out': out} if out else None)
    return Trainer(config, resume).run()


class Trainer:
    """A run: model, optimizer and position. Everything it saves is under config.out."""

    def __init__(self, config, resume=False):
        self.config, self.out = config, Path(config.out)
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        cv2.setNumThreads(1)
        torch.manual_seed(config.seed)
        self.train_frames = SimDataset(config.train_data)
        self.val_frames = SimDataset(config.val_data)
        self.check_frames = Subset(
            self.val_frames, every(self.val_frames, config.validation_frames)
        )
        self.model = initial_model(config).to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.iteration, self.best = 0, float('inf')
        if resume:
            self.load_state()
        elif (self.out / 'last').exists():
            raise UsageError(
                f'{self.out} holds a run: continue it with --resume, or name another --out'
            )
        self.out.mkdir(parents=True, exist_ok=True)

    def run(self):
        """Train to the end of the last stage, then fit what is fitted after training."""
        progress = tqdm(
            total=self.config.iterations,
            initial=self.iteration,
            desc=self.config.name,
            mininterval=5,
        )
        begin = 0
        for number, stage in enumerate(self.config.stages):
            end = begin + stage.iterations
            if self.iteration < end:
                self.run_stage(number, stage, self.iteration - begin, progress)
            begin = end
        progress.close()
        self.finish()
        return self.out / 'best'

    def run_stage(self, number, stage, done, progress):
        """Run iterations `done` to the last of one stage."""
        config = self.config
        samples = TrainingSamples(
            self.train_frames,
            stage.size,
            config.model.focal_at(stage.size),
            config.ranges,
            config.augment,
            (config.seed, number),
            stage.iterations * stage.batch,
        )
        remaining = Subset(samples, range(done * stage.batch, len(samples)))
        loader = DataLoader(remaining, stage.batch, num_workers=config.workers)
        for batch in loader:
            record = self.iterate([tensor.to(self.device) for tensor in batch])
            self.log(stage, record)
            progress.update()
            progress.set_postfix(loss=f'{record["loss"]:.3f}', refresh=False)
            if self.iteration % config.validate_every == 0 or self.iteration == config.iterations:
                self.checkpoint(stage.size)

    def iterate(self, batch):
        """One optimizer step; returns the scalars to log."""
        image, depth, depth_min, depth_max = batch
        config = self.config
        self.model.train()
        rate = learning_rate(self.iteration, config.iterations, config.optimizer)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['scale']
        outputs, encoded = self.model(image, depth_min, depth_max)
        per_step = [
            step_losses(
                self.model.upsample(output, encoded.upsample_mask),
                depth,
                depth_min,
                depth_max,
                config.model.bin_space,
                config.loss,
            )
            for output in outputs
        ]
        loss = total_loss(per_step, config.loss)
        if not torch.isfinite(loss):
            raise RuntimeError(f'the loss is {loss.item()} at iteration {self.iteration}')
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip)
        self.optimizer.step()
        self.iteration += 1
        last = per_step[-1]
        return {
            'rate': rate,
            'loss': loss.item(),
            **{f'{name}_loss': value.item() for name, value in last.items()},
        }

    def log(self, stage, record):
        """Append to log.csv."""
        path = self.out / 'log.csv'
        new = not path.exists()
        with path.open('a', newline='') as file:
            writer = csv.DictWriter(file, LOG_FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(
                {
                    'iteration': self.iteration,
                    'size': 'x'.join(map(str, stage.size)),
                    **{key: f'{value:.6g}' for key, value in record.items()},
                }
            )

    def checkpoint(self, size):
        """
        Validate; save `last`, and `best` when the last step's abs_rel on the validation set fell.
        """
        metrics = validate(self.model, self.check_frames, size)
        record = {
            'training': asdict(self.config),
            'iteration': self.iteration,
            'validation': metrics,
        }
        tqdm.write(
            f'{self.config.name} {self.iteration} {size}: abs_rel per step '
            + ' '.join(f'{value:.4f}' for value in metrics['abs_rel'])
            + f', d1 {metrics["d1"][-1]:.3f}'
        )
        # Sizes are not compared with each other: a new stage begins a new contest.
        self.best = self.best if getattr(self, 'best_size', size) == size else float('inf')
        self.best_size = size
        if metrics['abs_rel'][-1] <= self.best:
            self.best = metrics['abs_rel'][-1]
            save_checkpoint(self.out / 'best', self.model, record)
        save_checkpoint(self.out / 'last', self.model, record)
        save_tensors(self.out / 'last' / 'optimizer.safetensors', flat_state(self.optimizer))
        write_json(
            self.out / 'last' / 'state.json',
            {'iteration': self.iteration, 'best': self.best, 'best_size': self.best_size},
        )

    def load_state(self):
        """Continue from `last`, exactly."""
        folder = self.out / 'last'
        model, _ = load_checkpoint(folder)
        self.model.load_state_dict(model.state_dict())
        restore_state(self.optimizer, load_file(folder / 'optimizer.safetensors'))
        state = read_json(folder / 'state.json')
        self.iteration, self.best, self.best_size = (
            state['iteration'],
            state['best'],
            tuple(state['best_size']),
        )

    def finish(self):
        """
        Add what is fitted after training to the best checkpoint: uncertainty factors, row medians.
        """
        model, record = load_checkpoint(self.out / 'best')
        model.to(self.device)
        record['sigma_factors'] = sigma_factors(model, self.val_frames)
        record['row_medians'] = row_medians(self.train_frames, model.config)
        record.pop('model')
        save_checkpoint(self.out / 'best', model, record)


def every(frames, count):
    """Return indices of about `count` frames spread over a data set."""
    return range(0, len(frames), max(1, len(frames) // count))


def initial_model(config):
    """Return the DAR a run begins with."""
    if config.init in ('imagenet', 'random'):
        model = DAR(config.model)
        if config.init == 'imagenet':
            load_imagenet_encoder(model)
        return model
    source, _ = load_checkpoint(config.init)
    model = DAR(config.model)
    model.load_state_dict(source.state_dict())
    return model


def make_optimizer(model, config):
    """
    AdamW; no decay on vectors (biases, norms), a rate of its own for the pretrained backbone.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        backbone, decay = name.startswith('encoder.backbone'), parameter.dim() > 1
        groups.setdefault((backbone, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                'params': parameters,
                'scale': config.encoder_scale if backbone else 1.0,
                'weight_decay': config.weight_decay if decay else 0.0,
            }
            for (backbone, decay), parameters in groups.items()
        ],
        lr=config.start,
    )


def learning_rate(iteration, iterations, config):
    """Linear rise from start to peak, then linear fall to end."""
    rise = max(1, round(iterations * config.warmup))
    if iteration < rise:
        return config.start + (config.peak - config.start) * iteration / rise
    return config.peak + (config.end - config.peak) * (iteration - rise) / max(
        1, iterations - rise
    )


def flat_state(optimizer):
    """Optimizer state as one flat dict of tensors."""
    state = optimizer.state_dict()['state']
    return {
        f'{index}.{name}': torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def restore_state(optimizer, tensors):
    """Undo flat_state."""
    state = optimizer.state_dict()
    for key, value in tensors.items():
        index, name = key.split('.')
        state['state'].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)


@torch.inference_mode()
def predictions(model, frames, size, batch=8):
    """
    Yield (Upsampled per step, canonical depth, minimum, maximum) for every batch of a data set.
    """
    model.eval()
    device = model.position.device
    focal = model.config.focal_at(size)
    for begin in range(0, len(frames), batch):
        chosen = [frames[i] for i in range(begin, min(begin + batch, len(frames)))]
        pairs = [
            to_canonical(np.asarray(f.image), np.asarray(f.depth), f.intrinsics, size, focal)
            for f in chosen
        ]
        scales = torch.tensor([focal / canonical_focal_of(f, size) for f in chosen], device=device)
        image = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
        depth = torch.from_numpy(np.stack([depth for _, depth in pairs]))[:, None].to(device)
        low, high = (scales.float() * limit for limit in model.config.depth_range)
        outputs, encoded = model(image, low, high)
        yield (
            [model.upsample(output, encoded.upsample_mask) for output in outputs],
            depth,
            low,
            high,
        )


def canonical_focal_of(frame, size):
    """Focal length of a frame, in pixels, after its resize to the network's input size."""
    height, width = frame.image.shape[:2]
    return frame.intrinsics.focal * min(size[0] / height, size[1] / width)


def validate(model, frames, size):
    """Per-step abs_rel and d1 on in-range pixels: means over images."""
    began, sums, count = time.monotonic(), None, 0
    for steps, depth, low, high in predictions(model, frames, size):
        valid = range_classes(depth, low, high) == IN_RANGE
        truth = torch.where(valid, depth, 1.0)
        pixels = valid.sum((1, 2, 3))
        scored = pixels > 0
        rows = []
        for step in steps:
            ratio = from_bin_space(step.depth, model.config.bin_space) / truth
            d1 = (torch.maximum(ratio, 1 / ratio) < 1.25) & valid
            error = torch.where(valid, (ratio - 1).abs(), 0.0)
            rows.append(
                torch.stack(
                    [(t.sum((1, 2, 3)) / pixels.clamp(min=1))[scored].sum() for t in (error, d1)]
                )
            )
        batch = torch.stack(rows)  # (steps, 2)
        sums = batch if sums is None else sums + batch
        count += int(scored.sum())
    abs_rel, d1 = (sums / max(count, 1)).T.tolist()
    return {'abs_rel': abs_rel, 'd1': d1, 'frames': count, 'seconds': time.monotonic() - began}

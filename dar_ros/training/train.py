"""`dar train`: one process or many (Lightning Fabric), exact resume, safetensors."""

import copy
import csv
import itertools
import os
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from dar_ros.bundle import MANIFEST, open_bundle
from dar_ros.errors import UsageError
from dar_ros.evaluation.datasets import DATASETS, open_dataset
from dar_ros.model.checkpoint import (
    load_checkpoint,
    load_tensors,
    read_json,
    recovered,
    replaced,
    save_checkpoint,
    save_tensors,
    write_json,
)
from dar_ros.model.dar import DAR
from dar_ros.model.from_bundle import load_bundle_weights
from dar_ros.model.mtbin import from_bin_space
from dar_ros.model.pretrained import PYPI_ENCODERS, load_imagenet_encoder
from dar_ros.simulation.dataset import SimDataset
from dar_ros.training.config import load_config
from dar_ros.training.datasets import TrainingSamples, to_canonical
from dar_ros.training.losses import IN_RANGE, range_classes, step_losses, total_loss
from dar_ros.training.statistics import row_medians, sigma_factors

LOG_FIELDS = ('iteration', 'size', 'rate', 'loss', 'depth_loss', 'range_loss', 'scale_loss')


def train(config_path, resume=False, out=None, minutes=0.0):
    """
    Train by a YAML file; returns the folder of the best checkpoint, None if it stopped before.

    Under torchrun every process calls this: torchrun --nproc-per-node N -m dar_ros.cli train ...
    """
    config = load_config(config_path, {'out': out} if out else None)
    return Trainer(config, resume, minutes).run()


class LossModule(torch.nn.Module):
    """The network and its losses in one forward, as data-parallel training wants it."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, image, depth, depth_min, depth_max):
        """Return the loss of a batch, and the last step's terms."""
        outputs, encoded = self.model(image, depth_min, depth_max)
        space = self.model.config.bin_space
        per_step = [
            step_losses(
                self.model.upsample(output, encoded.upsample_mask),
                depth,
                depth_min,
                depth_max,
                space,
                self.loss,
            )
            for output in outputs
        ]
        return total_loss(per_step, self.loss), per_step[-1]


class Trainer:
    """
    A run: model, optimizer and position. Everything it saves is under config.out.

    `minutes` ends the process after that time, with a checkpoint to --resume from; 0: never.
    """

    def __init__(self, config, resume=False, minutes=0.0):
        self.config, self.out = config, Path(config.out)
        self.deadline = time.monotonic() + 60 * minutes if minutes else float('inf')
        self.fabric = Fabric(
            devices=int(os.environ.get('LOCAL_WORLD_SIZE', 1)),
            num_nodes=int(os.environ.get('GROUP_WORLD_SIZE', 1)),
            strategy='ddp' if 'LOCAL_WORLD_SIZE' in os.environ else 'auto',
            precision=config.precision,
        )
        self.fabric.launch()
        self.device, self.leads = self.fabric.device, self.fabric.is_global_zero
        for stage in config.stages:
            if stage.batch % (self.fabric.world_size * config.accumulate):
                raise UsageError(
                    f'a batch of {stage.batch} does not divide into {self.fabric.world_size} '
                    f'processes of {config.accumulate} parts'
                )
        cv2.setNumThreads(1)
        torch.manual_seed(config.seed)
        self.train_frames = open_frames(config.dataset, config.train_data, config.train_split)
        self.val_frames = open_frames(config.dataset, config.val_data, config.val_split)
        self.check_frames = Subset(
            self.val_frames, every(self.val_frames, config.validation_frames)
        )
        self.model = freeze(initial_model(config), config.freeze).to(
            self.device, memory_format=torch.channels_last
        )
        self.average = copy.deepcopy(self.model).requires_grad_(False) if config.ema else None
        self.optimizer = make_optimizer(self.model, config.optimizer)
        self.iteration, self.best = 0, float('inf')
        if resume:
            self.load_state()
        elif (self.out / 'last').exists():
            raise UsageError(
                f'{self.out} holds a run: continue it with --resume, or name another --out'
            )
        self.losses, self.optimizer = self.fabric.setup(
            LossModule(self.model, config.loss), self.optimizer
        )
        self.out.mkdir(parents=True, exist_ok=True)

    @property
    def kept(self):
        """The network that is validated and kept: the average if there is one."""
        return self.average if self.average is not None else self.model

    def run(self):
        """Train to the end of the last stage, then fit what is fitted after training."""
        progress = tqdm(
            total=self.config.iterations,
            initial=self.iteration,
            desc=self.config.name,
            mininterval=5,
            disable=not self.leads,
        )
        begin = 0
        for number, stage in enumerate(self.config.stages):
            end = begin + stage.iterations
            if self.iteration < end and not self.run_stage(
                number, stage, self.iteration - begin, progress
            ):
                return None
            begin = end
        progress.close()
        if self.leads:
            self.finish()
        self.fabric.barrier()
        return self.out / 'best'

    def run_stage(self, number, stage, done, progress):
        """Run iterations `done` to the last of one stage; whether there was time for all."""
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
        # Of every batch a process loads one stretch, in `accumulate` parts.
        share = stage.batch // self.fabric.world_size
        numbers = np.arange(done * stage.batch, len(samples)).reshape(-1, stage.batch)
        first = self.fabric.global_rank * share
        mine = Subset(samples, numbers[:, first : first + share].ravel().tolist())
        loader = iter(DataLoader(mine, share // config.accumulate, num_workers=config.workers))
        for _ in numbers:
            record = self.iterate(itertools.islice(loader, config.accumulate))
            self.log(stage, record)
            progress.update()
            progress.set_postfix(loss=f'{record["loss"]:.3f}', refresh=False)
            late = self.fabric.broadcast(time.monotonic() > self.deadline)
            last = self.iteration == config.iterations
            if self.iteration % config.validate_every == 0 or last:
                self.checkpoint(stage.size)
            elif late:
                self.save_last()
            if late and not last:
                return False
        return True

    def iterate(self, parts):
        """One optimizer step on `accumulate` parts of a batch; returns the scalars to log."""
        config = self.config
        self.losses.train()
        rate = learning_rate(self.iteration, config.iterations, config.optimizer)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['scale']
        self.optimizer.zero_grad(set_to_none=True)
        records = []
        for part, batch in enumerate(parts, 1):
            waits = part < config.accumulate
            with self.fabric.no_backward_sync(self.losses, enabled=waits):
                loss, last = self.losses(*(tensor.to(self.device) for tensor in batch))
                self.fabric.backward(loss / config.accumulate)
            records.append(torch.stack([loss.detach(), *(v.detach() for v in last.values())]))
        record = self.fabric.all_reduce(torch.stack(records).mean(0), reduce_op='mean')
        if not torch.isfinite(record[0]):
            raise RuntimeError(f'the loss is {record[0].item()} at iteration {self.iteration}')
        self.fabric.clip_gradients(self.losses, self.optimizer, max_norm=config.optimizer.clip)
        self.optimizer.step()
        self.iteration += 1
        if self.average is not None:
            self.update_average()
        names = ('loss', *(f'{name}_loss' for name in last))
        return {'rate': rate, **dict(zip(names, record.tolist()))}

    @torch.no_grad()
    def update_average(self):
        """Move the average towards the weights; faster at first, when it knows little."""
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for average, value in zip(
            self.average.state_dict().values(), self.model.state_dict().values()
        ):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def log(self, stage, record):
        """Append to log.csv."""
        if not self.leads:
            return
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
        if self.leads:
            metrics = validate(self.kept, self.check_frames, size)
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
            same = getattr(self, 'best_size', size) == size
            self.best, self.best_size = self.best if same else float('inf'), size
            if metrics['abs_rel'][-1] <= self.best:
                self.best = metrics['abs_rel'][-1]
                with replaced(self.out / 'best') as folder:
                    save_checkpoint(folder, self.kept, record)
        self.save_last()

    def save_last(self):
        """Save what a run continues from."""
        if self.leads:
            with replaced(self.out / 'last') as folder:
                record = {'training': asdict(self.config), 'iteration': self.iteration}
                save_checkpoint(folder, self.model, record)
                save_tensors(folder, 'optimizer', flat_state(self.optimizer))
                if self.average is not None:
                    save_tensors(folder, 'average', self.average.state_dict())
                state = {
                    'iteration': self.iteration,
                    'best': self.best,
                    'best_size': getattr(self, 'best_size', None),
                }
                write_json(folder / 'state.json', state)
        self.fabric.barrier()

    def load_state(self):
        """Continue from `last`, exactly."""
        folder = recovered(self.out / 'last')
        model, _ = load_checkpoint(folder)
        self.model.load_state_dict(model.state_dict())
        restore_state(self.optimizer, load_tensors(folder, 'optimizer'))
        if self.average is not None:
            self.average.load_state_dict(load_tensors(folder, 'average'))
        state = read_json(folder / 'state.json')
        self.iteration, self.best = state['iteration'], state['best']
        if state['best_size']:
            self.best_size = tuple(state['best_size'])

    def finish(self):
        """
        Add what is fitted after training to the best checkpoint: uncertainty factors, row medians.
        """
        model, record = load_checkpoint(recovered(self.out / 'best'))
        model.to(self.device)
        record['sigma_factors'] = sigma_factors(model, self.val_frames)
        record['row_medians'] = row_medians(self.train_frames, model.config)
        record.pop('model')
        with replaced(self.out / 'best') as folder:
            save_checkpoint(folder, model, record)


def open_frames(dataset, folder, split):
    """Frames of a simulated or a real data set; the latter with its protocol's crop."""
    if dataset == 'sim':
        return SimDataset(folder)
    if dataset not in DATASETS:
        raise UsageError(f'no data set {dataset!r}; there are sim, {", ".join(DATASETS)}')
    return open_dataset(dataset, folder, split or None)


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
    model = DAR(config.model)
    if (Path(config.init) / MANIFEST).exists():
        if config.model.backbone in PYPI_ENCODERS:  # their batch norms' scales, to unfold with
            load_imagenet_encoder(model)
        return load_bundle_weights(model, open_bundle(config.init))
    source, _ = load_checkpoint(config.init)
    model.load_state_dict(source.state_dict())
    return model


def freeze(model, prefixes):
    """Train no parameter whose name begins with one of `prefixes`; UsageError if none does."""
    for prefix in prefixes:
        frozen = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not frozen:
            raise UsageError(f'freeze: no parameter begins with {prefix}')
        for parameter in frozen:
            parameter.requires_grad_(False)
    return model


def make_optimizer(model, config):
    """
    AdamW; no decay on vectors (biases, norms), a rate of its own for the pretrained backbone.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
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

"""`dar train`: one process or many (Lightning Fabric), exact resume, safetensors."""

import copy
import csv
import itertools
import signal
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Subset
from tqdm import tqdm

from dar_ros.datasets.frames import spread
from dar_ros.errors import DarError, UsageError
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
from dar_ros.training.config import changed_settings, load_config
from dar_ros.training.datasets import TrainingSamples
from dar_ros.training.loading import parts_of
from dar_ros.training.losses import LossModule
from dar_ros.training.optimizer import flat_state, learning_rate, make_optimizer, restore_state
from dar_ros.training.sources import freeze, initial_model, open_frames, require_apart
from dar_ros.training.statistics import row_medians
from dar_ros.training.strategy import gather_shards, is_sharded, make_fabric
from dar_ros.training.validation import require_depth, validate

BAD_STEPS = 20  # in a row, after which a run ends; fp16's scaler needs a few to find its scale
LOG_FIELDS = ('iteration', 'size', 'rate', 'loss', 'depth_loss', 'range_loss', 'scale_loss')


def train(config_path, resume=False, out=None, minutes=0.0):
    """
    Train by a YAML file; returns the folder of the best checkpoint, None if it stopped before.

    Under torchrun every process calls this: torchrun --nproc-per-node N -m dar_ros.cli train ...
    """
    config = load_config(config_path, {'out': out} if out else None)
    return Trainer(config, resume, minutes).run()


class Trainer:
    """
    A run: model, optimizer and position. Everything it saves is under config.out.

    `minutes` ends the process after that time, with a checkpoint to --resume from; 0: never. So
    does SIGTERM, which preemption and a batch system's time limit begin with.
    """

    def __init__(self, config, resume=False, minutes=0.0):
        self.config, self.out = config, Path(config.out)
        for path in (self.out, *self.out.parents):
            if path.exists() and not path.is_dir():
                raise UsageError(f'out: {path} is no folder: name another')
        self.deadline = time.monotonic() + 60 * minutes if minutes else float('inf')
        self.fabric = make_fabric(config)
        self.fabric.launch()
        self.device, self.is_rank_zero = self.fabric.device, self.fabric.is_global_zero
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
        require_apart(self.train_frames, self.val_frames)
        for frames, name in (
            (self.train_frames, 'training set'),
            (self.val_frames, 'validation set'),
        ):
            require_depth(frames, config.model.depth_range, name)
        self.check_frames = Subset(
            self.val_frames, spread(self.val_frames, config.validation_frames)
        )
        self.model = freeze(initial_model(config), config.freeze).to(
            self.device, memory_format=torch.channels_last
        )
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False) if config.ema else None
        # Shards cannot be validated by one process alone: a whole one stands by, in main memory.
        self.sharded = is_sharded(self.fabric)
        if config.strategy == 'fsdp' and not self.sharded:
            self.tell('strategy fsdp has no effect in one process: start several with torchrun')
        self.cpu_model = (
            copy.deepcopy(self.model).cpu() if self.sharded and self.is_rank_zero else None
        )
        self.iteration = 0
        self.best, self.best_size = float('inf'), None  # abs_rel, and the size it was had at
        self.bad_steps = 0  # the latest ones, whose gradients were not finite
        if config.stages[-1].size != config.model.input_size:
            self.tell(
                f'trained at {config.stages[-1].size}, but to be served at the '
                f"model's input_size, {config.model.input_size}, where its depth may be far worse"
            )
        if self.is_rank_zero:
            recovered(self.out / 'last')
        self.fabric.barrier()
        begun = (self.out / 'last').exists()
        if resume and begun:
            self.load_state()
        elif resume:  # whatever restarts a run need not know how far it came
            self.tell(f'{self.out} holds no checkpoint: the run begins')
        elif begun:
            raise UsageError(
                f'{self.out} holds a run: continue it with --resume, or name another --out'
            )
        self.losses = self.fabric.setup_module(LossModule(self.model, config.loss))
        self.optimizer = make_optimizer(self.model, config.optimizer)
        if begun:
            restore_state(self.optimizer, self.load_part('optimizer'))
        self.optimizer = self.fabric.setup_optimizers(self.optimizer)
        self.out.mkdir(parents=True, exist_ok=True)

    def model_to_save(self):
        """Return the network that is validated and kept; every process calls it."""
        if self.ema_model is not None:
            return self.ema_model
        return self.trained_model()

    def trained_model(self):
        """Return the trained network, whole in the leading process; every one calls it."""
        if not self.sharded:
            return self.model
        tensors = gather_shards(self.model.state_dict(), self.is_rank_zero)
        if self.is_rank_zero:
            self.cpu_model.load_state_dict(tensors)
        return self.cpu_model

    def tell(self, text):
        """Print a line on the run, once for all processes."""
        if self.is_rank_zero:
            tqdm.write(f'{self.config.name}: {text}')

    def run(self):
        """
        Train to the end of the last stage.

        Returns the folder of the best checkpoint, None if the run was stopped before.
        """
        before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, 'deadline', 0.0))
        try:
            return self.run_stages()
        finally:
            signal.signal(signal.SIGTERM, before)

    def run_stages(self):
        """See run."""
        progress = tqdm(
            total=self.config.iterations,
            initial=self.iteration,
            desc=self.config.name,
            mininterval=5,
            disable=not self.is_rank_zero,
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
        if self.is_rank_zero:
            self.finish()
        self.fabric.barrier()
        return self.out / 'best'

    def run_stage(self, number, stage, done, progress):
        """Run iterations `done` to the last of one stage; whether there was time for all."""
        config = self.config
        samples = TrainingSamples(
            self.train_frames,
            stage.size,
            config.model,
            config.ranges,
            config.augment,
            (config.seed, number),
            stage.iterations * stage.batch,
        )
        batches = np.arange(done * stage.batch, len(samples)).reshape(-1, stage.batch)
        loader = parts_of(
            samples,
            batches,
            self.fabric.global_rank,
            self.fabric.world_size,
            config.accumulate,
            config.workers,
        )
        for _ in batches:
            record = self.iterate(itertools.islice(loader, config.accumulate))
            self.log(stage, record)
            progress.update()
            progress.set_postfix(loss=f'{record["loss"]:.3f}', refresh=False)
            # Of any process: a signal may reach one alone.
            late = torch.tensor(float(time.monotonic() > self.deadline), device=self.device)
            late = bool(self.fabric.all_reduce(late, reduce_op='max'))
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
            raise DarError(
                f'the loss is {record[0].item()} at iteration {self.iteration}: {self.cure()}'
            )
        norm = self.fabric.clip_gradients(
            self.losses, self.optimizer, max_norm=config.optimizer.clip, error_if_nonfinite=False
        )
        self.step(bool(torch.isfinite(gather_shards({'norm': norm}, True)['norm'])))
        self.iteration += 1
        if self.ema_model is not None:
            self.update_ema()
        names = ('loss', *(f'{name}_loss' for name in last))
        return {'rate': rate, **dict(zip(names, record.tolist()))}

    def step(self, finite):
        """Let the optimizer step if its gradients are `finite`; DarError after BAD_STEPS."""
        # fp16's scaler skips that step by itself, and lowers the scale.
        if finite or self.config.precision == '16-mixed':
            self.optimizer.step()
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps == BAD_STEPS:
            raise DarError(
                f'the gradients of {BAD_STEPS} iterations up to {self.iteration} were not finite: '
                f'{self.cure()}'
            )

    def cure(self):
        """Return what to do when numbers stop being finite."""
        return f'--resume goes on from {self.out / "last"}, with a lower optimizer.peak perhaps'

    @torch.no_grad()
    def update_ema(self):
        """Move the average towards the weights; faster at first, when it knows little."""
        decay = min(self.config.ema, (1 + self.iteration) / (10 + self.iteration))
        for mean, value in zip(
            self.ema_model.state_dict().values(), self.model.state_dict().values()
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def log(self, stage, record):
        """Append to log.csv."""
        if not self.is_rank_zero:
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
        Validate; save `last`, and `best` where the last step's abs_rel on the validation set did
        not rise.
        """
        kept = self.model_to_save()
        if self.is_rank_zero:
            metrics = validate(kept.to(self.device), self.check_frames, size)
            if self.sharded:
                kept.cpu()
            record = {
                'training': asdict(self.config),
                'iteration': self.iteration,
                'sigma_factors': metrics.pop('sigma_factors'),
                'validation': metrics,
            }
            tqdm.write(
                f'{self.config.name} {self.iteration} {size}: abs_rel per step '
                + ' '.join(f'{value:.4f}' for value in metrics['abs_rel'])
                + f', d1 {metrics["d1"][-1]:.3f}'
            )
            # Sizes are not compared with each other: a new stage begins a new contest.
            same = self.best_size in (None, size)
            self.best, self.best_size = self.best if same else float('inf'), size
            if metrics['abs_rel'][-1] <= self.best:
                self.best = metrics['abs_rel'][-1]
                with replaced(self.out / 'best') as folder:
                    save_checkpoint(folder, kept, record)
        self.save_last()

    def save_last(self):
        """Save what a run continues from."""
        model = self.trained_model()
        optimizer = gather_shards(flat_state(self.optimizer), self.is_rank_zero)
        if self.is_rank_zero:
            with replaced(self.out / 'last') as folder:
                record = {'training': asdict(self.config), 'iteration': self.iteration}
                save_checkpoint(folder, model, record)
                save_tensors(folder, 'optimizer', optimizer)
                if self.ema_model is not None:
                    save_tensors(folder, 'average', self.ema_model.state_dict())
                state = {
                    'iteration': self.iteration,
                    'best': self.best,
                    'best_size': self.best_size,
                    'train_frames': len(self.train_frames),
                    'precision': self.fabric.strategy.precision.state_dict(),  # fp16's loss scale
                }
                write_json(folder / 'state.json', state)
        self.fabric.barrier()

    def load_state(self):
        """Continue from `last`, exactly, if the configuration is the one it began with."""
        folder = self.out / 'last'
        model, record = load_checkpoint(folder)
        if model.config != self.config.model:
            raise UsageError(f'{folder} holds a run of another `model`: begin from it with `init`')
        changed = changed_settings(self.config, record['training'])
        # What the optimizer's state is of; an average that is not there, or that nobody keeps.
        both = record['training'].get('ema') and self.config.ema
        fixed = [key for key in changed if key == 'freeze' or key == 'ema' and not both]
        if fixed:
            raise UsageError(
                f'{folder} holds a run of another {" and ".join(fixed)}: begin from it with `init`'
            )
        if changed:
            self.tell(f'resumed with other {", ".join(changed)} than before')
        self.model.load_state_dict(model.state_dict())
        if self.ema_model is not None:
            self.ema_model.load_state_dict(self.load_part('average'))
        state = read_json(folder / 'state.json')
        self.iteration, self.best = state['iteration'], state['best']
        frames = len(self.train_frames)
        if state.get('train_frames', frames) != frames:
            self.tell(
                f'resumed with {frames} frames to train on, not with {state["train_frames"]} as '
                'before: its samples are others from here on'
            )
        if state.get('precision'):
            self.fabric.strategy.precision.load_state_dict(state['precision'])
        if state['best_size']:
            self.best_size = tuple(state['best_size'])

    def load_part(self, name):
        """Return tensors that a run needs beside the weights to go on."""
        folder = self.out / 'last'
        try:
            return load_tensors(folder, name)
        except UsageError as error:
            raise UsageError(
                f'{error}, or begin from its weights: `init: {folder}` and another `out`'
            ) from None

    def finish(self):
        """Add the baseline to beat to the best checkpoint."""
        model, record = load_checkpoint(recovered(self.out / 'best'))
        record['row_medians'] = row_medians(self.train_frames, model.config)
        record.pop('model')
        with replaced(self.out / 'best') as folder:
            save_checkpoint(folder, model, record)

"""The training of one network, from its checkpoint if there is one, to its best or last weights.

All that an update depends on is a function of the settings and its number: the images (`order`), their crops
(`engine.decode.random_crops`), the learning rate, and what layers draw. With weights and momentum from a
checkpoint, a run goes on as if it had not been interrupted; on the CPU with the same number of threads it
ends with the same bits.
"""

import math
import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import cast

from engine import malloc
from engine.decode import RandomCrops, make_training_decoder
from engine.decode.protocol import DecodedBatch
from engine.errors import BadImage
from engine.evals.finetune.checkpoints import CHECKPOINT, RunFolder, State, Tensors
from engine.evals.finetune.curve import CurvePoint
from engine.evals.finetune.examine import Examiner, nothing_decodable
from engine.evals.finetune.inputs import Inputs
from engine.evals.finetune.interruption import Interrupted, Interruption
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.network import FinetuneNetwork, copied
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.order import Order
from engine.evals.finetune.problem import Problem
from engine.evals.finetune.progress import Hooks, Pace, Validation
from engine.evals.finetune.scoring import Scored, score
from engine.evals.finetune.stopping import Stopping
from engine.evals.finetune.trainer import Diverged, LossLog, Trainer, learning_rate
from engine.runtime import Runtime, private_generators

#: Seconds between two checkpoints where validations are further apart.
SAVE_EVERY_S = 600.0
#: Losses that are looked at together on a device, which costs a wait.
CUDA_BLOCK = 20
_BEST = "best."


class Session:
    """A training.

    Args:
        inputs: images, model, bank.
        problem: what is learned, from which rows.
        options, runtime: as of the run.
        network: with the weights that training starts from; it is trained in place.
        folder: for its checkpoints.
        hooks: called as it goes.

    Attributes:
        state: its progress.
        resumed: updates that an earlier process had made.
        examiner: renders images and runs the network on them.
        trainer: the network and its optimiser.
    """

    def __init__(
        self,
        inputs: Inputs,
        problem: Problem,
        options: FinetuneOptions,
        runtime: Runtime,
        network: FinetuneNetwork,
        folder: RunFolder,
        hooks: Hooks,
    ) -> None:
        self._inputs, self._problem, self._options = inputs, problem, options
        self._runtime, self._folder, self._hooks = runtime, folder, hooks
        spec = inputs.spec
        loss = Loss.of(problem.codes, problem.classes, problem.parts.train, options.class_weight)
        self._loss = loss
        self.batch_size = options.batch_for(spec.architecture)
        self.trainer = Trainer(network, loss, options, runtime)
        self._interruption = Interruption()
        self.examiner = Examiner(inputs.source, spec.recipe, runtime, between=self._between)
        self._train = {*problem.parts.train.tolist()}
        self._order = Order(problem.parts.train, self.batch_size, options.seed)
        self._log = LossLog(CUDA_BLOCK if runtime.on_cuda else 1)
        self.state = State(stopping=Stopping(options.patience))
        self.resumed = 0
        self._best: Tensors = {}
        self._saved_at = self._started = time.monotonic()
        self._seconds_before = 0.0
        self._saved_step: int | None = None
        self._pace = Pace(inputs.title, options, len(problem.parts.val), self.batch_size)

    def close(self) -> None:
        """Stop the decoder's threads."""
        self.examiner.close()

    def train(self) -> None:
        """Train to the end, from the checkpoint if there is one.

        Raises:
            Diverged: the loss is not finite; the last checkpoint stays.
            Refused: no image of a part can be decoded, or a score that is not defined on validation.
            MachineFault: the storage or the device fails, or the disk is full; the last checkpoint stays.
            KeyboardInterrupt: interrupted; the progress is in the checkpoint.
        """
        # Every update allocates the same large buffers, which the CPU's heap would clear anew each time.
        heap = nullcontext() if self._runtime.on_cuda else malloc.retain_freed()
        with private_generators(self._runtime), self._interruption, heap:
            self._folder.check_room(self.trainer.bytes * (2 + self._options.restores_best))
            self._resume()
            self._started = time.monotonic()
            try:
                self._validate_if_due()
                if not self._over:
                    self._updates()
            except Interrupted:
                self._save()
                raise KeyboardInterrupt from None
            except Diverged as error:
                raise self._with_checkpoint(error) from error
            finally:
                self.state = replace(self.state, seconds=self._seconds_before + self._elapsed)
            if self._options.restores_best:
                self.trainer.load_weights(self._best)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def _over(self) -> bool:
        return self.state.step >= self._options.steps or self.state.stopping.stops

    def _updates(self) -> None:
        crops = RandomCrops(self._options.seed)
        decoder = make_training_decoder(
            "auto",
            self._inputs.spec.recipe,
            crops,
            device=self._runtime.device,
            threads=self._runtime.threads,
            batch_size=self.batch_size,
        )
        batches = self._order.batches(self.state.step, self._options.steps)
        stream = cast("Generator[DecodedBatch]", decoder.stream(self._inputs.source, batches))
        with decoder, closing(stream):
            for batch in stream:
                self._update(batch)
                self._validate_if_due()
                if self._over:
                    break
                self._between()
                if time.monotonic() - self._saved_at > SAVE_EVERY_S:
                    self._save()

    def _update(self, batch: DecodedBatch) -> None:
        """Train on the images of a batch that could be decoded."""
        step, rows, pixels = self.state.step, list(batch.rows), batch.pixels
        if batch.failures:
            self._note_failures({rows[slot]: failure for slot, failure in batch.failures.items()})
            good = [slot for slot in range(len(rows)) if slot not in batch.failures]
            rows, pixels = [rows[slot] for slot in good], pixels[good]
        if len(rows) > 1 or (rows and self.batch_size == 1):  # BatchNorm has no statistics of one value
            self._log.add(step, self.trainer.update(step, pixels, rows))
        self.state = replace(self.state, step=step + 1)
        self._pace.add(len(rows))
        self._report()

    def _note_failures(self, failures: dict[int, BadImage]) -> None:
        failed = {**self.state.failed, **{row: failure.code for row, failure in failures.items()}}
        self.state = replace(self.state, failed=failed)
        if failed.keys() >= self._train:
            raise nothing_decodable("train", failures)

    def _validate_if_due(self) -> None:
        """Validate after every so many updates and after the last one, unless that was done."""
        step, points = self.state.step, self.state.curve.points
        due = step > 0 and (step % self._options.validate_every == 0 or step >= self._options.steps)
        if due and not (points and points[-1].step == step):
            self._validate()

    def _validate(self) -> None:
        self._log.look()
        scored, step = self._score(), self.state.step
        if not math.isfinite(scored.loss):
            raise Diverged(
                f"The validation loss after step {step:,} is {scored.loss}",
                "Training goes on while the loss is finite",
                "train with a smaller learning rate, for instance a tenth (--lr)",
            )
        stopping, best = self.state.stopping.after(scored.rank, scored.loss, step)
        lr = learning_rate(self._options, step - 1)
        point = CurvePoint(step, lr, self._log.mean, scored.loss, scored.value)
        self.state = replace(self.state, stopping=stopping, curve=self.state.curve.with_point(point))
        self._log.clear()
        if best and self._options.restores_best:
            self._best = self.trainer.weights()
        self._save()
        if self._hooks.on_validation:
            self._hooks.on_validation(
                Validation(self._inputs.title, self._problem.label, self._options.score, self.state.curve)
            )
        self._pace.skip()
        self._report()

    def _report(self) -> None:
        """Call the hooks."""
        state, hooks = self.state, self._hooks
        last = state.curve.points[-1].val_score if state.curve.points else math.nan
        if hooks.on_progress:
            hooks.on_progress(self._pace.progress(state.step, self._log.last, last))
        if hooks.on_estimate and state.step < self._options.steps and self._pace.take_estimate():
            hooks.on_estimate(
                self._pace.estimate(state.step, self.trainer.bytes, self._options.restores_best)
            )

    def _score(self) -> Scored:
        outputs = self.examiner.outputs(self.trainer.network, self._problem.parts.val, "val")
        failed = {row: failure.code for row, failure in outputs.failures.items()}
        self.state = replace(self.state, failed={**self.state.failed, **failed})
        return score(self._problem, self._loss, outputs, self._options.score)

    def _between(self) -> None:
        self._interruption.check()

    # Checkpoints

    def _save(self) -> None:
        """Write the checkpoint. Raises Diverged: a loss since the last validation is not finite."""
        self._log.look()
        self._saved_at = time.monotonic()
        self.state = replace(
            self.state,
            loss_total=self._log.total,
            loss_count=self._log.count,
            scaler=self.trainer.scaler_state(),
            seconds=self._seconds_before + self._elapsed,
        )
        tensors = {**self.trainer.tensors(), **{_BEST + name: t for name, t in self._best.items()}}
        self._folder.keep(CHECKPOINT, tensors, {"state": self.state.to_dict()})
        self._saved_step = self.state.step

    def _resume(self) -> None:
        saved = self._folder.read(CHECKPOINT)
        if saved is None:
            return
        tensors, document = saved
        body = document["state"]
        assert isinstance(body, dict)
        self.state = State.from_dict(body)
        self.trainer.restore(tensors, dict(self.state.scaler))
        self._best = copied(
            {name.removeprefix(_BEST): t for name, t in tensors.items() if name.startswith(_BEST)}
        )
        self._log = LossLog(
            CUDA_BLOCK if self._runtime.on_cuda else 1, self.state.loss_total, self.state.loss_count
        )
        self.resumed = self._saved_step = self.state.step
        self._seconds_before = self.state.seconds
        if self._hooks.on_note:
            self._hooks.on_note(f"{self._inputs.title} goes on after step {self.state.step:,}")

    def _with_checkpoint(self, error: Diverged) -> Diverged:
        kept = "there is no checkpoint before it"
        if self._saved_step is not None:
            kept = f"the checkpoint after step {self._saved_step:,} is kept"
        return Diverged(f"{error.found}; {kept}", error.rule, error.remedy)

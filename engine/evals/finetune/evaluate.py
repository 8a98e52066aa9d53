"""Finetuning: a backbone with its weights and a linear head are trained together, and tested.

SGD with Nesterov momentum on random resized crops and flips; a validation every so many updates decides when
to stop and, in mode `default`, which weights are tested (Anton et al., J. Imaging 2022, 8, 320,
doi:10.3390/jimaging8120320). Parts are those of a linear probe with the same options.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch

from engine.decode import decoder_name
from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.record import Part
from engine.evals.finetune.checkpoints import RunFolder
from engine.evals.finetune.examine import Examiner
from engine.evals.finetune.finished import Finished
from engine.evals.finetune.inputs import Inputs
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.network import FinetuneNetwork, build_network
from engine.evals.finetune.options import STEPS, FinetuneOptions
from engine.evals.finetune.problem import Problem
from engine.evals.finetune.progress import Hooks
from engine.evals.finetune.result import FinetuneResult, Tested, Training
from engine.evals.finetune.scoring import check_defined
from engine.evals.finetune.session import Session
from engine.models.checkpoints.lineage import Lineage
from engine.runtime import Runtime, device_faults, fix_flags
from stores.json_types import JsonObject

__all__ = ["Options", "Result", "Run", "evaluate", "finetune"]

Options = FinetuneOptions
Result = FinetuneResult

_MEMORY = "lower --batch-size, or cut batches into parts with --accumulate, and run the same command again"


@dataclass(frozen=True, eq=False)
class Run:
    """A result, and what it was made with.

    Attributes:
        settings: all that the trained weights depend on.
        flags: of the arithmetic.
        folder: with the finished weights.
    """

    result: FinetuneResult
    settings: JsonObject
    flags: JsonObject
    folder: RunFolder


def evaluate(features: Features, options: FinetuneOptions, compute: Compute) -> FinetuneResult:
    """Finetune the model of a bank's feature on the bank's images, in float32; keeps checkpoints and weights.

    Raises:
        Refused: arrays; or as `finetune`.
        Diverged, MachineFault: as `finetune`.
    """
    source = features.refuse_arrays("Finetuning")
    runtime = Runtime.resolve(compute.device, "fp32", compute.threads, options.seed)
    return finetune(Inputs.of_feature(source, features.label or "label"), options, runtime).result


def finetune(inputs: Inputs, options: FinetuneOptions, runtime: Runtime, hooks: Hooks | None = None) -> Run:
    """Train, from a checkpoint of the same settings if there is one, and test; keeps no record.

    A run that was finished is not trained again.

    Raises:
        Refused: columns, splits or classes that cannot be learned, a score that is not defined on
            validation, a part of which no image can be decoded.
        Diverged: the loss is not finite; the last checkpoint stays.
        MachineFault: the disk or the device failed; the last checkpoint stays.
    """
    start = time.perf_counter()
    problem, loss = prepare(inputs, options, runtime)
    network = build_network(inputs.spec, loss.outputs, options.seed)  # may be refused before a bank is made
    settings = _settings(inputs, problem, options, runtime)
    with device_faults(_MEMORY):
        flags: JsonObject = {**fix_flags(runtime)}
        folder = RunFolder(inputs.bank().path, settings)
        job = _Job(inputs, problem, options, runtime, loss, network, folder, hooks or Hooks())
        finished = job.finished()
        trained = time.perf_counter()
        result = job.test(finished)
    stages = {"train": trained - start, "test": time.perf_counter() - trained}
    return Run(replace(result, stages=stages), settings, flags, folder)


def prepare(inputs: Inputs, options: FinetuneOptions, runtime: Runtime) -> tuple[Problem, Loss]:
    """Read what is learned from which rows; changes nothing.

    Raises:
        Refused: as `finetune`, but for what shows only in the images.
    """
    if options.mode == "as-published" and runtime.precision != "fp32":
        raise Refused(
            f"precision {runtime.precision} in mode as-published",
            "The study computed in float32",
            "use --precision fp32",
        )
    problem = Problem.of(inputs.manifest, inputs.label, options)
    loss = Loss.of(problem.codes, problem.classes, problem.parts.train, options.class_weight)
    check_defined(problem, loss, options.score)
    return problem, loss


@dataclass(frozen=True, eq=False)
class _Job:
    """A run."""

    inputs: Inputs
    problem: Problem
    options: FinetuneOptions
    runtime: Runtime
    loss: Loss
    network: FinetuneNetwork
    folder: RunFolder
    hooks: Hooks

    def finished(self) -> Finished:
        """Return the finished weights of these settings, which are trained if they are not there."""
        there = Finished.read(self.folder)
        if there is not None:
            if self.hooks.on_note:
                self.hooks.on_note(f"{self.inputs.title} was trained with these settings before")
            return there
        session = Session(
            self.inputs, self.problem, self.options, self.runtime, self.network, self.folder, self.hooks
        )
        try:
            session.train()
            finished = Finished.of(self.network, session.state)
        finally:
            session.close()
        finished.keep(self.folder, self._lineage(finished))
        return finished

    def test(self, finished: Finished) -> FinetuneResult:
        """Test the finished weights."""
        network = self.network
        finished.fill(network)
        network.to(self.runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        examiner = Examiner(self.inputs.source, self.inputs.spec.recipe, self.runtime)
        try:
            outputs = examiner.outputs(network, self.problem.parts.test, "test")
        finally:
            examiner.close()
        probabilities = self.loss.probabilities(outputs.logits)
        tested = []
        for number, task in enumerate(self.problem.tasks):
            places = [i for i, row in enumerate(outputs.rows.tolist()) if task.codes[row] >= 0]
            rows = outputs.rows[places]
            of_rows = replace(task, parts=replace(task.parts, test=rows))
            scores = self.problem.of_task(number, probabilities[places])
            tested.append(Tested.of(self.problem, of_rows, scores, self.options))
        failures = self._failures(finished, {row: bad.code for row, bad in outputs.failures.items()})
        training = self._training(finished)
        return FinetuneResult(
            self.problem, tuple(tested), training, self.options, failures, self._notes(training)
        )

    def _failures(self, finished: Finished, test: Mapping[int, str]) -> dict[str, dict[str, int]]:
        val = set(self.problem.parts.val.tolist())
        of_part: dict[str, Counter[str]] = {
            "train": Counter(),
            "val": Counter(),
            "test": Counter(test.values()),
        }
        for row, code in finished.state.failed.items():
            of_part["val" if row in val else "train"][code] += 1
        return {part: dict(sorted(codes.items())) for part, codes in of_part.items()}

    def _training(self, finished: Finished) -> Training:
        state, options = finished.state, self.options
        points = state.curve.points
        tested = state.stopping.best_step if options.restores_best else points[-1].step
        batch = options.batch_for(self.inputs.spec.architecture)
        return Training(
            steps=state.step,
            epochs=state.step * min(batch, len(self.problem.parts.train)) / len(self.problem.parts.train),
            best_step=state.stopping.best_step,
            tested_step=tested,
            val_score=next(point.val_score for point in points if point.step == tested),
            select=options.score,
            curve=state.curve,
            stopped=state.step < options.steps,
            batch_size=batch,
            parameters=sum(parameter.numel() for parameter in self.network.parameters()),
            seconds=state.seconds,
            run=self.folder.digest,
            weights=f"{self.folder.relative}/{Finished.WEIGHTS}",
        )

    def _notes(self, training: Training) -> tuple[str, ...]:
        notes = ["The parts are those of `embank probe` with the same splits, labels and seed"]
        if self.options.mode == "as-published" and self.options.steps != STEPS:
            notes.append(f"{self.options.steps:,} steps; the study took {STEPS:,}")
        if self.options.mode == "as-published":
            notes.append("As in the study the last weights are tested, whatever their validation score")
        if training.stopped:
            notes.append(
                f"Stopped after step {training.steps:,}: {self.options.patience} validations below the best"
            )
        return tuple(notes)

    def _lineage(self, finished: Finished) -> Lineage:
        """Return what the finished weights come from, for their file."""
        spec, manifest = self.inputs.spec, self.inputs.manifest
        names = [task.name for task in self.problem.tasks]
        if not self.problem.several:
            names = [self.problem.tasks[0].classes[code] for code in self.problem.known]
        options: JsonObject = options_document(self.options)
        return Lineage(
            base=spec.slug,
            architecture=spec.architecture,
            base_weights_source=spec.weights_source,
            base_weights_sha256=spec.weights_sha256,
            manifest_digest=manifest.digest,
            image_digest=manifest.image_digest,
            label=self.problem.label,
            classes=tuple(names),
            options=options,
            step=finished.state.stopping.best_step if self.options.restores_best else finished.state.step,
            seed=self.options.seed,
            recipe=spec.recipe.to_dict(),
            base_lineage=spec.lineage.to_dict() if spec.lineage else {},
        )


def options_document(options: FinetuneOptions) -> JsonObject:
    """Return options as JSON values."""
    body: JsonObject = asdict(options)
    return {**body, "findings": list(options.findings)}


def _settings(inputs: Inputs, problem: Problem, options: FinetuneOptions, runtime: Runtime) -> JsonObject:
    """Return all that the trained weights depend on; on the CPU their last bits also on the threads."""
    spec, parts = inputs.spec, problem.parts
    shared = options_document(options)
    for name in ("bootstrap", "policies", "splits", "batch_size"):  # no part in training, or resolved below
        del shared[name]
    return {
        "format": 1,
        "options": {**shared, "select": options.score},
        "batch_size": options.batch_for(spec.architecture),
        "architecture": spec.architecture,
        "weights": spec.weights_sha256,
        "layer": spec.layer,
        "recipe": spec.recipe.digest,
        "precision": runtime.precision,
        "device": "cuda" if runtime.on_cuda else "cpu",
        "decoder": decoder_name("auto", runtime.device),
        "images": inputs.manifest.image_digest,
        "train": problem.digest(parts.train),
        "val": problem.digest(parts.val),
        "parts": {name: Part.of(getattr(parts, name), problem.rows).digest for name in ("train", "val")},
    }

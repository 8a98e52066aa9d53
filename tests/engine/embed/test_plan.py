"""What a run has to do, by hand-made cases; and that parts of a tally add up to it."""

import pickle
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from engine.embed.options import EmbedOptions
from engine.embed.plan import ChunkTask, Plan, Setup, chunks_to_do, group_by_rendering, rows_to_retry
from engine.embed.progress import Reporter, Tally, Watch
from engine.models import ModelSpec, resolve
from engine.pipeline import PassProgress, StageClock
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.keys import Failure


@pytest.fixture(scope="module")
def specs() -> list[ModelSpec]:
    """Three models, of which the first and the last render alike: they differ in the normalisation only."""
    recipe = replace(Recipe(), size=40, crop=32)
    other = replace(recipe, mean=(0.0, 0.0, 0.0))
    model = "random/squeezenet1_1"
    return [resolve(model, recipe=each) for each in (recipe, replace(recipe, crop=40), other)]


def test_chunks_are_done_once_for_all_models_that_lack_them() -> None:
    assert chunks_to_do([{0, 2}, set(), {2, 1}]) == [
        ChunkTask(0, (0,)),
        ChunkTask(1, (2,)),
        ChunkTask(2, (0, 2)),
    ]
    assert chunks_to_do([set(), set()]) == []


def test_rows_are_tried_again_in_committed_chunks_and_where_it_is_worth_it() -> None:
    missing, small, away = (
        Failure(5, "missing", "", True),
        Failure(6, "small", ""),
        Failure(21, "missing", "", True),
    )
    failures = [{0: [missing, small], 2: [away]}, {0: [missing]}, {0: [missing, small]}]
    pending = rows_to_retry(failures, [set(), set(), {0}], lambda _, failure: failure.pending)
    assert pending == [ChunkTask(0, (0, 1), (5,)), ChunkTask(2, (0,), (21,))]
    of_first = rows_to_retry(failures, [set()] * 3, lambda model, _: model == 0)
    assert of_first == [ChunkTask(0, (0,), (5, 6)), ChunkTask(2, (0,), (21,))]
    assert rows_to_retry(failures, [set()] * 3, lambda *_: False) == []


def test_models_that_render_alike_share_a_pass(specs: list[ModelSpec]) -> None:
    assert group_by_rendering(specs) == [[0, 2], [1]]
    setup = Setup(Runtime(), EmbedOptions(), "turbo", "images")
    manifest: Any = None
    plan = Plan(manifest, setup, tuple(specs), {specs[0].slug: "mine"})
    assert [each.positions for each in plan.passes] == [(0, 2), (1,)]
    first, second = plan.passes
    assert [key.name for key in first.keys] == [setup.key(specs[i]).name for i in (0, 2)]
    assert plan.names(second) == {setup.key(specs[1]).name: "mine"}
    assert len(plan.names(*plan.passes)) == 3


def test_a_setup_makes_the_same_keys_in_another_process(specs: list[ModelSpec]) -> None:
    setup = Setup(Runtime(), EmbedOptions(), "turbo", "images")
    assert pickle.loads(pickle.dumps(setup)).key(specs[0]) == setup.key(specs[0])
    assert setup.key(specs[0], "reference").decoder == "reference"


def test_reported_parts_add_up() -> None:
    parts: list[Tally] = []
    reporter, total = Reporter(parts.append), Tally()
    tally = reporter.tally
    for i in range(1, 5):
        tally.rows += i
        tally.failed += i % 2
        tally.first_frames += i == 3
        tally.batch_sizes[2**i] += i
        for clock in tally.stages:
            clock.images += i
            clock.busy_s += 0.5 * i
            clock.waiting_s += 0.25 * i
            clock.blocked_s += 0.125
        tally.encoding.setdefault(i % 2, StageClock()).busy_s += 0.75 * i
        reporter.send()
    tally.rows -= 4  # to be done again
    tally.encoders = {0: {"precision": "fp32"}}
    reporter.send()
    reporter.send()
    for part in parts:
        total.add(pickle.loads(pickle.dumps(part)))
    assert total == tally
    assert [part.rows for part in parts] == [1, 2, 3, 4, -4, 0]
    assert parts[1].batch_sizes == Counter({4: 2})
    assert [part.encoding[0].busy_s for part in parts[1:5]] == [1.5, 0, 3, 0]


def test_progress_is_shown_now_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[PassProgress] = []
    watch = Watch(("m",), 6, shown.append, before=4)
    for rows in (1, 2, 3):
        watch.count(Tally(rows=rows))
    watch.count(Tally())  # the end of the pass: nothing new
    assert [(each.done, each.total, each.before) for each in shown] == [(5, 10, 4), (10, 10, 4)]
    assert watch.tally.rows == 6

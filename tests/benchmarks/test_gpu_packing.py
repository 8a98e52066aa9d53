"""What the GPU suite chooses to run in a time: never more than fits, in order, small after large."""

import math

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.packing import in_order, pack
from benchmarks.gpu.suite import Check, Verdict

CHECKS = st.lists(
    st.builds(
        lambda kind, seconds, rank: Check("", kind, lambda _: Verdict({}), float(seconds), rank),
        st.sampled_from(["proof", "measurement"]),
        st.integers(0, 60),
        st.integers(0, 99),
    ),
    max_size=30,
).map(lambda checks: [Check(str(i), c.kind, c.run, c.seconds, c.rank) for i, c in enumerate(checks)])


@given(CHECKS, st.integers(-10, 600))
def test_a_plan_fits_keeps_the_order_and_leaves_out_only_what_did_not_fit(
    checks: list[Check], seconds: int
) -> None:
    ordered = in_order(checks)
    plan = pack(ordered, seconds, lambda check: check.seconds)
    runs = [check for check, _ in plan.runs]
    assert plan.seconds <= max(seconds, 0) and plan.seconds == math.fsum(check.seconds for check in runs)
    assert runs == [check for check in ordered if check in runs]
    assert sorted([*runs, *(check for check, _ in plan.left)], key=ordered.index) == ordered
    for left, needed in plan.left:
        before = sum(check.seconds for check in runs if ordered.index(check) < ordered.index(left))
        assert before + needed > seconds


@given(CHECKS)
def test_proofs_come_first_then_each_kind_by_rank(checks: list[Check]) -> None:
    ordered = in_order(checks)
    kinds = [check.kind for check in ordered]
    assert kinds == sorted(kinds, reverse=True)
    for kind in ("proof", "measurement"):
        ranks = [check.rank for check in ordered if check.kind == kind]
        assert ranks == sorted(ranks)


def test_a_larger_check_makes_way_for_smaller_ones_behind_it() -> None:
    checks = [Check(n, "proof", lambda _: Verdict({}), s, 0) for n, s in (("a", 30), ("b", 50), ("c", 20))]
    plan = pack(checks, 60, lambda check: check.seconds)
    assert [check.name for check, _ in plan.runs] == ["a", "c"]
    assert "| left out | proof | b | 50 |" in plan.text(1)


def test_seconds_measured_before_replace_the_declared_ones() -> None:
    checks = [Check(n, "proof", lambda _: Verdict({}), 30, 0) for n in ("a", "b")]
    plan = pack(checks, 40, lambda check: {"a": 5.0}.get(check.name, check.seconds))
    assert [seconds for _, seconds in plan.runs] == [5.0, 30]

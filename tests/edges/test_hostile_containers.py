"""Containers whose headers lie or whose keys explode: members fail by name and soon; nothing else does."""

from pathlib import Path

import pytest

from stores.members import Containers, MemberError

FOLDER = Path(__file__).parents[1] / "data" / "edges" / "hostile-containers"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "member", "code"), [("data_batch_2", "0", "too_slow"), ("neg.mha", "slice/0", "truncated")]
)
def test_a_member_fails_by_name(file: str, member: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stores.members.pool._SECONDS", 2.0)
    with (FOLDER / file).open("rb") as handle, pytest.raises(MemberError) as refused:
        Containers().of(handle.fileno(), str(FOLDER / file)).size(member)
    assert refused.value.code == code

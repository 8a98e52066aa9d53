"""Counts and sizes of a feature."""

from dataclasses import dataclass

from stores.bank.keys import FeatureKey


@dataclass(frozen=True)
class FeatureInfo:
    """One line of `embank bank ls`.

    Attributes:
        name: of the feature's group.
        title: the name shown to users; no two features of a bank share one (`stores.bank.names`).
        key: what made it.
        dim: length of an embedding.
        dtype: of the stored embeddings.
        rows: of the bank; ok + failed + pending.
        bytes: of its chunk files.
        sealed: whether it is finished and may be evaluated.
    """

    name: str
    key: FeatureKey
    dim: int
    dtype: str
    rows: int
    ok: int
    failed: int
    pending: int
    bytes: int
    sealed: bool
    title: str

"""A bank's feature as a torch Dataset, for a head trained by hand."""

import torch
from torch.utils.data import Dataset

from stores.bank.reader import FeatureSet


class TorchDataset(Dataset[tuple[torch.Tensor, int]]):
    """Usable rows of a feature: item i is (float32 [dim], label code), copied from the mapped files.

    Pickling stores the location of the bank, not its numbers, so that all workers of a `DataLoader` map the
    same files.

    Args:
        features: of a bank (`Bank.features`).
        label, split: as for `FeatureSet.labelled`.

    Attributes:
        rows: intp [n], the items' places in the bank.
        codes: int64 [n], their labels.
        classes: what the codes stand for, the same for every split.

    Raises:
        Refused, ManifestError, BankError: as `FeatureSet.labelled`.
    """

    def __init__(self, features: FeatureSet, label: str = "label", split: str | None = None) -> None:
        self.features = features
        usable = features.labelled(label, split)
        self.rows, self.codes, self.classes = usable.rows, usable.codes, usable.classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Give one item; raises IndexError outside."""
        row, code = self.rows[index], int(self.codes[index])
        return torch.from_numpy(self.features.array[row].astype("float32")), code

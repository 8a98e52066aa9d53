"""The input of evaluations: a bank's feature or a user's own arrays, with labels, groups, splits and ids.

    from embank import Features
    features = Features.from_bank("xrays.bank", "torchvision/resnet50")
    features = Features.from_arrays(embeddings, labels, groups=patients)

Making one reads no embedding of a bank and copies none of an array; columns and ids are read when they are
first needed.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.common.labels import Labels, group_codes, label_codes, text_codes
from engine.evals.common.splits import SplitRows, split_rows
from engine.kernels.float16 import finite_rows
from engine.runtime import device_faults
from stores.bank.image_ids import image_ids
from stores.bank.layout import COLUMNS, MANIFEST
from stores.bank.reader import Bank, FeatureSet
from stores.json_types import JsonObject
from stores.parquet import Texts


@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """The bank and the feature that features come from.

    Attributes:
        bank: that they lie in.
        features: the sealed feature.
    """

    bank: Bank
    features: FeatureSet

    @property
    def key(self) -> str:
        """Digest of all that the embeddings depend on."""
        return self.features.key.digest

    @property
    def manifest_file(self) -> str:
        """SHA-256 of the manifest's file."""
        return self.bank.files[MANIFEST]


@dataclass(frozen=True, eq=False, repr=False)
class Usable:
    """Rows that an evaluation can use, and how many it cannot, each for the first reason that holds.

    Attributes:
        rows: intp, ascending.
        outside: rows of other splits.
        failed: rows within, without an embedding.
        unlabelled: rows within, with an embedding and without a label.
    """

    rows: NDArray[np.intp]
    outside: int
    failed: int
    unlabelled: int

    @classmethod
    def of(
        cls, codes: NDArray[np.int64], ok: NDArray[np.bool_], inside: NDArray[np.bool_] | None = None
    ) -> "Usable":
        """Find the rows that have an embedding and a label.

        Args:
            codes: int64 [N] of the labels, -1 without one.
            ok: bool [N], rows that have an embedding.
            inside: bool [N], the rows that are meant; None for all.
        """
        within = ok if inside is None else ok & inside
        meant = len(codes) if inside is None else int(np.count_nonzero(inside))
        rows, embedded = np.flatnonzero(within & (codes >= 0)), int(np.count_nonzero(within))
        return cls(rows, len(codes) - meant, meant - embedded, embedded - len(rows))

    def to_dict(self) -> JsonObject:
        """Return `{failed, unlabelled, outside_split, masked}`, the last being the first two together."""
        return {
            "failed": self.failed,
            "unlabelled": self.unlabelled,
            "outside_split": self.outside,
            "masked": self.failed + self.unlabelled,
        }


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of N images; made by `from_bank` or `from_arrays`.

    Attributes:
        name: full name in the bank; what the user called arrays.
        title: the name shown to users.
        array: [N, d] of any float type: numpy, perhaps mapped from files, or a torch tensor.
        ok: bool [N], rows that have an embedding.
        label: column of the manifest that the labels come from; None for arrays.
        data_set: what decides, with a protocol, which images are drawn; the features do not.
        source: the bank; None for arrays.
        columns: gives the `Labels` of `label`, `group`, `split`, `study` and `view`, and of any other column
            that a bank's manifest or the arrays' `findings` have; None for one that there is not.
        ids: gives the ids of the images.
    """

    name: str
    title: str
    array: Any
    ok: NDArray[np.bool_]
    label: str | None
    data_set: str
    source: Source | None
    columns: Callable[[str], Labels | None]
    ids: Callable[[], Texts]

    @classmethod
    def from_bank(cls, bank: Bank | Path | str, model: str | None = None, label: str = "label") -> "Features":
        """Take a sealed feature of a bank.

        Args:
            bank: a bank, its path or its URL.
            model: slug, feature name, or a beginning that fits one feature; None if there is one only.
            label: column of the manifest whose texts are the classes.

        Raises:
            BankError: no such bank or feature, or a damaged one.
        """
        store = bank if isinstance(bank, Bank) else Bank.open(bank)
        features = store.features(model)

        def column(name: str) -> Labels:
            wanted = label if name == "label" else name
            codes, names = store.column(wanted) if wanted in COLUMNS else _manifest_column(store, wanted)
            return Labels(codes.astype(np.int64), tuple(names))

        return cls(
            features.name, features.title, features.array, features.ok, label, store.image_digest,
            Source(store, features), column, lambda: image_ids(store),
        )  # fmt: skip

    @classmethod
    def from_arrays(
        cls,
        array: Any,
        labels: Any,
        *,
        groups: Any = None,
        splits: Any = None,
        studies: Any = None,
        views: Any = None,
        findings: Mapping[str, Any] | None = None,
        image_ids: Sequence[str] | None = None,
        ok: ArrayLike | None = None,
        name: str = "features",
        data_set: str = "",
    ) -> "Features":
        """Take arrays.

        Args:
            array: [N, d] of any float type; a torch tensor stays on its device.
            labels: [N] whole numbers or texts (`engine.evals.common.labels`); rows without one are not
                classified. None for evaluations that need none.
            groups: [N] patients, as labels; a missing one is a patient of its own.
            splits: [N] texts such as `train`; a missing one is in no split.
            findings: name -> [N] cells: 1, 0, -1 (uncertain) or missing, numbers or texts.
            studies, views: [N] as labels, for multi-view invariance: what was taken at one visit, and from
                where, e.g. `frontal`; a missing one is paired with none.
            image_ids: N different texts; by default the numbers of the rows.
            ok: bool [N], rows that have features; None looks at all numbers: those of finite ones.
            name: what the features are called in results.
            data_set: name or digest of the images, for evaluations that draw some of them.

        Raises:
            Refused: arrays that do not belong together, or labels that are none.
        """
        array = array if hasattr(array, "shape") else np.asarray(array)
        shape = tuple(array.shape)
        read = label_codes([""] * (shape[0] if shape else 0) if labels is None else labels)
        rows = len(read.codes)
        if len(shape) != 2 or shape[0] != rows or (ok is not None and np.shape(ok) != (rows,)):
            raise Refused(
                f"features of shape {shape} for {rows} labels",
                "They are a matrix with a row for each label",
                "give arrays that belong together",
            )
        of: dict[str, Labels | None] = {**_findings(findings or {}, rows), "label": read}
        columns = {"group": groups, "split": splits, "study": studies, "view": views}
        for column, values in columns.items():
            plural = _PLURALS[column]
            of[column] = None if values is None else _of_rows(group_codes(values), rows, plural)
        usable = _finite(array) if ok is None else np.asarray(ok, np.bool_)
        if image_ids is not None:
            _check_ids(image_ids, rows)
        ids = (lambda: Texts.of(map(str, range(rows)))) if image_ids is None else lambda: Texts.of(image_ids)
        return cls(name, name, array, usable, None, data_set, None, of.get, ids)

    def __len__(self) -> int:
        return len(self.ok)

    def __repr__(self) -> str:
        where = "" if self.source is None else f" in {self.source.bank.path}"
        kind = str(self.array.dtype).removeprefix("torch.")
        shape = f"{len(self):,} x {self.array.shape[1]} {kind}"
        return f"Features({self.title}{where}: {shape}, {int(self.ok.sum()):,} usable)"

    def on(self, device: str, memory: int | None = None) -> Any:
        """Return the matrix on a device, where it stays for further evaluations.

        Embeddings of a bank are uploaded once for all evaluations of this process that compute there,
        whoever opened the bank (`engine.runtime.resident`). A copy of a user's array belongs to this object,
        and does not follow changes of the array.

        Args:
            device: `cpu` or `cuda:N`.
            memory: bytes that the evaluation may take (`Compute.memory`); None for what is free.

        Returns:
            [N, d] in the stored precision: a torch tensor on the device, shared, so not to be written to;
            on the CPU a numpy array (bfloat16, which numpy lacks, as float32). None without room there.

        Raises:
            BankError: a chunk is missing or damaged. MachineFault: the storage or the device fails.
        """
        if device == "cpu":
            return _numpy(self.array) if is_torch(self.array) else self.array
        if is_torch(self.array) and self.array.device == _torch_device(device):
            return self.array
        from engine.runtime.resident import resident_copy, resident_embeddings

        with device_faults():
            if self.source is not None:
                return resident_embeddings(self.source.features, device, memory)
            copies = self.__dict__.setdefault("_copies", {})  # at once, for several threads
            return resident_copy(
                copies, self.array.nbytes, device, memory, lambda: _copied(self.array, device)
            )

    def matrix(self, device: str, memory: int | None = None) -> Any:
        """Return the matrix [N, d] on a device if there is room, else the array; otherwise as `on`."""
        copy = self.on(device, memory)
        return self.array if copy is None else copy

    @cached_property
    def labels(self) -> Labels:
        """Codes int64 [N], -1 without a label, and what they stand for."""
        labels = self.columns("label")
        assert labels is not None
        return labels

    @cached_property
    def groups(self) -> Labels | None:
        """Patients, as labels; None where none are known."""
        return self.columns("group")

    @cached_property
    def splits(self) -> Labels | None:
        """Splits, as labels; None where none are known."""
        return self.columns("split")

    @cached_property
    def image_ids(self) -> Texts:
        """The ids of all images. Of a bank they are read once, from its manifest or from a copy beside it."""
        return self.ids()

    def texts(self, column: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return codes [N], -1 where missing, and the texts that they index; none without such a column.

        Args:
            column: `label`, `split`, `group`, `study` or `view`.
        """
        at_hand = {"label": "labels", "split": "splits", "group": "groups"}
        labels: Labels | None = getattr(self, at_hand[column]) if column in at_hand else self.columns(column)
        if labels is None:
            return np.full(len(self), -1, np.int64), []
        if labels.names is not None:
            return labels.codes, list(labels.names)
        values, codes = np.unique(labels.codes, return_inverse=True)
        missing = int((values < 0).sum())
        return codes.astype(np.int64) - missing, [str(value) for value in values[missing:].tolist()]

    def column(self, name: str) -> Labels:
        """Return the texts of any column as codes [N], -1 where a cell is empty, and what they index.

        Raises:
            Refused: there is no such column. BankError: a damaged file.
        """
        cells = self.columns(name)
        if cells is None:
            raise Refused(
                f"column {name!r} of {self.title}",
                "Arrays have the columns that they were given",
                "give it among the `findings` of Features.from_arrays",
            )
        return cells

    def usable(self, inside: NDArray[np.bool_] | None = None) -> Usable:
        """Find the rows that have an embedding and a label; arguments as for `Usable.of`."""
        return Usable.of(self.labels.codes, self.ok, inside)

    def split_rows(self, words: Mapping[str, str]) -> SplitRows:
        """Find the rows of splits; none where there is no such split.

        Args:
            words: part -> the word for its split (`stores.manifest.split_words`).

        Raises:
            Refused: two words mean the same split.
        """
        splits = self.splits
        if splits is None:
            return split_rows(np.full(len(self), -1), (), words)
        return split_rows(splits.codes, splits.names or (), words)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Names of all splits."""
        return () if self.splits is None else self.splits.names or ()

    @property
    def split_remedy(self) -> str:
        """Advice for a message: how features without splits get them."""
        return "give `splits` to Features.from_arrays" if self.source is None else name_column("split")

    def refuse_arrays(self, evaluation: str) -> Source:
        """Return the bank of the features, for an evaluation that opens their images.

        Raises:
            Refused: they are arrays.
        """
        if self.source is None:
            raise Refused(
                f"{evaluation} of arrays",
                "It embeds the images again, which only a bank leads to",
                "embed the images with `embank embed` and take Features.from_bank(BANK, MODEL)",
            )
        return self.source


def _manifest_column(bank: Bank, name: str) -> tuple[NDArray[np.int32], list[str]]:
    from stores.bank.labelled import column_codes

    return column_codes(bank, name)


#: What the arguments of `Features.from_arrays` are called.
_PLURALS = {"group": "groups", "split": "splits", "study": "studies", "view": "views"}


def is_torch(array: Any) -> bool:
    """Return whether an array is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(array, torch.Tensor)


def _numpy(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _torch_device(device: str) -> Any:
    import torch

    return torch.device(device)


def _copied(array: Any, device: str) -> Any:
    """Copy a user's array or tensor to a CUDA device."""
    from engine.runtime import upload

    if not is_torch(array):
        return upload(array, device)
    array = array.detach()
    known_to_numpy = array.device.type == "cpu" and str(array.dtype) != "torch.bfloat16"
    return upload(array.numpy(), device) if known_to_numpy else array.to(device)


def _finite(array: Any) -> NDArray[np.bool_]:
    if is_torch(array):
        on_host: NDArray[np.bool_] = array.isfinite().all(dim=1).cpu().numpy()
        return on_host
    return finite_rows(array)


def _findings(findings: Mapping[str, Any], rows: int) -> dict[str, Labels | None]:
    for name in ("label", "group", "split"):
        if name in findings:
            raise Refused(
                f"a finding called {name!r}",
                "That is the name of the labels, groups or splits",
                "give it another name",
            )
    return {name: _of_rows(text_codes(cells), rows, f"cells of {name!r}") for name, cells in findings.items()}


def _of_rows(labels: Labels, rows: int, what: str) -> Labels:
    if len(labels.codes) != rows:
        raise Refused(f"{len(labels.codes)} {what} for {rows} labels", "There is one a row", "give one a row")
    if what == "splits" and labels.names is None:
        values, codes = np.unique(labels.codes, return_inverse=True)
        missing = int((values < 0).sum())
        return Labels(codes - missing, tuple(str(value) for value in values[missing:].tolist()))
    return labels


def _check_ids(ids: Sequence[str], rows: int) -> None:
    if len(ids) != rows or len(set(ids)) != rows or not all(isinstance(name, str) for name in ids):
        raise Refused(
            f"{len(ids)} image ids, {len(set(ids))} different ones, for {rows} labels",
            "Every row has an id of its own, a text",
            "give as many different texts, or none for the numbers of the rows",
        )

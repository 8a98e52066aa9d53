"""The images that vote, those that are classified, and the possible numbers of neighbours."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.features import Usable
from engine.evals.neighbours.options import DEFAULT_K
from engine.kernels.codes import distinct, fill_singletons


@dataclass(frozen=True)
class Parts:
    train: NDArray[np.intp]
    test: NDArray[np.intp]
    masked: dict[str, int]
    leave_one_out: bool

    @classmethod
    def of(
        cls,
        codes: NDArray[np.int64],
        train: ArrayLike | None,
        test: ArrayLike | None,
        finite: NDArray[np.bool_],
    ) -> "Parts":
        alone = train is None and test is None
        if not alone and (train is None or test is None):
            raise Refused("One part without the other", "Train and test go together", "give both, or none")
        every = np.ones(len(codes), bool)
        wanted = {
            "train": every if train is None else np.asarray(train, bool),
            "test": every if test is None else np.asarray(test, bool),
        }
        if not alone and (wanted["train"] & wanted["test"]).any():
            raise Refused(
                f"{int((wanted['train'] & wanted['test']).sum())} rows in both parts",
                "No image is trained on and tested",
                "name two different splits, or use --leave-one-out",
            )
        either = Usable.of(codes, finite, wanted["train"] | wanted["test"])
        masked = {"failed": either.failed, "unlabelled": either.unlabelled}
        rows = {}
        for name, part in wanted.items():
            usable = Usable.of(codes, finite, part)
            rows[name] = usable.rows
            if not len(usable.rows):
                raise Refused(
                    f"No usable {'row' if alone else name + ' row'} among {int(part.sum())} "
                    f"({usable.failed} failed, {usable.unlabelled} without a label)",
                    "Images with an embedding and a label are needed",
                    "check the split and label columns (`embank manifest check`) and the failures "
                    "(`embank bank show --failures`)",
                )
        classes = distinct(codes[rows["train"]])
        if len(classes) < 2:
            raise Refused(
                f"{len(classes)} class among the {len(rows['train'])} images that vote",
                "Classification needs at least two",
                "add images of another class, or choose another split",
            )
        return cls(rows["train"], rows["test"], masked, alone)

    def without_own(self, groups: NDArray[np.int64]) -> "Parts":
        """Mask the test rows of a patient who has all images that could vote."""
        voting = distinct(groups[self.train])
        if len(voting) > 1 or voting[0] < 0:
            return self
        alone = groups[self.test] == voting[0]
        if alone.all():
            raise Refused(
                f"All {len(self.train)} images that vote and all {len(self.test)} to be classified are of "
                "one group (patient)",
                "A patient's images have no vote for one another",
                "add images of other groups, or let them vote with --no-group-disjoint",
            )
        if not alone.any():
            return self
        masked = {**self.masked, "only_own_patient": int(alone.sum())}
        return replace(self, test=self.test[~alone], masked=masked)


def keys_of(
    parts: Parts, groups: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the keys that queries must not share with neighbours: the group if given, else the row."""
    if groups is None:
        return (parts.test, parts.train) if parts.leave_one_out else None
    key = fill_singletons(groups)
    return key[parts.test], key[parts.train]


def allowed_k(
    ks: tuple[int, ...], base: int, keys: tuple[NDArray[np.int64], NDArray[np.int64]] | None
) -> tuple[int, ...]:
    """Return the ks to compute; refuse one larger than the candidates of some query."""
    taken = 0
    if keys is not None:
        values, counts = np.unique(keys[1], return_counts=True)
        taken = int(counts[np.isin(values, keys[0])].max(initial=0))
    room = base - taken
    ks = tuple(dict.fromkeys(ks or (k for k in DEFAULT_K if k <= room)))
    if not ks or max(ks) > room:
        less = f" less {taken} of a query's own image or group" if taken else ""
        vote = (
            ", or let a patient's images vote for one another with --no-group-disjoint" if taken > 1 else ""
        )
        raise Refused(
            f"k = {max(ks, default=1)} with {base} images to choose from{less}",
            f"k is at most {room} here",
            f"lower --k, or add images to the train part{vote}",
        )
    return ks

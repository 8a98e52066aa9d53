"""The weights that a run ends with, and their files: the backbone's, and beside it the head's."""

from dataclasses import dataclass
from typing import ClassVar

from engine.evals.finetune.checkpoints import CHECKPOINT, HEAD, WEIGHTS, RunFolder, State, Tensors
from engine.evals.finetune.network import FinetuneNetwork, copied, load_own
from engine.models.backbones import architectures
from engine.models.checkpoints.lineage import Lineage
from engine.models.checkpoints.weights import state_sha256
from stores.json_types import JsonObject


@dataclass(frozen=True, eq=False)
class Finished:
    """Finished weights.

    Attributes:
        backbone: under the names of its library, as `engine.models` reads them.
        head: `weight` float32 [K, d] and `bias` [K].
        state: at the end of the run.
    """

    WEIGHTS: ClassVar[str] = WEIGHTS

    backbone: Tensors
    head: Tensors
    state: State

    @classmethod
    def of(cls, network: FinetuneNetwork, state: State) -> "Finished":
        """Copy the weights of a network."""
        backbone, head = network.parts
        return cls(copied(backbone), copied(head), state)

    @classmethod
    def read(cls, folder: RunFolder) -> "Finished | None":
        """Read the files of a run; None if they are absent, damaged, or do not belong together."""
        backbone, head = folder.read(WEIGHTS), folder.read(HEAD)
        if backbone is None or head is None or head[1].get("backbone_sha256") != state_sha256(backbone[0]):
            return None
        state = head[1].get("state")
        return cls(backbone[0], head[0], State.from_dict(state)) if isinstance(state, dict) else None

    def keep(self, folder: RunFolder, lineage: Lineage) -> None:
        """Write the files, and remove the checkpoint.

        Equal weights make an equal file of the backbone: its bytes are part of what their features are known
        by. What two runs differ in, as their seconds, is beside the head.

        Raises:
            MachineFault: the disk is full or fails; the checkpoint stays, and the same command goes on.
        """
        document: JsonObject = {"lineage": lineage.to_dict()}
        of_head: JsonObject = {"backbone_sha256": state_sha256(self.backbone), "state": self.state.to_dict()}
        folder.keep(HEAD, self.head, {**document, **of_head})
        folder.keep(WEIGHTS, self.backbone, document)
        folder.remove(CHECKPOINT)

    def fill(self, network: FinetuneNetwork) -> None:
        """Put the weights into a network."""
        load_own(architectures.body(network.backbone), self.backbone)
        load_own(network.head, self.head)

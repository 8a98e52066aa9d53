"""Selection of the notes of probes that are printed; records and JSON documents contain all of them."""

from collections.abc import Mapping
from typing import Any

from engine.evals.probe.selection import NOT_UNIQUE


class ProbeNotes:
    """A filter for the notes of all results of a command."""

    def __init__(self) -> None:
        self._warned = False

    def should_print(self, note: str, result: Mapping[str, Any]) -> bool:
        """Return whether to print a note.

        Nearly every fit has more features than images, which regularisation takes care of. This matters only
        if the weakest regularisation that was tried is chosen, and its C is not small; the note is then
        printed, once.

        Args:
            note: of a result.
            result: whose note it is.
        """
        if not note.endswith(NOT_UNIQUE):
            return True
        grid = result.get("sweep", {}).get("C", ())
        weakest = len(grid) > 1 and result["best_C"] == max(grid) and result["best_C"] >= 1
        if self._warned or not weakest:
            return False
        self._warned = True
        return True

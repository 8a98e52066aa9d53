"""Which notes of probes are printed. All of them stay in the record and in the JSON document."""

from collections.abc import Mapping
from typing import Any

from engine.evals.probe.selection import NOT_UNIQUE


class ProbeNotes:
    """The notes worth printing, over all results of a command."""

    def __init__(self) -> None:
        self._said = False

    def prints(self, note: str, result: Mapping[str, Any]) -> bool:
        """Decide whether to print a note.

        That there are more features than images is so at nearly every fit, and regularisation is what probes
        have for that. It matters where the weakest regularisation tried was chosen, with a C that is not
        small; then it is said, once.

        Args:
            note: of a result.
            result: whose note it is.
        """
        if not note.endswith(NOT_UNIQUE):
            return True
        grid = result.get("sweep", {}).get("C", ())
        weakest = len(grid) > 1 and result["best_C"] == max(grid) and result["best_C"] >= 1
        if self._said or not weakest:
            return False
        self._said = True
        return True

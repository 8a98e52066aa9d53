"""The first run: the shipped study `quick.yaml`, on pictures and weights that packages ship, offline."""

from dataclasses import dataclass
from pathlib import Path

from engine.report.page.inputs import PageOptions
from engine.report.page.sections.verdict import verdict
from engine.study.page_input import page_input
from engine.study.place import shipped
from engine.study.read import read_study
from engine.study.reporting import write_report
from engine.study.study import Study

#: Name of the study that is run.
STUDY = "quick.yaml"


@dataclass(frozen=True)
class Quickstart:
    """What the first run consists of.

    Attributes:
        file: the study file.
        study: what it says.
    """

    file: Path
    study: Study

    def report(self, directory: Path) -> Path:
        """Write the report of the study's folder, and return its path.

        Raises:
            BankError: a bank is damaged. MachineFault: the disk is full.
        """
        return write_report(self.study, directory)

    def verdict(self, directory: Path) -> tuple[str, ...]:
        """Return the sentences with which the report begins. Raises BankError: a bank is damaged."""
        sentences = verdict(page_input(self.study, directory), PageOptions(timings=False))
        return tuple(sentence.text for sentence in sentences)


def quickstart() -> Quickstart:
    """Read the shipped study."""
    file = shipped()[STUDY]
    return Quickstart(file, read_study(file, file.parent))

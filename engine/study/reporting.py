"""The report of a study: written into its folder when something has changed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from engine.study import folder
from engine.study.page_input import page_input
from engine.study.study import Study
from engine.versions import versions
from stores.manifest.atomic_file import atomic_file


def write_report(study: Study, directory: Path) -> Path:
    """Write the report of a study, unless the one that is there is of the very same records.

    Args:
        directory: of the study, which has been run.

    Returns:
        Its path.

    Raises:
        BankError: a bank is damaged. MachineFault: the disk is full.
    """
    from engine.report.page.assemble import report_html
    from engine.report.page.inputs import PageOptions

    path, page = directory / folder.REPORT, page_input(study, directory)
    names = [[source.name, [entry.name for entry in source.entries]] for source in page.sources]
    gaps = [list(vars(gap).values()) for gap in page.gaps]
    body = [page.title, page.study, names, gaps, versions(("embank", "jinja2"))]
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    note = folder.read_note(directory)
    if note is not None and note.reported == digest and path.is_file():
        return path
    with atomic_file(path) as file:
        file.write(report_html(page, PageOptions()))
    if note is not None:
        replace(note, reported=digest).write(directory)
    return path

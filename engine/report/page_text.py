"""What was written of a report page, on the console; the page's path is the last line."""

from collections.abc import Mapping

from engine.report import console
from engine.report.json_parts import objects
from engine.report.page.numbers import finite
from stores.json_types import Json

#: Gaps that are printed; more are counted.
_LISTED = 5


def print_report(document: Mapping[str, Json]) -> None:
    """Print gaps, sizes and the path.

    Args:
        document: of `engine.study.report.Report.to_dict`.
    """
    gaps = objects(document.get("gaps") or [])
    for gap in gaps[:_LISTED]:
        names = (gap.get("dataset"), gap.get("model"), gap.get("evaluation"))
        where = " / ".join(str(name) for name in names if name)
        console.say(f"{gap.get('state')}: {where}: {gap.get('reason')}. Remedy: {gap.get('remedy')}.")
    if len(gaps) > _LISTED:
        console.say(f"{len(gaps) - _LISTED} more are on the page.")
    size = (finite(document.get("bytes")) or 0.0) / 1e6
    console.write(f"{document.get('records'):,} records, {size:.2f} MB")
    tables = document.get("tables")
    if isinstance(tables, list) and tables:
        console.write(f"{len(tables)} files of tables in {str(tables[0]).rpartition('/')[0]}")
    console.write(document.get("file"))

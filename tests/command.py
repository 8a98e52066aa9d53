"""The command line, run inside the test's process."""

import contextlib
import io
import json
import sys
from dataclasses import dataclass

import pytest
import typer

import cli

#: Typer would build it anew in every call, which takes longer than many a command.
_COMMAND = typer.main.get_command(cli.app)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def embank(*words: object) -> Ran:
    """Run the command line in this process, through the same entry point as the installed script."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["embank", *map(str, words)]
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as end,
        ):
            cli.main(_COMMAND)
            sys.exit(0)
    finally:
        sys.argv = before
    return Ran(end.value.code or 0, out.getvalue(), err.getvalue())

"""The end of an interrupted command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
INTERRUPTED = """
import os, signal
from engine.report import process

with process.prepared():
    {body}
"""
KILL = "os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)"


@pytest.mark.parametrize("body", [KILL, f"exec({KILL!r})"], ids=["plain", "in code of a string"])
def test_an_interrupted_module_ends_with_130(body: str, tmp_path: Path) -> None:
    """`python -m` would end by the signal where code of a string, e.g. of a dataclass, is interrupted."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED.format(body=body))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert "Stopped." in done.stderr and "Traceback" not in done.stderr

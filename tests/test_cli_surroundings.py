"""Streams closed or full, folders gone, little memory, other encodings: words and a code, no traceback."""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import cli
from engine.report import console, process
from stores.errors import MachineFault
from stores.manifest.manifest import Manifest
from tests.command import Ran, embank
from tests.stores.banks import make_bank

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EMBANK = f"{sys.executable} -m cli"


def shell(line: str, cwd: Path = ROOT, **environ: str) -> Ran:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    ran = subprocess.run(["bash", "-c", line], cwd=cwd, env=env, capture_output=True, timeout=120)
    out, err = ran.stdout.decode("latin-1"), ran.stderr.decode("latin-1")
    assert "Traceback" not in err, err
    assert "Exception ignored" not in err, err
    return Ran(ran.returncode, out, err)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("surroundings") / "bank"
    make_bank(path, 60, 4, 16)
    return path


CLOSED = {
    "closed": (">&-", 2, "Standard output is closed"),
    "full": (">/dev/full", 3, "No space left on device"),
    "full, with JSON": ("--json >/dev/full", 3, "No space left on device"),
    "unwritable": ("1</dev/null", 3, "Standard output"),
    "input closed": ("<&-", 0, ""),
    "errors closed": ("2>&-", 0, ""),
    "errors full": ("2>/dev/full", 0, ""),
    "both full": (">/dev/full 2>/dev/full", 3, ""),
    "both closed": (">&- 2>&-", 2, ""),
    "all closed": ("<&- >&- 2>&-", 2, ""),
}


@pytest.mark.parametrize("how", CLOSED)
def test_streams_that_take_nothing(bank: Path, how: str) -> None:
    redirection, code, said = CLOSED[how]
    ran = shell(f"{EMBANK} bank ls {bank} {redirection}")
    assert (ran.code, said in ran.err) == (code, True), ran.err


def test_a_command_ends_without_a_search_for_cycles() -> None:
    """It takes a tenth of a short command's time."""
    code = (
        "import atexit, cli, gc, sys\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"  # runs after those registered later
        "sys.argv = ['embank', '--version']\n"
        "cli.main()"
    )
    assert shell(f'{sys.executable} -c "{code}"').out.splitlines()[-1] == "True"


@pytest.mark.parametrize("loaded", [None, "triton", "nvidia.dali", "torch"])
def test_what_must_be_taken_down_in_order_is(monkeypatch: pytest.MonkeyPatch, loaded: str | None) -> None:
    on_gpu = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True))
    for name in ("triton", "nvidia.dali", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, loaded, on_gpu)  # type: ignore[arg-type]
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    process._leave_cycles()
    assert bool(frozen) == (loaded is None)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_a_refusal_that_cannot_be_said_is_one(tmp_path: Path, redirection: str) -> None:
    assert shell(f"{EMBANK} bank ls {tmp_path} {redirection}").code == 2


def test_files_are_not_opened_in_the_place_of_a_closed_stream(bank: Path, tmp_path: Path) -> None:
    """What a library prints to descriptor 2 would else go into whatever file was opened first."""
    code = (
        "import os, cli, sys\n"
        "def run():\n"
        f"    with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "        os.write(2, b'noise')\n"
        "    print('done')\n"
        "cli.main(run)"
    )
    ran = shell(f'{sys.executable} -c "$CODE" 2>&-', CODE=code)
    assert (ran.code, ran.out) == (0, "done\n")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_reader_that_has_had_enough() -> None:
    """Quietly, as SIGPIPE ends other programs: 141. (models list alone would fit into the pipe.)"""
    code = "import cli\ncli.main(lambda: [print('x' * 100) for _ in range(100000)])"
    ran = shell(f'{sys.executable} -c "$CODE" | head -1; exit ${{PIPESTATUS[0]}}', CODE=code)
    assert (ran.code, ran.err) == (process.EXIT_BROKEN_PIPE, "")
    ran = shell(f"{EMBANK} models list | true; exit ${{PIPESTATUS[0]}}")
    assert (ran.code, ran.err) == (process.EXIT_BROKEN_PIPE, "")


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "POSIX": {"LC_ALL": "POSIX", "LANG": ""},
}


@pytest.mark.parametrize("locale", ENCODINGS)
def test_other_encodings(bank: Path, locale: str) -> None:
    """Plus-minus, box drawing, and names in any script."""
    environ = ENCODINGS[locale]
    code = (
        "import cli\nfrom engine.report import console\n"
        "name = '\\u80ba \\u00b1 \\u2500 \\udcff'\n"
        "def run():\n"
        "    console.print_table([name], [[name]], title=name)\n"
        "    console.say(name)\n"
        "    console.print_json({'name': name})\n"
        "cli.main(run)"
    )
    ran = shell(f'{sys.executable} -c "$CODE"', CODE=code, **environ)
    assert ran.code == 0, ran.err
    text = ran.out.encode("latin-1").decode("utf-8" if locale == "POSIX" else "latin-1")
    assert json.loads(text[text.index("{") :])["name"] == "肺 ± ─ \udcff"
    assert shell(f"{EMBANK} fewshot --help", **environ).code == 0


def test_a_name_that_is_no_utf8_in_a_table(bank: Path) -> None:
    ran = shell(f"{EMBANK} bank ls $'/nowhere/\\xff\\xfe'")
    assert ran.code == 2
    assert "not a bank" in ran.err


@pytest.mark.parametrize(
    "words", ["bank ls bank", "models list", "embed m.csv --model random/resnet18 --bank b"]
)
def test_a_working_folder_that_is_gone(words: str, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ran = shell(f"rmdir {gone}; {EMBANK} {words}", cwd=gone)
    assert (ran.code, "working folder" in ran.err, "remedy:" in ran.err) == (2, True, True), ran.err


@pytest.mark.parametrize(
    ("words", "MiB"), [("models list", 60), ("models list", 120), ("bank ls {bank}", 100)]
)
def test_too_little_memory(bank: Path, words: str, MiB: int) -> None:
    ran = shell(f"ulimit -v {MiB * 1024}; {EMBANK} {words.format(bank=bank)}")
    assert (ran.code, "ulimit -v" in ran.err) == (3, True), ran.err


def test_too_little_memory_for_torch(bank: Path) -> None:
    ran = shell(
        f"ulimit -v {700 * 1024}; {EMBANK} embed {bank}/manifest.parquet --model random/resnet18 --bank b"
    )
    assert (ran.code, "torch" in ran.err) == (3, True), ran.err


def raising(error: BaseException) -> Callable[[], None]:
    def run() -> None:
        raise error

    return run


def main(run: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(run)
    return end.value.code, capsys.readouterr().err  # type: ignore[return-value]


ERRORS = {
    "memory": (MemoryError(), "out of memory", 3),
    "numpy's memory": (None, "Unable to allocate", 3),
    "torch's memory": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        "out of memory",
        3,
    ),
    "threads": (RuntimeError("can't start new thread"), "out of memory", 3),
    "recursion": (RecursionError("maximum recursion depth exceeded"), "nested", 3),
    "interrupt": (KeyboardInterrupt(), "Stopped.", 130),
    "broken pipe elsewhere": (BrokenPipeError(32, "Broken pipe"), "Broken pipe", 3),
    "a bug": (ZeroDivisionError("division by zero"), "an error in embank", 3),
    "a bug without words": (AssertionError(), "AssertionError: no message", 3),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_unexpected_errors(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    error, said, code = ERRORS[kind]
    run = raising(error) if error else lambda: np.empty(10**17)
    assert (found := main(run, capsys))[0] == code
    assert said in found[1]
    assert "Traceback" not in found[1]
    kept = list(tmp_path.glob("embank-*.txt"))
    assert len(kept) == ("bug" in kind)
    for path in kept:
        assert str(path) in found[1]
        assert type(error).__name__ in path.read_text()


def test_where_a_bug_arose_can_be_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(process.DEBUG_VARIABLE, "1")
    code, err = main(raising(ZeroDivisionError("division by zero")), capsys)
    assert (code, "Traceback" in err, "in raising" in err or "in run" in err) == (3, True, True)


def test_an_error_on_the_way_out_of_an_interrupt_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            raise MachineFault("the store does not answer", "", "")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert main(run, capsys)[0] == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_so(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        cli.main(lambda: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)


def test_deeply_nested_json_is_refused(bank: Path, tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    words = ["--model", "random/resnet18", "--recipe", tmp_path / "deep.json", "--bank", tmp_path / "new"]
    ran = embank("embed", bank / "manifest.parquet", *words, "--device", "cpu")
    assert (ran.code, "deep.json" in ran.err) == (2, True)


def test_the_limit_that_a_process_has_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    ran = embank("models", "list")
    assert (ran.code, "0 MiB" in ran.err) == (3, True)


def test_cells_of_ten_thousand_characters_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(["name"], [["x" * 10_000, 1.5][:1], ["[bold]y"]])
    out = capsys.readouterr().out
    assert 60 < out.count("x") < 80
    assert "…" in out
    assert "[bold]y" in out


def test_one_patient_has_no_interval(tmp_path: Path) -> None:
    import pandas as pd

    from stores.bank.writer import FeatureWriter, open_or_create
    from tests.stores.banks import chunk_result, make_key

    ids = [f"{i}" for i in range(60)]
    frame = pd.DataFrame({"image_id": ids, "uri": ids, "label": ["a", "b"] * 30, "group": "one"})
    bank = open_or_create(tmp_path / "bank", Manifest.from_frame(frame, tmp_path), chunk_rows=64)
    with FeatureWriter(bank, make_key(bank.image_digest), 4) as writer:
        writer.commit(chunk_result(0, 0, 60, 4))
        writer.seal()
    model = bank.list()[0].name
    words = [
        "fewshot",
        bank.path,
        "--model",
        model,
        "--n-way",
        2,
        "--n-shot",
        2,
        "--n-query",
        2,
        "--bootstrap",
        50,
        "--no-group-disjoint",
    ]
    found = embank(*words, "--json").json["bootstrap"]
    assert (found["low"], found["high"], found["groups"]) == (None, None, 1)
    assert "needs two" in found["reason"]
    assert "needs two" in embank(*words).out

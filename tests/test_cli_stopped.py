"""A command that is stopped ends with 130 and says in one line what is kept; that line is true."""

import hashlib
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import cli
from engine.report import stop_messages
from stores.bank.reader import Bank
from tests.command import embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank

MODEL = ("--model", FIRST)


def all_commands() -> set[str]:
    group = typer.main.get_command(cli.app)
    found = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {f"{name} {each}" for each in inner} if inner else {name}
    return found


def test_every_command_says_what_is_kept() -> None:
    assert set(stop_messages.KEPT) == all_commands()
    for name, text in stop_messages.KEPT.items():
        assert text.endswith(".") and "\n" not in text
        assert stop_messages.sentence([*name.split(), "x", "--model", "y"]) == f"Stopped. {text}"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--store-timeout", "5", "bank", "verify", "b"], "bank verify"),
        (["bank"], None),
        (["nonsense"], None),
        ([], None),
        (["-c", "x"], None),
    ],
)
def test_the_command_is_found_among_the_words(words: list[str], name: str | None) -> None:
    assert stop_messages.command(words) == name
    assert stop_messages.sentence(words).startswith("Stopped. ")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stopped")
    (root / "images").mkdir()
    make_probe_bank(root)
    (root / "classes" / "a").mkdir(parents=True)
    (root / "classes" / "a" / "0.png").write_bytes(b"x")
    (root / "t.csv").write_text("uri,label\na.png,a\n")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(made, tmp_path / "root"))


def contents(root: Path) -> dict[str, str]:
    """What is on disk, but for files that only the file system's stamps are noted in, and locks."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("stamps.json", "lock", "columns.json") and path.suffix != ".npy"
    }


#: Command line, and where in it the user presses Ctrl-C.
UNCHANGED = {
    "manifest folder": (["classes", "-o", "new.parquet"], "stores.manifest.manifest:Manifest.write"),
    "manifest table": (
        ["t.csv", "-o", "new.csv", "--label", "label"],
        "stores.manifest.manifest:Manifest.write",
    ),
    "manifest build": (["digits", "digits", "-o", "new.parquet"], "engine.datasets:build"),
    "manifest check": (["t.csv"], "stores.manifest.check:check"),
    "manifest split": (["t.csv", "-o", "s.csv", "--folds", 2], "stores.manifest.split:split_manifest"),
    "bank ls": (["bank"], "stores.bank.reader:Bank.list"),
    "bank show": (["bank"], "stores.bank.reader:Bank.describe"),
    "bank verify": (["bank"], "stores.maintenance.verify:verify"),
    "bank export": (["bank", *MODEL], "stores.bank.documents:replace"),
    "bank rename": (["bank", SECOND, "mine"], "stores.bank.names:give"),
    "bank rm": (["bank", SECOND, "--yes"], "stores.maintenance.remove:_unseal"),
    "bank prune": (["bank"], "stores.bank.caches:_discard"),
    "bank relabel": (["bank", "bank/manifest.parquet", "-o", "new"], "stores.maintenance.relabel:match"),
    "bank audit": (["bank", *MODEL], "engine.evals.neighbours.audit:keep_record"),
    "fewshot": (
        ["bank", *MODEL, "--n-way", 2, "--n-shot", 2, "--n-query", 2],
        "engine.evals.fewshot.bank:keep_record",
    ),
    "knn": (["bank", *MODEL, "--model", SECOND], "stores.bank.records:Batch.write"),
    "probe": (["bank", *MODEL, "--values", 2, "--bootstrap", 0], "engine.evals.probe.solvers:solve"),
    "search": (["bank", *MODEL, "--id", "image 1"], "engine.evals.neighbours.search:keep_record"),
    "reconstruct": (
        ["bank", *MODEL, "--images", 1],
        "engine.evals.common.image_inputs:open_images",
    ),
    "perceptual": (
        ["classes", "classes", "--net", "squeeze", "--trunk", "squeeze=t.csv"],
        "engine.models.perceptual:find_trunks",
    ),
    "records ls": (["bank"], "stores.bank.record_index:read_index"),
    "records show": (["bank", "x"], "stores.bank.record_index:record_of"),
    "records export": (["bank", "-o", "r.csv"], "stores.bank.record_index:read_index"),
    "models list": ([], "engine.models:catalogue"),
    "models show": (["swav"], "engine.models.catalog.lookup:describe"),
    "models fetch": (["swav"], "engine.models.checkpoints.checkpoint_cache:fetch"),
    "models convert": (["swav"], "engine.models.checkpoints.checkpoint_cache:convert"),
    "datasets list": ([], "engine.datasets:load"),
    "datasets show": (["digits"], "engine.datasets:load"),
    "doctor": ([], "engine.doctor:examine"),
    "quickstart": ([], "engine.study.run:run_study"),
    "bench": (["knn"], "benchmarks.speed:subjects"),
}


def press(monkeypatch: pytest.MonkeyPatch, place: str, after: int = 0) -> None:
    """Raise KeyboardInterrupt at a function, after it has been called some times."""
    module, _, name = place.partition(":")
    owner = importlib.import_module(module)
    *outer, name = name.split(".")
    for each in outer:
        owner = getattr(owner, each)
    usual, calls = getattr(owner, name), [0]

    def stop(*words: object, **more: object) -> object:
        calls[0] += 1
        if calls[0] > after:
            raise KeyboardInterrupt
        return usual(*words, **more)

    monkeypatch.setattr(owner, name, stop)


@pytest.mark.parametrize("command", UNCHANGED)
def test_what_has_not_begun_to_write_has_changed_nothing(
    command: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, place = UNCHANGED[command]
    monkeypatch.chdir(root)
    before = contents(root)
    press(monkeypatch, place)
    ran = embank(*command.split(), *words)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.split("\n")[-2:] == [f"Stopped. {stop_messages.KEPT[command]}", ""]
    assert ran.err.count("Stopped.") == 1 and "Traceback" not in ran.err
    assert contents(root) == before


def test_a_stopped_export_is_finished_by_the_same_command(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bank", "export", root / "bank", "-o", root / "out")
    with monkeypatch.context() as patch:
        press(patch, "stores.bank.export:atomic_file", after=3)
        assert embank(*words).code == 130
    assert len(list((root / "out").rglob("*.npy"))) > 0
    ran = embank(*words)
    assert ran.code == 0, ran.err
    assert len(list((root / "out").rglob("embeddings.npy"))) == 2


def test_a_stopped_removal_is_finished_by_the_same_command(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("bank", "rm", root / "bank", SECOND, "--yes")
    with monkeypatch.context() as patch:
        press(patch, "stores.maintenance.remove:_remove_data")
        assert embank(*words).code == 130
    assert embank("knn", root / "bank", "--model", SECOND).code == 2
    assert embank(*words).code == 0
    assert [info.title for info in Bank.open(root / "bank").list()] == [FIRST]


def test_a_stopped_relabelling_resumes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("bank", "relabel", root / "bank", root / "bank" / "manifest.parquet", "-o", root / "new")
    before = contents(root / "bank")
    with monkeypatch.context() as patch:
        press(patch, "stores.bank.writer:FeatureWriter.seal", after=1)
        ran = embank(*words)
    assert ran.code == 130 and "old bank is unchanged" in ran.err
    assert contents(root / "bank") == before
    assert embank(*words).code == 0
    assert len(Bank.open(root / "new").list()) == 2


def test_models_that_were_evaluated_before_the_stop_have_no_record(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    press(monkeypatch, "engine.evals.neighbours.knn:keep_record", after=1)
    assert embank("knn", root / "bank", *MODEL, "--model", SECOND).code == 130
    assert not list((root / "bank").glob("records/*knn*"))

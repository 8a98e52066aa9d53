"""What the images run works in a clean environment: only the files that the Dockerfile copies, installed as
it does, and the commands of docker/compose.yaml with their certificates, as processes on loopback."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.faults.kill import problems_of
from tests.command import embank
from tests.docker.images import DOCKER, ROOT, compose, copied, filled_in, sent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on the PATH"),
]
SETTINGS = ("--json", "--threads", "1", "--batch-size", "8", "--chunk-rows", "8", "--recipe")


@dataclass(frozen=True)
class Clean:
    """A folder with the program as installed, and where the containers' paths lie here."""

    site: Path
    places: dict[str, str]

    def here(self, text: str, variables: dict[str, str]) -> str:
        places = "|".join(map(re.escape, self.places))
        return re.sub(rf"(?<!\w)({places})\b", lambda m: self.places[m[1]], filled_in(text, variables))

    def environment(self, service: str) -> dict[str, str]:
        """Nothing of the test's environment but what a process needs, and the service's own."""
        own = {
            name: self.here(value, {})
            for name, value in compose()["services"][service]["environment"].items()
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            "PATH": path,
            "PYTHONPATH": str(self.site),
            "HOME": str(self.site),
            "OMP_NUM_THREADS": "1",
            **own,
        }

    def words(self, service: str, **variables: str) -> list[str]:
        """The service's command line; `dask` and `embank` through this Python."""
        found = compose()["services"][service]
        words = [*found.get("entrypoint", ["embank"]), *found["command"]]
        words = [self.here(word, variables) for word in words]
        module = {"dask": "dask", "embank": "cli"}[words[0]]
        return [sys.executable, "-m", module, *words[1:]]

    def healthy(self, service: str) -> bool:
        script = DOCKER / "health.py"
        done = subprocess.run(
            [sys.executable, "-S", script], env=self.environment(service), capture_output=True
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 0


def install(site: Path, source: Path) -> None:
    """As the Dockerfile: copy what it copies, less what is not sent, and let pip build and install."""
    source.mkdir()
    for path in copied("cpu"):
        if path.parts[0] == "docker":
            continue
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, source / path)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", site, "."], cwd=source, check=True)


def installed(module: Path) -> Path:
    """Where a file of the repository is installed: `engine/embank` is the package `embank`."""
    return module.relative_to("engine") if module.parts[:2] == ("engine", "embank") else module


def free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    folder = tmp_path_factory.mktemp("clean")
    install(folder / "site", folder / "source")
    subprocess.run([DOCKER / "certificates.sh", folder / "certificates"], check=True, capture_output=True)
    for name in ("banks", "images", "scratch"):
        (folder / name).mkdir()
    generator = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(
            folder / "images" / f"{i}.png"
        )
    (folder / "images" / "13.png").write_bytes(b"nothing")
    (folder / "banks" / "small.json").write_text('{"size": 32, "crop": 32}')
    scheduler, scheduler_page, worker_page = map(str, free_ports(3))
    return Clean(
        folder / "site",
        {
            "/certificates": str(folder / "certificates"),
            "/banks": str(folder / "banks"),
            "/images": str(folder / "images"),
            "/tmp": str(folder / "scratch"),
            "scheduler:8786": f"127.0.0.1:{scheduler}",
            "0.0.0.0": "127.0.0.1",
            "8786": scheduler,
            "8787": scheduler_page,
            "8788": worker_page,
        },
    )


@pytest.fixture(scope="module")
def running(clean: Clean) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Scheduler and worker, when both are well; each the leader of a process group."""
    processes: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for service in ("scheduler", "worker"):
            assert not clean.healthy(service)
            processes[service] = subprocess.Popen(
                clean.words(service),
                env=clean.environment(service),
                cwd=clean.places["/banks"],
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            wait_until(lambda service=service: clean.healthy(service))
        yield processes
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_installed_program_is_whole(clean: Clean) -> None:
    """Every module of the source is there, and is the one that runs."""
    for path in copied("cpu"):
        for module in sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]:
            if (
                module.suffix == ".py"
                and sent("cpu", module.relative_to(ROOT))
                and "docker" not in module.parts
            ):
                place = clean.site / installed(module.relative_to(ROOT))
                assert place.read_bytes() == module.read_bytes()
    assert not (clean.site / "engine" / "embank").exists(), "once, as embank"
    for package in ("embank", "engine", "stores"):
        assert (clean.site / package / "py.typed").is_file()
    code = "import cli, engine.executors, stores, benchmarks, embank; print(cli.__file__, embank.__file__)"
    for words in (["-c", code], ["-m", "cli", "--help"]):
        done = subprocess.run(
            [sys.executable, *words],
            env=clean.environment("embank"),
            cwd=clean.places["/banks"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "embed" in done.stdout or done.stdout.count(str(clean.site)) == 2


def test_the_services_make_the_serial_bank(clean: Clean, running: dict[str, subprocess.Popen[bytes]]) -> None:
    data = clean.places["/banks"]
    embank("manifest", "folder", clean.places["/images"], "-o", f"{data}/images.parquet")
    words = clean.words("embank", EMBANK_MODEL="random/squeezenet1_1")
    done = subprocess.run(
        [*words, *SETTINGS, f"{data}/small.json"],
        env=clean.environment("embank"),
        cwd=data,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr  # a row in twenty failed
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert (report["rows"], report["failed"], report["workers"]) == (20, 1, 1)
    truth = Path(data) / "serial.bank"
    model = ("--model", "random/squeezenet1_1", "--device", "cpu")
    serial = embank(
        "embed", f"{data}/images.parquet", *model, "--bank", truth, *SETTINGS, f"{data}/small.json"
    )
    assert serial.code == 1, serial.err
    assert problems_of(Path(data) / "images.bank", truth) == []


def test_a_stranger_is_not_served(
    clean: Clean, running: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Neither without a certificate nor with one of another authority."""
    address = clean.words("worker")[4]
    assert f"--scheduler={address}" in clean.words("embank")
    code = f"from engine import executors; executors.remote({address!r}).__enter__()"
    bare = {k: v for k, v in clean.environment("embank").items() if not k.startswith("DASK_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "Refused" in done.stderr
    assert "TLS needs the certificate" in done.stderr
    subprocess.run([DOCKER / "certificates.sh", tmp_path / "theirs"], check=True, capture_output=True)
    ours = clean.places["/certificates"]
    theirs = {k: v.replace(ours, str(tmp_path / "theirs")) for k, v in clean.environment("scheduler").items()}
    health = [sys.executable, DOCKER / "health.py"]
    assert subprocess.run(health, env=theirs, capture_output=True).returncode == 1
    mixed = {**theirs, "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": f"{ours}/ca.pem"}
    assert subprocess.run(health, env=mixed, capture_output=True).returncode == 1
    assert clean.healthy("scheduler")


def test_without_the_scheduler_nobody_is_well(
    clean: Clean, running: dict[str, subprocess.Popen[bytes]]
) -> None:
    assert clean.healthy("scheduler")
    assert clean.healthy("worker")
    assert clean.healthy("embank")
    os.killpg(running["scheduler"].pid, signal.SIGKILL)
    running["scheduler"].wait()
    assert not clean.healthy("scheduler")
    running["worker"].wait(timeout=60)  # ends by itself, for compose to start it again
    assert not clean.healthy("worker")


def test_certificates_are_private_and_not_overwritten(tmp_path: Path) -> None:
    make = [DOCKER / "certificates.sh", tmp_path / "certificates", "30"]
    subprocess.run(make, check=True, capture_output=True)
    made = sorted((tmp_path / "certificates").iterdir())
    assert [path.name for path in made] == ["ca.pem", "cert.pem", "key.pem"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)
    before = made[2].read_bytes()
    assert subprocess.run(make, capture_output=True).returncode == 2
    assert made[2].read_bytes() == before
    verify = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", made[0], made[1]]
    assert subprocess.run(verify, capture_output=True).returncode == 0
    ends = subprocess.run(
        ["openssl", "x509", "-in", made[1], "-noout", "-checkend", str(31 * 86400)], capture_output=True
    )
    assert ends.returncode == 1

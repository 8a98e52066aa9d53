"""The files of docker/ agree with the repository, with each other, and with what they promise."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docker.images import (
    DOCKER,
    DOCKERFILES,
    ROOT,
    compose,
    copied,
    kubernetes,
    locked,
    sent,
    stages,
)

REQUIREMENTS = {"cpu": "requirements.lock", "cuda": "requirements-gpu.lock"}


@pytest.mark.parametrize("image", DOCKERFILES)
def test_bases_are_pinned_and_what_is_copied_exists(image: str) -> None:
    bases = [stage[0].words[0] for stage in stages(image)]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "a venv runs on the Python that made it"
    assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+-[\w.-]+", bases[0])
    for path in copied(image):
        assert (ROOT / path).exists(), path
        assert sent(image, path), path


def test_nothing_else_is_sent_to_the_engine() -> None:
    ignore = {image: (DOCKER / f"{image}.Dockerfile.dockerignore").read_text() for image in DOCKERFILES}
    assert ignore["cpu"] == ignore["cuda"]
    for name in (".git", "tests", ".venv", "docker/certificates/key.pem", "quickstart", "engine/__pycache__"):
        assert not sent("cpu", Path(name)), name


@pytest.mark.parametrize("image", DOCKERFILES)
def test_the_image_runs_embank_as_nobody_special_and_is_asked_for_its_health(image: str) -> None:
    last = stages(image)[-1]
    said = {instruction.name: instruction for instruction in last}
    user, _, group = said["USER"].text.partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert last.index(said["USER"]) > max(i for i, step in enumerate(last) if step.name in ("RUN", "COPY"))
    assert said["ENTRYPOINT"].text == '["embank"]'
    assert '["python", "/opt/embank/health.py"]' in said["HEALTHCHECK"].text
    assert "org.opencontainers.image.licenses=Apache-2.0" in said["LABEL"].words
    assert "authors" not in said["LABEL"].text


@pytest.mark.parametrize("image", DOCKERFILES)
def test_the_image_has_the_tested_versions_and_all_it_needs(image: str) -> None:
    lock, tested = locked(DOCKER / f"{image}.lock"), locked(ROOT / REQUIREMENTS[image])
    versions = {pin: hashes for (pin, _), hashes in tested.items()}
    assert len(lock) > 50
    for pin, _ in lock:
        assert re.fullmatch(r"[\w.-]+==[\w.]+", pin)
        assert versions[pin] == lock[next(key for key in lock if key[0] == pin)]
        assert versions[pin]
    names = {pin.partition("==")[0] for pin, _ in lock}
    assert not names & {"pytest", "moto", "ruff", "mypy", "hypothesis", "torchxrayvision"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dask"], *extras["timm"], *extras["s3"], "setuptools"]
    wanted += extras["cpu"] if image == "cpu" else extras["gpu"] + extras["rapids"]
    missing = {re.split(r"[^\w.-]", need)[0].lower() for need in wanted} - names
    assert not missing


@pytest.mark.parametrize("lock", [ROOT / "requirements-gpu.lock", DOCKER / "cuda.lock"], ids=lambda p: p.name)
def test_cuml_gets_a_numba_and_a_numpy_that_go_together(lock: Path) -> None:
    """numba 0.64's metadata says numpy below 2.5; 0.63.0b1 says nothing, and fails with numpy 2.5."""
    pins = [pin.partition("==") for pin, _ in locked(lock)]
    numba = {version for name, _, version in pins if name == "numba"}
    numpy = {tuple(map(int, version.split(".")[:2])) for name, _, version in pins if name == "numpy"}
    assert numba == {"0.64.0"}, "another numba: see what its metadata says of numpy, and change this test"
    assert numpy and all(version < (2, 5) for version in numpy)


def test_locks_name_no_address() -> None:
    for path in DOCKER.rglob("*.lock"):
        assert "://" not in path.read_text()
        assert "--index" not in path.read_text()


def test_compose_leaves_nothing_open() -> None:
    services = compose()["services"]
    assert set(services) == {"scheduler", "worker", "embank"}
    for name, service in services.items():
        assert "ports" not in service, name
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "./certificates:/certificates:ro" in service["volumes"]
        assert service["environment"]["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert service["build"]["dockerfile"] == "docker/cpu.Dockerfile"
        volumes = {mount.partition(":")[0] for mount in service["volumes"] if mount[0] not in "./$"}
        assert volumes <= set(compose()["volumes"])
    assert "--protocol=tls" in services["scheduler"]["entrypoint"]
    for service in (services["scheduler"], services["worker"]):
        assert "--no-dashboard" in service["entrypoint"]
        assert any(word.startswith("--dashboard-address=127.0.0.1:") for word in service["entrypoint"])


def test_the_cuda_override_changes_what_is_there() -> None:
    base, override = compose()["services"], compose("compose.cuda.yaml")["services"]
    assert set(override) == set(base)
    for service in override.values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    worker = override["worker"]
    assert worker["entrypoint"][:3] == ["dask", "cuda", "worker"]
    shared = set(base["worker"]["entrypoint"]) - {"--dashboard-address=127.0.0.1:8788"}
    assert shared <= set(worker["entrypoint"])
    assert worker["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_kubernetes_runs_what_compose_runs() -> None:
    objects, services = kubernetes(), compose()["services"]

    def pod(kind: str, name: str) -> dict[str, Any]:
        return objects[kind, name]["spec"]["template"]["spec"]

    def container(kind: str, name: str) -> dict[str, Any]:
        (found,) = pod(kind, name)["containers"]
        return found

    scheduler = container("Deployment", "embank-scheduler")
    worker = container("Deployment", "embank-worker")
    job = container("Job", "embank-embed")
    assert scheduler["command"] == services["scheduler"]["entrypoint"]
    assert worker["command"] == services["worker"]["entrypoint"]
    assert set(services["embank"]["command"]) - set(job["args"]) == {
        "--model=${EMBANK_MODEL:-torchvision/resnet50}"
    }
    settings = objects["ConfigMap", "embank-dask"]["data"]
    assert services["embank"]["environment"].items() <= settings.items()
    for found, service in ((scheduler, "scheduler"), (worker, "worker")):
        own = {entry["name"]: entry["value"] for entry in found["env"]}
        assert own | settings | {"HOME": ""} == services[service]["environment"] | {"HOME": ""}
    for kind, name in (key for key in objects if key[0] in ("Deployment", "Job")):
        assert pod(kind, name)["securityContext"]["runAsNonRoot"]
        labels = objects[kind, name]["spec"]["template"]["metadata"]["labels"]
        selector = objects[kind, name]["spec"].get("selector", {}).get("matchLabels", {})
        assert selector.items() <= labels.items()
        mounts = {mount["name"] for mount in container(kind, name)["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod(kind, name)["volumes"]}


@pytest.mark.parametrize("script", ["certificates.sh", "slurm.sh"])
def test_scripts_parse(script: str) -> None:
    shell = (DOCKER / script).read_text().partition("\n")[0].removeprefix("#!")
    subprocess.run([shell, "-n", DOCKER / script], check=True)

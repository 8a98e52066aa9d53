"""What the files of docker/ say, read without an engine."""

import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = ("cpu", "cuda")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: `COPY`, and what follows it on the line."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text)


def stages(image: str) -> list[list[Instruction]]:
    """The instructions of each stage of `docker/IMAGE.Dockerfile`; each begins with its FROM."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / f"{image}.Dockerfile").read_text(), flags=re.M)
    found: list[list[Instruction]] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            found.append([])
        if name:
            found[-1].append(Instruction(name, rest.strip()))
    return found


def copied(image: str) -> list[Path]:
    """Files and folders that the Dockerfile takes from the repository, relative to it."""
    return [
        Path(source)
        for stage in stages(image)
        for instruction in stage
        if instruction.name == "COPY" and not instruction.text.startswith("--from")
        for source in instruction.words[:-1]
    ]


def sent(image: str, path: Path) -> bool:
    """Whether the Dockerfile's ignore file lets a file or folder reach the engine."""
    verdict = True
    for line in (DOCKER / f"{image}.Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        covers = any(fnmatch(str(part), pattern) for part in (path, *path.parents))
        if pattern and not pattern.startswith("#") and covers:
            verdict = line.startswith("!")
    return verdict


def locked(path: Path) -> dict[tuple[str, str], str]:
    """(package and version, marker) -> hashes, of a requirements file as uv writes them."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        pin, *hashes = line.split("--hash=")
        name, _, marker = pin.partition(";")
        found[name.strip(), marker.strip()] = " ".join(sorted(h.strip() for h in hashes))
    return found


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    return yaml.safe_load((DOCKER / name).read_text())


def filled_in(text: str, variables: dict[str, str]) -> str:
    """Replace `${NAME:-default}` as compose does."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1], match[2]), text)


def kubernetes() -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> object."""
    items = yaml.safe_load((DOCKER / "kubernetes.yaml").read_text())["items"]
    return {(item["kind"], item["metadata"]["name"]): item for item in items}

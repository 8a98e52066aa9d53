"""A decoder that crashes, hangs or eats memory costs its row; its neighbours' bits stay as they are."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from engine.decode import ImageSource, Limits, available_decoders, make_decoder
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.isolated_process import Budget, Children, budget, is_wanted
from engine.decode.pillow import picture_here
from engine.decode.protocol import FAILURE_CODES
from engine.errors import BadImage, MachineFault
from engine.recipes import Recipe
from tests.corpus.images import BYTES, jpeg, png, scene, written
from tests.engine.decode.hostile import bad

pytestmark = pytest.mark.slow

RENDERER = "tests.engine.decode.hostile:picture"


def small(header: Header, size: int) -> Budget:
    """Enough for the corpus."""
    return Budget(1.0, 1 << 30)


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    found = Children(RENDERER, small)
    yield found
    found.close()


def header_of(data: bytes, recipe: Recipe | None = None) -> Header:
    return sniff(data, recipe or Recipe(), Limits())


def ask(children: Children, deed: str) -> np.ndarray:
    data = bad(written(scene(), "BMP"), deed)
    return np.asarray(children.picture(data, header_of(data), Recipe()))


def test_only_plain_jpeg_and_png_stay_in_this_process() -> None:
    for case in (case for cases in BYTES.values() for case in cases if not case.code):
        data = case.make()
        header = header_of(data, case.recipe)
        assert is_wanted(header) == (header.format not in ("JPEG", "PNG") or "CMYK" in case.name), case.name


def test_a_jpeg_of_many_passes_over_many_pixels_is_not_plain() -> None:
    data = jpeg(progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    at = data.index(b"\xff\xc2") + 5
    large = data[:at] + (8000).to_bytes(2, "big") * 2 + data[at + 4 :]
    assert header_of(large).plain and header_of(data[:-2] + scan * 20 + b"\xff\xd9").plain
    assert not header_of(large[:-2] + scan * 20 + b"\xff\xd9").plain


@pytest.mark.parametrize("format", ["TIFF", "WEBP", "BMP", "JPEG2000", "GIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_child_gives_the_same_bits(children: Children, format: str, channels: int) -> None:
    data = written(scene(channels=channels), format)
    found = children.picture(data, header_of(data), Recipe())
    wanted = picture_here(data, header_of(data), Recipe())
    assert found.mode == wanted.mode
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


@pytest.mark.parametrize(
    ("deed", "code", "detail"),
    [
        ("segfault", "decoder_died", "crashed .Segmentation fault"),
        ("abort", "decoder_died", "crashed .Aborted"),
        ("exit", "decoder_died", "status 3"),
        ("lie", "decoder_died", "status 0"),
        ("spin", "too_slow", "more than 1 s"),
        ("eat", "too_much_memory", "more than 1024 MiB"),
    ],
)
def test_every_way_to_go_wrong_has_its_reason(children: Children, deed: str, code: str, detail: str) -> None:
    with pytest.raises(BadImage, match=detail) as caught:
        ask(children, deed)
    assert caught.value.code == code
    assert code in FAILURE_CODES
    np.testing.assert_array_equal(ask(children, "nothing"), scene())


def test_a_hang_without_work_ends_as_well() -> None:
    impatient = Children(RENDERER, lambda header, size: Budget(0.2, 1 << 30))
    with pytest.raises(BadImage) as caught:
        ask(impatient, "sleep")
    assert caught.value.code == "too_slow"


def test_a_child_spoilt_by_an_earlier_image_is_no_verdict(children: Children, tmp_path: Path) -> None:
    np.testing.assert_array_equal(ask(children, f"once:{tmp_path / 'died'}"), scene())
    assert (tmp_path / "died").exists()


def test_what_libraries_print_is_no_answer(children: Children) -> None:
    np.testing.assert_array_equal(ask(children, "talk"), scene())


def test_a_kill_from_outside_is_the_machines_fault(children: Children) -> None:
    with pytest.raises(MachineFault, match="killed from outside"):
        ask(children, "kill")


def test_children_that_cannot_start_are_the_machines_fault() -> None:
    with pytest.raises(MachineFault, match="could not be started"):
        ask(Children("tests.engine.decode.hostile:nothing"), "nothing")


def _mine() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_children_are_kept_and_closed(children: Children) -> None:
    others = _mine()  # other tests may have left some
    ask(children, "nothing")
    kept = _mine() - others
    ask(children, "nothing")
    assert kept and _mine() - others == kept
    children.close()
    assert not kept & _mine()
    np.testing.assert_array_equal(ask(children, "nothing"), scene())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_starts_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.decode import isolated_process

    own = Children(RENDERER, small)
    monkeypatch.setattr(isolated_process, "children", own)
    ask(own, "nothing")
    child = os.fork()
    if child == 0:
        os._exit(0 if own._idle.empty() else 1)
    assert os.waitpid(child, 0)[1] == 0
    own.close()


def test_the_budget_grows_with_the_image() -> None:
    usual, large = Header("TIFF", 512, 512), Header("TIFF", 8000, 8000)
    assert budget(usual, 0).seconds == 10
    assert budget(usual, 0).bytes <= 2 << 30
    assert budget(large, 0).seconds == 40


@pytest.mark.parametrize("name", ["reference", "turbo", "dali"])
def test_neighbours_stay_bit_identical(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.decode import isolated_process

    if reason := available_decoders()[name]:
        pytest.skip(reason)
    monkeypatch.setattr(isolated_process, "children", Children(RENDERER, small))
    bitmap = written(scene(), "BMP")
    contents = {
        "a.jpg": jpeg(), "b.bmp": bad(bitmap, "segfault"), "c.tif": written(scene(), "TIFF"),
        "d.bmp": bad(bitmap, "spin"), "e.png": png(), "f.bmp": bad(bitmap, "eat"), "g.bmp": bitmap,
    }  # fmt: skip
    for uri, data in contents.items():
        (tmp_path / uri).write_bytes(data)
    source = ImageSource(tmp_path, list(contents))
    with make_decoder(name, Recipe(), device="cpu", threads=2, batch_size=7) as decoder:
        (alone,) = decoder.stream(source, [[0, 2, 4, 6]])
        good = alone.pixels.clone()
        (batch,) = decoder.stream(source, [range(7)])
    codes = {slot: failure.code for slot, failure in batch.failures.items()}
    assert codes == {1: "decoder_died", 3: "too_slow", 5: "too_much_memory"}
    assert torch.equal(batch.pixels[[0, 2, 4, 6]], good)
    assert not batch.pixels[[1, 3, 5]].any()


def test_a_parent_that_dies_takes_its_children_along(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, time; from tests.engine.decode.test_isolated_process import *\n"
        "own = Children(RENDERER, small); ask(own, 'nothing')\n"
        "print(psutil.Process().children()[0].pid, flush=True); time.sleep(60)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env)
    assert parent.stdout
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    child.wait(timeout=20)

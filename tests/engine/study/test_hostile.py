"""Study files from an untrusted source: nothing but a refusal comes of them, with file and line."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.study.cells import cells_of, count_cells
from engine.study.document import MAX_BYTES, MAX_DEPTH, read_document
from engine.study.kinds import KINDS_BY_NAME
from engine.study.read import read_study

GOOD = """\
study: s
datasets:
  digits: {domain: out}
models: [efficientnet-lite0]
evaluations:
  fewshot: {n_way: 5}
"""


def written(folder: Path, data: bytes | str) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


#: What stands in the file in place of a line -> (line named, part of the sentence).
HOSTILE = {
    "code in a tag": ("  fewshot: !!python/object/apply:os.system ['touch /tmp/x']", 6, "tag"),
    "own tag": ("  fewshot: !include other.yaml", 6, "tag"),
    "anchor": ("  fewshot: &a {n_way: 5}", 6, "&a"),
    "alias": ("  fewshot: *a", 6, "*a"),
    "merge key": ("  fewshot: {<<: {n_way: 5}}", 6, "<<"),
    "key twice": ("  fewshot: {n_way: 5, n_way: 4}", 6, "first in line 6"),
    "key twice by its spelling": ("  fewshot: {n_way: 5, n-way: 4}", 6, "n_way"),
    "unclosed": ("  fewshot: {n_way: 5", 7, "did not find"),
    "tab": ("\tfewshot: {}", 6, "character"),
    "invisible character": ("  few\u200bshot: {}", 6, "U+200B"),
    "space that is none": ("  fewshot: {n_way:\u00a05}", 6, "U+00A0"),
    "escaped NUL": ('  fewshot: {split: "a\\0b"}', 6, "U+0000"),
    "right-to-left": ("  fewshot: {split: a\u202eb}", 6, "U+202E"),
    "unknown kind": ("  fewshto: {}", 6, "fewshto"),
    "unknown key": ("  fewshot: {n_wya: 5}", 6, "n_wya"),
    "text for a number": ("  fewshot: {n_way: five}", 6, "n_way = five"),
    "true for a number": ("  fewshot: {n_way: true}", 6, "n_way"),
    "fraction": ("  fewshot: {n_way: 5.5}", 6, "n_way"),
    "huge number": (f"  fewshot: {{n_way: {'9' * 5000}}}", 6, "999"),
    "negative": ("  fewshot: {n_way: -1}", 6, "n_way"),
    "infinite": ("  knn: {temperature: .inf}", 6, "temperature"),
    "not a number": ("  knn: {temperature: .nan}", 6, "temperature"),
    "nonsense together": ("  fewshot: {n_shot: 30, cap: 20}", 6, "cap"),
    "list for a mapping": ("  fewshot: [n_way]", 6, "fewshot"),
    "data set that is none": ("  fewshot: {datasets: [digtis]}", 6, "digtis"),
    "model that is none": ("  fewshot: {models: [resnet]}", 6, "resnet"),
    "mode that is none": ("  fewshot: {modes: [published]}", 6, "published"),
    "mode of a kind without modes": ("  knn: {modes: [as-published]}", 6, "modes"),
    "seed of a kind without seeds": ("  audit: {seeds: [1]}", 6, "seeds"),
    "controls of a kind without": ("  audit: {controls: true}", 6, "controls"),
    "metric of another kind": ("  fewshot: {metric: log_loss}", 6, "log_loss"),
    "transform that is none": ("  invariance: {transforms: [rotate]}", 6, "rotate"),
    "no transform": ("  invariance: {images: 20}", 6, "invariance"),
    "name that leaves the folder": ("  ../x: {kind: fewshot}", 6, "../x"),
    "device name": ("  nul: {kind: fewshot}", 6, "nul"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_evaluations_are_refused_with_their_line(name: str, tmp_path: Path) -> None:
    line, number, part = HOSTILE[name]
    text = GOOD.replace("  fewshot: {n_way: 5}", line)
    with pytest.raises(Refused) as error:
        read_study(written(tmp_path, text))
    assert error.value.found.startswith(f"study.yaml, line {number}: ")
    assert part in f"{error.value.found} {error.value.rule}"
    assert error.value.remedy


#: Lines of the top of the file in place of others.
TOP = {
    "study: ../other": ("study: s", "../other"),
    "study: a/b": ("study: s", "a/b"),
    "study: 'a b'": ("study: s", "a b"),
    "  /etc: {}": ("  digits: {domain: out}", "/etc"),
    "  digtis: {}": ("  digits: {domain: out}", "digtis"),
    "  chexpert: {}": ("  digits: {domain: out}", "folder"),
    "  own: {manifest: /etc/passwd}": ("  digits: {domain: out}", "/etc/passwd"),
    "  own: {manifest: ../x.parquet}": ("  digits: {domain: out}", "../x.parquet"),
    "  own: {bank: s3://bucket/x.bank}": ("  digits: {domain: out}", "s3://"),
    "  own: {bank: s/banks/own.bank}": ("  digits: {domain: out}", "made from itself"),
    "  own: {bank: a.bank, manifest: m.csv}": ("  digits: {domain: out}", "bank"),
    "  own: {manifest: m.csv, folder: f}": ("  digits: {domain: out}", "folder"),
    "  digits: {folder: f}": ("  digits: {domain: out}", "itself"),
    "  chexpert: {folder: f, build: {labl: x}}": ("  digits: {domain: out}", "labl"),
    "  chexpert: {folder: f, build: {uncertain: maybe}}": ("  digits: {domain: out}", "maybe"),
    "  digits: {strata: ['age:60,40']}": ("  digits: {domain: out}", "strata"),
    "  digits: {options: {fewshot: {n_way: 1}}}": ("  digits: {domain: out}", "n_way"),
    "models: [efficientnet-lite1]": ("models: [efficientnet-lite0]", "efficientnet-lite0, if that"),
    "models: [resnet-50]": ("models: [efficientnet-lite0]", "resnet-50"),
    "models: [torchvision/resnet999]": ("models: [efficientnet-lite0]", "resnet999"),
    "models: [efficientnet-lite0, efficientnet-lite0]": ("models: [efficientnet-lite0]", "this name"),
    "models: [{model: moco-v2, weights: ../w.pth}]": ("models: [efficientnet-lite0]", "../w.pth"),
    "models: [{model: random/resnet18, weights: w.pth}]": ("models: [efficientnet-lite0]", "drawn"),
    "models: [{model: moco-v2, name: all}]": ("models: [efficientnet-lite0]", "all"),
    "models: [{model: moco-v2, recipe: imagnet-224}]": ("models: [efficientnet-lite0]", "imagnet"),
    "models: []": ("models: [efficientnet-lite0]", "models"),
    "embed: {side: 0}\nmodels: [efficientnet-lite0]": ("models: [efficientnet-lite0]", "side"),
    "embed: {dtype: int8}\nmodels: [efficientnet-lite0]": ("models: [efficientnet-lite0]", "int8"),
    "modes: []\nmodels: [efficientnet-lite0]": ("models: [efficientnet-lite0]", "modes"),
    "seeds: [0, 0]\nmodels: [efficientnet-lite0]": ("models: [efficientnet-lite0]", "once"),
    "controls: yes\nmodels: [efficientnet-lite0]": ("models: [efficientnet-lite0]", "true"),
    "studdy: s": ("study: s", "studdy"),
}


#: Those whose suggestion is looked up in torchvision and timm, which takes seconds.
SLOW = ("models: [resnet-50]", "models: [torchvision/resnet999]")


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=pytest.mark.slow) if line in SLOW else line for line in TOP]
)
def test_hostile_names_and_paths_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    replaced, part = TOP[line]
    text = GOOD.replace(replaced, line)
    assert text != GOOD
    with pytest.raises(Refused) as error:
        read_study(written(tmp_path, text))
    assert re.match(r"study\.yaml, line \d+: ", error.value.found)
    assert part in f"{error.value.found} {error.value.rule} {error.value.remedy}"


def test_links_out_of_the_folder_are_refused_and_links_within_are_not(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    outside.mkdir()
    (root / "good").symlink_to(root / "inside")
    (root / "bad").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    text = GOOD.replace("digits: {domain: out}", "own: {manifest: LINK/m.csv}")
    study = read_study(written(root, text.replace("LINK", "good")))
    assert study.datasets[0].manifest == root / "inside" / "m.csv"
    for link in ("bad", "circle"):
        with pytest.raises(Refused, match=r"line 3: datasets\.own\.manifest"):
            read_study(written(root, text.replace("LINK", link)))


def test_a_bomb_of_aliases_and_deep_nesting_end_at_once(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
    with pytest.raises(Refused, match="line 1: &a"):
        read_document(written(tmp_path, bomb))
    for opening in ("[", "{a: ", "- "):
        deep = opening * (MAX_DEPTH + 1)
        with pytest.raises(Refused, match=r"levels|YAML"):
            read_document(written(tmp_path, deep))
    with pytest.raises(Refused, match="levels"):
        read_document(written(tmp_path, "[" * 100_000))


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    for data, part in (
        (b"study: s\nx: \xff\n", "line 2: byte 0xff"),
        (b"study: s\nx: \x00\n", "line 2: invisible character U\\+0000"),
        (b"study: s\n--- \nstudy: t\n", "second document"),
        (b"- study\n", "list"),
        (b"", "nothing"),
        (b"#" * (MAX_BYTES + 1), "bytes"),
    ):
        with pytest.raises(Refused, match=part):
            read_document(written(tmp_path, data))
    with pytest.raises(Refused, match="regular file"):
        read_document(tmp_path)
    with pytest.raises(Refused, match="not there"):
        read_document(tmp_path / "absent.yaml")


def test_a_bomb_of_cells_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    seeds = ", ".join(map(str, range(1000)))
    evaluations = "".join(f"  e{i}: {{kind: invariance, transforms: all}}\n" for i in range(900))
    text = GOOD.replace("  fewshot: {n_way: 5}\n", evaluations) + f"seeds: [{seeds}]\n"
    start = time.process_time()
    with pytest.raises(Refused, match="at most 100,000 cells"):
        read_study(written(tmp_path, text))
    assert time.process_time() - start < 10


def test_cells_are_counted_as_they_are_made(tmp_path: Path) -> None:
    text = GOOD.replace("[efficientnet-lite0]", "[efficientnet-lite0, simclr-v1]") + "seeds: [0, 1]\n"
    text = text.replace("out}", "out, label: [a, b]}") + "modes: [default, as-published]\n"
    for extra in ("knn:", "probe:", "invariance: {transforms: all}", "probe: {multi_label: true}"):
        study = read_study(written(tmp_path, text.replace("n_way: 5}", f"n_way: 5}}\n  {extra}")))
        assert count_cells(study, 10_000) == len(cells_of(study))


#: Words of study files, and some that are none.
_WORDS = """study title datasets models evaluations embed modes seeds digits tiles fewshot knn probe finetune
audit invariance transforms rotation all n_way n-shot k label options folder manifest bank domain default
as-published efficientnet-lite0 simclr-v1 kind metric controls name weights recipe side true no 5 -1 1e-3
.nan ~ ''"""
WORDS = st.sampled_from(_WORDS.split())
VALUES = st.recursive(
    WORDS | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def spelt(value: object) -> str:
    """Spell a value as YAML would be by a person: words bare, whatever is in them."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {spelt(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(spelt, value)) + "]"
    return str(value)


def _only_refuses(folder: Path, data: bytes | str) -> None:
    path = written(folder, data)
    try:
        read_study(path)
    except Refused as error:
        assert error.found and error.rule and error.remedy


FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=3000)


@FEW
@given(st.dictionaries(st.sampled_from(["datasets", "evaluations", "embed", "seeds", "strata"]), VALUES))
def test_made_up_studies_are_read_or_refused(tmp_path: Path, body: dict[str, object]) -> None:
    lines = {"datasets": "[digits]", "models": "[simclr-v1]", "evaluations": "[fewshot]"}
    lines |= {key: spelt(value) for key, value in body.items()}
    text = "study: s\n" + "\n".join(f"{key}: {value}" for key, value in lines.items())
    _only_refuses(tmp_path, text.encode("utf-8", "replace"))


@FEW
@given(st.data())
def test_spoilt_studies_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    text = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    _only_refuses(tmp_path, bytes(text))


@pytest.mark.thorough
@MANY
@given(st.binary(max_size=200) | VALUES.map(spelt).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    _only_refuses(tmp_path, data)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("  finetune: {steps: 0}", "the study took steps 5000"),
        ("  multiview: {regularisation: ridge}", "e.g. regularisation ridge=1e-3"),
        ("  saliency: {modes: [as-published], stride: 7}", "leave these options out, or use modes default"),
        ("  fewshot: {n_shot: 30, cap: 20}", "raise cap, or lower n_shot or n_query"),
        ("  - fewshot: {n_way: 5}", "write NAME: {...} in lines without dashes"),
        ("", "write evaluations: [fewshot], for instance"),
    ],
)
def test_remedies_name_what_stands_in_a_study_file(tmp_path: Path, line: str, remedy: str) -> None:
    with pytest.raises(Refused) as error:
        read_study(written(tmp_path, GOOD.replace("  fewshot: {n_way: 5}", line)))
    assert error.value.remedy == remedy and error.value.found.startswith("study.yaml, line ")


def test_commands_in_remedies_stay_as_they_are() -> None:
    advice = "add --n-way 2, or run `embank fewshot BANK --n-way 2` (--device cpu)"
    written_so = "add n_way 2, or run `embank fewshot BANK --n-way 2` (--device cpu)"
    assert KINDS_BY_NAME["fewshot"].as_in_file(advice) == written_so

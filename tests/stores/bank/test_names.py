"""What features are called: never two alike, and found by any word that fits one of them."""

from pathlib import Path

import pytest

from stores.backends import files
from stores.bank import documents
from stores.bank.layout import SIDE
from stores.bank.names import LONGEST, NOTE, Roster, assigned, check, give, read, valid
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter
from stores.errors import BankError, Refused
from stores.maintenance.relabel import relabel
from stores.maintenance.verify import quarantine, verify
from tests.stores.banks import content, fill, make_bank, make_key

DIM = 5
A, B = "a" * 64, "b" * 64


@pytest.fixture
def bank(quick_path: Path) -> Bank:
    """Two checkpoints of one architecture, and another model."""
    bank = make_bank(quick_path / "bank", 40, DIM, weights=A)
    fill(bank, make_key(bank.image_digest, weights=B), DIM, seed=1)
    fill(bank, make_key(bank.image_digest, model="moco-v2"), DIM, seed=2)
    return bank


def titles(bank: Bank) -> list[str]:
    return sorted(info.title for info in bank.list())


def of(bank: Bank, **changes: str) -> str:
    return make_key(bank.image_digest, **changes).name


def test_checkpoints_of_one_architecture_are_never_shown_alike(bank: Bank) -> None:
    slug = "torchvision/resnet18"
    assert titles(bank) == ["moco-v2", f"{slug}@aaaaaaaa", f"{slug}@bbbbbbbb"]
    for info in bank.list():
        assert bank.features(info.title).title == info.title
        assert bank.features(info.title).name == info.name
        assert bank.describe(info.name)["title"] == info.title


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"weights": A, "dtype": "float32"}, "float32"),
        ({"weights": A, "decoder": "turbo"}, "turbo"),
        ({"weights": A, "precision": "bf16"}, "bf16"),
        ({"weights": A, "recipe": "c" * 64}, "cccccccc"),
    ],
)
def test_whatever_differs_is_in_the_title(changes: dict[str, str], title: str, quick_path: Path) -> None:
    bank = make_bank(quick_path / "bank", 40, DIM, weights=A)
    assert titles(bank) == ["torchvision/resnet18"]
    fill(bank, make_key(bank.image_digest, **changes), DIM, seed=1)
    assert f"torchvision/resnet18@{title}" in titles(bank)
    assert len(set(titles(bank))) == 2


def test_three_that_no_single_field_tells_apart(quick_path: Path) -> None:
    bank = make_bank(quick_path / "bank", 40, DIM, weights=A)
    fill(bank, make_key(bank.image_digest, weights=A, dtype="float32"), DIM)
    fill(bank, make_key(bank.image_digest, weights=B), DIM)
    slug = "torchvision/resnet18"
    assert titles(bank) == [
        f"{slug}@aaaaaaaa,float16",
        f"{slug}@aaaaaaaa,float32",
        f"{slug}@bbbbbbbb,float16",
    ]


def test_digests_that_begin_alike_are_told_apart(quick_path: Path) -> None:
    bank = make_bank(quick_path / "bank", 40, DIM, weights="a" * 63 + "0")
    fill(bank, make_key(bank.image_digest, weights="a" * 63 + "1"), DIM)
    assert len(set(titles(bank))) == 2
    for title in titles(bank):
        assert bank.features(title).title == title


def test_a_name_is_shown_and_found(bank: Bank) -> None:
    first = of(bank, weights=A)
    sealed = content(bank.path)
    give(bank.path, {first: "ImageNet"})
    assert bank.features("ImageNet").name == first
    assert bank.features("ImageN").title == "ImageNet"
    assert titles(bank) == ["ImageNet", "moco-v2", "torchvision/resnet18@bbbbbbbb"]
    after = content(bank.path)
    assert {name: after[name] for name in sealed} == sealed, "a name changes nothing else"
    assert verify(bank).ok
    give(bank.path, {first: "supervised"})
    assert bank.features("supervised").name == first
    with pytest.raises(BankError, match="'ImageNet' is not in"):
        bank.features("ImageNet")


def test_names_are_kept_as_they_compare(bank: Bank) -> None:
    first, second = of(bank, weights=A), of(bank, weights=B)
    give(bank.path, {first: " re\u0301sume\u0301 "})
    assert read(bank.path, first) == "r\u00e9sum\u00e9"
    with pytest.raises(Refused, match="taken"):
        give(bank.path, {second: "r\u00e9sum\u00e9"})


@pytest.mark.parametrize(
    "name",
    ["", " ", "a/b", "two\nlines", "a\ttab", "-x", ".x", "..", "a" * (LONGEST + 1), "zero\u200bwidth", "all",
     "ALL", "resnet.0123456789ab", "two  spaces", "\u202ereversed", "\x1b[31mred", "@x", "=1+1"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str, bank: Bank) -> None:
    before = content(bank.path)
    with pytest.raises(Refused, match="name"):
        give(bank.path, {of(bank, weights=A): name})
    assert content(bank.path) == before


@pytest.mark.parametrize("name", ["a" * LONGEST, "ImageNet (v2)", "Übung 1", "胸部", "0"])
def test_what_is_a_name(name: str, bank: Bank) -> None:
    give(bank.path, {of(bank, weights=A): name})
    assert bank.features(name).title == valid(name) == name


def test_no_name_belongs_to_two(bank: Bank) -> None:
    first, second, third = of(bank, weights=A), of(bank, weights=B), of(bank, model="moco-v2")
    give(bank.path, {first: "mine"})
    before = content(bank.path)
    for feature, name in ((second, "mine"), (first, "moco-v2"), (third, "moco-v2")):
        with pytest.raises(Refused, match="taken"):
            give(bank.path, {feature: name})
    with pytest.raises(Refused, match="taken"):
        give(bank.path, {second: "new", third: "new"})
    assert content(bank.path) == before
    give(bank.path, {first: "mine"})
    give(bank.path, {first: "other", second: "mine"})  # at once, as two hands would swap them
    assert bank.features("mine").name == second
    assert check(bank.path, {}) == {}


def test_names_for_models_embedded_together() -> None:
    assert assigned(["a/x", "b/y"], [None, "mine"]) == {"b/y": "mine"}
    assert assigned(["a/x"], []) == {}
    for names in (["one", "one"], ["moco-v2", None]):
        with pytest.raises(Refused, match="another's"):
            assigned(["a/x", "moco-v2"], names)


def test_several_that_fit_are_listed_with_what_they_differ_in(bank: Bank) -> None:
    first, second = of(bank, weights=A), of(bank, weights=B)
    for feature, file in ((first, "/w/ssl.pth"), (second, "/w/imagenet.pth")):
        body = {"weights_path": file, "recipe": {"size": 224, "crop": 224}}
        documents.replace(
            bank.path / SIDE / feature / "provenance.json",
            body,
            files.temporary(bank.path / SIDE / "tmp", "t"),
        )
    with pytest.raises(BankError, match="could be any of") as refused:
        bank.features("torchvision/resnet18")
    found = refused.value.found
    assert "weights ssl.pth aaaaaaaa" in found
    assert "weights imagenet.pth bbbbbbbb" in found
    assert "dtype" not in found, "what is alike is not said"
    assert "embank bank rename" in refused.value.remedy
    with pytest.raises(BankError, match="could be any of"):
        bank.features("torchvision")


def test_recipes_are_told_apart_by_their_settings(quick_path: Path) -> None:
    bank = make_bank(quick_path / "bank", 40, DIM, recipe="c" * 64)
    fill(bank, make_key(bank.image_digest, recipe="d" * 64), DIM)
    for letter, size in (("c", 224), ("d", 256)):
        body = {"weights_path": None, "recipe": {"size": size, "crop": 224}}
        name = of(bank, recipe=letter * 64)
        documents.replace(
            bank.path / SIDE / name / "provenance.json", body, files.temporary(bank.path / SIDE / "tmp", "t")
        )
    with pytest.raises(BankError, match=r"recipe size=224.*recipe size=256|recipe size=256.*recipe size=224"):
        bank.features()


def test_beginnings_that_fit_one_feature(bank: Bank) -> None:
    third = of(bank, model="moco-v2")
    for word in ("m", "moco", "moco-v2", "moco-v2.", third[:-1], third):
        assert bank.features(word).name == third
    first = of(bank, weights=A)
    assert bank.features(first[:-4]).name == first
    assert bank.select("torchvision/resnet18") == sorted([first, of(bank, weights=B)])
    assert bank.select("moco") == [third]
    assert len(bank.select()) == 3
    for word in ("", "nothing", "oco"):
        with pytest.raises(BankError, match="is not in"):
            bank.select(word)


def test_a_slug_is_no_beginning_of_its_variant(quick_path: Path) -> None:
    """`moco-v2` is another model than `moco-v2+head`: asking for it must not give that."""
    bank = make_bank(quick_path / "bank", 40, DIM, model="moco-v2+head")
    with pytest.raises(BankError, match="is not in"):
        bank.features("moco-v2")
    assert bank.features("moco-v2+").key.model == "moco-v2+head"


def test_a_beginning_does_not_pass_over_what_is_not_finished(bank: Bank) -> None:
    key = make_key(bank.image_digest, model="moco-v3")
    FeatureWriter(bank, key, DIM).close()
    with pytest.raises(BankError, match="could be any of"):
        bank.features("moco")
    with pytest.raises(BankError, match="not finished"):
        bank.features("moco-v3")
    assert "moco-v3" in titles(bank)


def test_a_name_that_a_later_slug_equals_is_never_taken_for_it(bank: Bank) -> None:
    first = of(bank, weights=A)
    give(bank.path, {first: "swav"})
    fill(bank, make_key(bank.image_digest, model="swav"), DIM, seed=3)
    with pytest.raises(BankError, match="could be any of"):
        bank.features("swav")
    assert len(set(titles(bank))) == 4
    assert "swav" in titles(bank)


def test_a_damaged_note_is_found_and_set_aside(bank: Bank) -> None:
    first = of(bank, weights=A)
    give(bank.path, {first: "mine"})
    note = bank.path / SIDE / first / NOTE
    whole = note.read_bytes()
    for spoilt in (whole.replace(b"mine", b"nine"), b"", b"{}\n", whole[:-3]):
        note.write_bytes(spoilt)
        assert read(bank.path, first) is None
        assert bank.features(first).title == "torchvision/resnet18@aaaaaaaa", "an evaluation goes on"
        report = verify(bank)
        assert [each.path for each in report.damaged] == [f"{SIDE}/{first}/{NOTE}"]
    quarantine(bank, report)
    assert verify(bank).ok
    assert Bank.open(bank.path).features(first).name == first


def test_a_note_of_another_feature_is_damage(bank: Bank) -> None:
    first, second = of(bank, weights=A), of(bank, weights=B)
    give(bank.path, {first: "mine"})
    (bank.path / SIDE / second / NOTE).write_bytes((bank.path / SIDE / first / NOTE).read_bytes())
    assert read(bank.path, second) is None
    assert not verify(bank).ok


def test_two_that_were_given_one_name_by_hand_are_still_told_apart(bank: Bank) -> None:
    first, second = of(bank, weights=A), of(bank, weights=B)
    for feature in (first, second):
        body = {"schema": 1, "feature": feature, "name": "mine"}
        documents.replace(
            bank.path / SIDE / feature / NOTE, body, files.temporary(bank.path / SIDE / "tmp", "t")
        )
    assert titles(bank) == sorted(["moco-v2", first, second])
    with pytest.raises(BankError, match="could be any of"):
        bank.features("mine")


def test_relabelling_carries_names(bank: Bank, quick_path: Path) -> None:
    first = of(bank, weights=A)
    give(bank.path, {first: "mine"})
    new = relabel(bank, bank.manifest(), quick_path / "new").bank
    assert new.features("mine").name == first
    relabel(bank, bank.manifest(), quick_path / "new")
    give(new.path, {first: "yours", of(new, weights=B): "mine"})
    before = content(new.path)
    with pytest.raises(Refused, match="taken"):
        relabel(bank, bank.manifest(), quick_path / "new")
    assert content(new.path) == before


def test_titles_of_a_bank_without_features(quick_path: Path) -> None:
    assert Roster.of(quick_path / "nothing").titles == {}

"""Names of features: one that the user chose, else the model's slug, made unambiguous in its bank.

The digest of a feature's key is for machines. A chosen name is a note beside the feature that may change at
any time; no seal covers it.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stores.backends import files, locks
from stores.backends.location import Place
from stores.bank import document_schemas, documents
from stores.bank.keys import SCHEMA_VERSION, FeatureKey
from stores.bank.layout import SIDE, is_feature_name
from stores.bank.seal import definition, feature_names, seal_path
from stores.errors import BankError, Refused
from stores.json_types import JsonObject

NOTE = "name.json"
LONGEST = 100
#: Words that commands give a meaning of their own.
_RESERVED = ("all",)
#: Fields of a key by which features of one slug are told apart, the most telling first.
_FIELDS = ("weights", "recipe", "dtype", "decoder", "precision", "layer", "architecture", "images")
_RULE = (
    f"A name is one printable line of at most {LONGEST} characters without `/`, begins with a letter or a "
    "digit, and is neither `all` nor of the form NAME.DIGEST"
)


def valid(name: str) -> str:
    """Return a name as it is kept: trimmed, in Unicode's normal form C. Raises Refused if it is none."""
    plain = unicodedata.normalize("NFC", name).strip()
    allowed = (
        0 < len(plain) <= LONGEST
        and plain.isprintable()
        and plain[0].isalnum()
        and "/" not in plain
        and "  " not in plain
        and plain.casefold() not in _RESERVED
        and not is_feature_name(plain)
    )
    if not allowed:
        raise Refused(f"name {name[: 2 * LONGEST]!r}", _RULE, "choose another name")
    return plain


def read(root: Place, feature: str) -> str | None:
    """Return the name chosen for a feature; None without one, or if its note is damaged."""
    path = root / SIDE / feature / NOTE
    try:
        body = documents.read_if_there(path)
        return None if body is None else str(checked(body, path, feature)["name"])
    except BankError:
        return None


def checked(body: JsonObject, path: Place, feature: str) -> JsonObject:
    """Return the body of a note. Raises BankError: of another schema, form or feature."""
    document_schemas.check(
        body, lambda note: note.get("feature") == feature and isinstance(note.get("name"), str), path
    )
    return body


def give(root: Place, names: Mapping[str, str]) -> None:
    """Write names beside features, replacing those they have.

    Args:
        names: full name of a feature -> the name for it.

    Raises:
        Refused: a name that is none or belongs to another feature. MachineFault: I/O error.
    """
    if not names:
        return
    with locks.held(root / SIDE / "lock"):
        wanted = check(root, names)
        files.make_directory(root / SIDE / "tmp")
        for feature, name in wanted.items():
            if read(root, feature) != name:
                folder = root / SIDE / feature
                files.make_directory(folder)
                body = {"schema": SCHEMA_VERSION, "feature": feature, "name": name}
                documents.replace(folder / NOTE, body, files.temporary(root / SIDE / "tmp", "bank"))


def assigned(slugs: Sequence[str], names: Sequence[str | None]) -> dict[str, str]:
    """Return slug -> name for models that are to be embedded together, each named or not.

    Raises:
        Refused: a name that is none, is given twice, or is one of the slugs. ValueError: other counts.
    """
    names_of: dict[str, str] = {}
    for slug, name in zip(slugs, names or [None] * len(slugs), strict=True):
        if name is None:
            continue
        plain = valid(name)
        if plain in (*slugs, *names_of.values()):
            raise Refused(
                f"name {plain!r} for {slug}: it is another's",
                "Each feature has a name of its own, which is no slug",
                "choose another name",
            )
        names_of[slug] = plain
    return names_of


def check(root: Place, names: Mapping[str, str]) -> dict[str, str]:
    """Return the names as they would be kept; changes nothing.

    Args:
        names: full name of a feature, in the bank or to be -> the name for it.

    Raises:
        Refused: a name that is none, or is taken.
    """
    wanted = {feature: valid(name) for feature, name in names.items()}
    if not wanted:
        return wanted
    roster, taken = Roster.of(root), dict[str, str]()
    for entry in roster.entries:
        taken |= {word: entry.feature for word in (entry.feature, entry.slug) if word}
        if entry.feature not in wanted:
            taken |= {word: entry.feature for word in (entry.name, roster.title(entry.feature)) if word}
    for feature, name in wanted.items():
        if name in taken:
            raise Refused(
                f"name {name!r} for {feature}: it is taken by {taken[name]}",
                "A name belongs to one feature of a bank, and is no slug of any",
                "choose another name, or give that feature another one (`embank bank rename`)",
            )
        taken[name] = feature
    return wanted


#: Least similarity of a feature's name to the query for it to be suggested.
_LIKE = 0.6


@dataclass(frozen=True)
class Entry:
    """A feature with the names by which it can be found.

    Attributes:
        feature: its full name.
        key: what made it; None if its documents are lost.
        name: chosen by a person, or None.
    """

    feature: str
    key: FeatureKey | None
    name: str | None

    @property
    def slug(self) -> str | None:
        return None if self.key is None else self.key.model

    @classmethod
    def of(cls, root: Place, feature: str) -> "Entry":
        layout = definition(root, feature)
        return cls(feature, None if layout is None else layout.key, read(root, feature))


@dataclass(frozen=True)
class Roster:
    """All features of a bank, and the names that tell them apart.

    Attributes:
        root: of the bank.
        entries: one a feature.
    """

    root: Place
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, root: Place, features: Sequence[str] | None = None) -> "Roster":
        """Read the documents of a bank's features; None takes all that have any."""
        features_read = feature_names(root) if features is None else features
        return cls(root, tuple(files.each(root, lambda feature: Entry.of(root, feature), features_read)))

    @cached_property
    def titles(self) -> dict[str, str]:
        """Full name -> what to call the feature in tables and figures; no two are alike."""
        titles = {entry.feature: self._title(entry) for entry in self.entries}
        uses: dict[str, int] = {}
        for title in titles.values():
            uses[title] = uses.get(title, 0) + 1
        return {feature: title if uses[title] == 1 else feature for feature, title in titles.items()}

    def title(self, feature: str) -> str:
        """Return what to call a feature: its name, its slug, or its slug with what tells it apart."""
        return self.titles.get(feature, feature)

    def _title(self, entry: Entry) -> str:
        if entry.name is not None or entry.slug is None:
            return entry.name or entry.feature
        group = [other for other in self.entries if other.slug == entry.slug]
        if len(group) == 1 and all(other.name != entry.slug for other in self.entries):
            return entry.slug
        return f"{entry.slug}@{_mark(entry, group)}"

    def find(self, query: str | None) -> str:
        """Return the full name of the one sealed feature that is meant.

        Args:
            query: a full name, a chosen name, a title, a slug, or the beginning of one that fits one feature;
                None if the bank has one sealed feature only.

        Raises:
            BankError: none such, several such, or one that is not finished.
        """
        candidates = list(self.entries) if query is None else self.matching(query)
        if not candidates:
            raise self.unknown(query)
        sealed = [entry for entry in candidates if self._is_sealed(entry)]
        if len(candidates) == 1 or len(sealed) == 1:
            return (sealed or candidates)[0].feature
        if not sealed:
            raise unfinished(self.root, candidates[0].feature)
        raise self.ambiguous(query, sealed)

    def one(self, query: str) -> str:
        """Return the full name of the one feature that a word fits, sealed or not.

        Raises:
            BankError: none such, or several such.
        """
        candidates = self.matching(query)
        if not candidates:
            raise self.unknown(query)
        if len(candidates) > 1:
            raise self.ambiguous(query, candidates)
        return candidates[0].feature

    def matching(self, query: str) -> list[Entry]:
        """Return the features that a word fits: one by its name, those of a slug, or one by a beginning.

        Raises:
            BankError: it is one feature's name and another's slug, or the beginning of several.
        """
        exact = [entry for entry in self.entries if entry.feature == query]
        if exact:
            return exact
        named = [e for e in self.entries if query in (e.name, self.title(e.feature))]
        slugs = [entry for entry in self.entries if entry.slug == query]
        if named and any(entry not in named for entry in slugs):
            raise self.ambiguous(query, [e for e in self.entries if e in named or e in slugs])
        if len(named) > 1:
            raise self.ambiguous(query, named)
        if named or slugs:
            return named or slugs
        begun = [entry for entry in self.entries if query and self._begins(entry, query)]
        if len(begun) > 1:
            raise self.ambiguous(query, begun)
        return begun

    def _begins(self, entry: Entry, query: str) -> bool:
        # A slug and its variant (`slug+variant`) are two models: neither stands for the other.
        if entry.slug is not None and entry.slug.startswith(f"{query}+"):
            return False
        words = (entry.feature, entry.name, entry.slug, self.title(entry.feature))
        return any(word is not None and word.startswith(query) for word in words)

    def _is_sealed(self, entry: Entry) -> bool:
        return files.stat_if_there(seal_path(self.root, entry.feature)) is not None

    def unknown(self, query: str | None) -> BankError:
        """Return the error for a word that fits nothing."""
        wanted = "A feature" if query is None else f"{query!r}"
        near = self._near(query or "")
        return BankError(
            f"{wanted} is not in {self.root}",
            f"It holds {', '.join(map(self._words, self.entries)) or 'no features'}",
            (f"write {near[0]}, choose another of these," if near else "choose one of these,")
            + " or run `embank embed` for this model",
        )

    def _near(self, query: str) -> list[str]:
        """Return the titles of the features whose words are most like the query."""
        from difflib import SequenceMatcher  # here, because only errors need it

        word, likeness = query.lower()[:LONGEST], dict[str, float]()
        for entry in self.entries:
            names = [name.lower() for name in (entry.feature, entry.name, entry.slug) if name]
            names += [name.rpartition("/")[2] for name in names]
            likeness[self.title(entry.feature)] = max(
                SequenceMatcher(None, word, name).ratio() for name in names
            )
        near = [title for title, ratio in likeness.items() if ratio >= _LIKE]
        return sorted(near, key=lambda title: -likeness[title])

    def _words(self, entry: Entry) -> str:
        title = self.title(entry.feature)
        return entry.feature if title in (entry.feature, entry.slug) else f"{entry.feature} ({title})"

    def ambiguous(self, query: str | None, entries: Sequence[Entry]) -> BankError:
        """Return the error for a word that fits several features; it names their differences."""
        differences = self.differences(entries)
        wanted = "A feature" if query is None else f"{query!r}"
        return BankError(
            f"{wanted} could be any of "
            + ", ".join(f"{self._words(e)}: {differences[e.feature]}" for e in entries),
            "The choice must be plain",
            f"give a full name, or its beginning; `embank bank rename {self.root} FEATURE NAME` gives a name "
            "of your own",
        )

    def differences(self, entries: Sequence[Entry]) -> dict[str, str]:
        """Map each full name to the fields, with values, in which these features differ, in words."""
        keys = [entry.key for entry in entries if entry.key is not None]
        fields = ["slug" for _ in range(len({key.model for key in keys}) > 1)]
        fields += [name for name in _FIELDS if len({getattr(key, name) for key in keys}) > 1]
        made = {entry.feature: _provenance(self.root, entry.feature) for entry in entries}
        words = {e.feature: ", ".join(_in_words(e, name, made) for name in fields) for e in entries}
        return {feature: description or "nothing but its name" for feature, description in words.items()}


def unfinished(path: Place, name: str) -> BankError:
    """Return the error for a feature that is requested and not finished."""
    return BankError(
        f"Feature {name} in {path} is not finished",
        "Only finished features are evaluated",
        "run the same `embank embed` command again; it goes on where it stopped",
    )


def _short(value: str) -> str:
    is_digest = len(value) == 64 and value.isalnum()
    return value[:8] if is_digest else value


def _mark(entry: Entry, group: Sequence[Entry]) -> str:
    """Return the first field that tells all of a group apart, shortened; else all that differ."""
    columns: dict[str, list[str]] = {
        name: [_short(str(getattr(member.key, name))) for member in group] for name in _FIELDS
    }
    differing = [name for name, values in columns.items() if len(set(values)) > 1] or ["weights"]
    position = [member.feature for member in group].index(entry.feature)
    for name in differing:
        if len(set(columns[name])) == len(group):
            return columns[name][position]
    return ",".join(columns[name][position] for name in differing)


def _provenance(root: Place, feature: str) -> JsonObject:
    try:
        return documents.read_if_there(root / SIDE / feature / "provenance.json") or {}
    except BankError:
        return {}


def _in_words(entry: Entry, field: str, made: Mapping[str, Mapping[str, Any]]) -> str:
    """Format a field: `weights mine.pth 0123abcd`, `recipe size=256 crop=224`, `dtype float16`."""
    if entry.key is None:
        return f"unknown {field}"
    if field == "slug":
        return f"model {entry.key.model}"
    value, how = _short(str(getattr(entry.key, field))), made[entry.feature]
    if field == "weights" and isinstance(how.get("weights_path"), str):
        return f"weights {how['weights_path'].rpartition('/')[2]} {value}"
    if field == "recipe":
        parts = _differing_parts([run.get("recipe") for run in made.values()])
        if parts:
            return "recipe " + " ".join(f"{name}={how['recipe'][name]}" for name in parts)
    return f"{field} {value}"


def _differing_parts(recipes: Sequence[Any]) -> list[str]:
    """Return the names of settings in which recipes differ; none unless all recipes are known."""
    if not all(isinstance(recipe, dict) for recipe in recipes):
        return []
    names = sorted(set().union(*recipes))
    shared = [name for name in names if all(name in recipe for recipe in recipes)]
    return [name for name in shared if len({repr(recipe[name]) for recipe in recipes}) > 1]

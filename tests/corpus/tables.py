"""Tables a user might hand in: each with the class it belongs to and what the message must say.

Classes: X is refused (exit 2, naming value, rule and remedy), OK is read, literally.
"""

from dataclasses import dataclass, field

HEADER = "image_id,uri,label\n"
GOOD = "1,a.png,cat\n"


@dataclass(frozen=True)
class Case:
    """One table.

    Attributes:
        name: for the test's id.
        data: bytes of the file.
        says: for X: texts the message must contain; none makes the case OK.
        path: for X: refused for a path (PathRefused) rather than as a manifest (ManifestError).
        rows: for OK: (image_id, uri, label) expected.
    """

    name: str
    data: bytes
    says: tuple[str, ...] = ()
    path: bool = False
    rows: tuple[tuple[str, str, str], ...] = field(default=())


def _csv(name: str, text: str, *says: str, path: bool = False) -> Case:
    return Case(name, text.encode(), says, path)


def _ok(name: str, text: str | bytes, *rows: tuple[str, str, str]) -> Case:
    return Case(name, text if isinstance(text, bytes) else text.encode(), rows=rows)


ROW = ("1", "a.png", "cat")

CSV = (
    _ok("plain", HEADER + GOOD, ROW),
    _ok("byte order mark", b"\xef\xbb\xbf" + (HEADER + GOOD).encode(), ROW),
    _ok("CRLF", (HEADER + GOOD).replace("\n", "\r\n"), ROW),
    _ok("no newline at the end", HEADER + GOOD.rstrip(), ROW),
    _ok("blank lines", HEADER + "\n" + GOOD + "\n\n", ROW),
    _ok("quoted comma", HEADER + '1,"a,b.png",cat\n', ("1", "a,b.png", "cat")),
    _ok("columns in another order", "label,uri,image_id\ncat,a.png,1\n", ROW),
    _ok("id defaults to the uri", "uri\na.png\n", ("a.png", "a.png", "")),
    Case("UTF-16", (HEADER + GOOD).encode("utf-16"), ("UTF-16", "UTF-8")),
    Case("UTF-16 without mark", (HEADER + GOOD).encode("utf-16-le"), ("UTF-16",)),
    Case("Latin-1", (HEADER + GOOD + "2,b.png,Ödem\n").encode("latin-1"), ("line 3", "UTF-8")),
    _csv("semicolons", (HEADER + GOOD).replace(",", ";"), "semicolons", "commas"),
    _csv("tabs", (HEADER + GOOD).replace(",", "\t"), "tabs"),
    _csv("short row", HEADER + GOOD + "2,b.png\n", "line 3", "2 fields", "header has 3"),
    _csv("long row", HEADER + GOOD + "2,b.png,dog,x\n", "line 3", "4 fields"),
    _csv("short row after a multi-line field", 'uri,text\na.png,"x\ny"\nb.png\n', "line 4", "1 fields"),
    _csv("open quote", HEADER + GOOD + '2,"b.png,dog\n3,c.png,dog\n', "line 4", "quote"),
    _csv("text after a quote", HEADER + '1,"a.png"x,cat\n', "line 2", "quote"),
    _csv("duplicate header", "image_id,uri,label,label\n1,a.png,cat,dog\n", "'label'", "more than once"),
    _csv("unnamed column", ",uri,label\n0,a.png,cat\n", "index=False"),
    _csv("empty", "", "is empty"),
    _csv("only a mark", "\ufeff", "first line is empty"),
    _csv("empty first line", "\n" + HEADER + GOOD, "first line is empty"),
    _csv("header only", HEADER, "no rows"),
    _csv("missing column", "image_id,path,label\n1,a.png,cat\n", "no column 'uri'", "'path'", "--uri"),
    _csv("capitals", "image_id,URI\n1,a.png\n", "no column 'uri'", "'URI'"),
    Case("cut Parquet", b"PAR1" + bytes(40), ("Parquet",)),
)

IDS_AND_LABELS = (
    *(
        _ok(f"id {text}", f"{HEADER}{text},a.png,cat\n", (text, "a.png", "cat"))
        for text in ("NA", "nan", "00012", "1e5", "=HYPERLINK()", "<script>", "1.0", "None", "-0", "é")
    ),
    _ok("id null", HEADER + "null,a.png,cat\n", ("null", "a.png", "cat")),
    _ok("label 00 is literal", HEADER + "1,a.png,00\n", ("1", "a.png", "00")),
    *(
        _ok(f"missing label {text!r}", f"{HEADER}1,a.png,{text}\n", ("1", "a.png", ""))
        for text in ("", "nan", "NaN", "NAN", "NA", "None", "NULL", "-", " ", "<NA>", "n/a")
    ),
    _csv("duplicate id", HEADER + GOOD + "2,b.png,dog\n1,c.png,dog\n", "'1'", "line 2, line 4"),
    _csv("empty id", HEADER + ",a.png,cat\n", "line 2", "image_id"),
    _csv("id of two lines", HEADER + '"1\n2",a.png,cat\n', "line 2", "one line"),
    _csv("conflicting labels", HEADER + GOOD + "2,a.png,dog\n", "'a.png'", "'cat'", "'dog'", "line 2"),
    _csv("conflict in two spellings", HEADER + GOOD + "2,./a.png,dog\n", "conflicting"),
    _csv("label of two lines", HEADER + '1,a.png,"cat\n2,b.png,dog"\n', "label", "line 2"),
    *(
        _csv(f"label {text}", f"{HEADER}{GOOD}2,b.png,{text}\n", "infinite label", "line 3", repr(text))
        for text in ("inf", "-inf", "+Inf", "Infinity")
    ),
    _csv("digest that is none", "uri,sha256\na.png,abc\n", "sha256", "64 hex"),
)


def _refused_uri(name: str, uri: str, *says: str) -> Case:
    quoted = '"' + uri.replace('"', '""') + '"'
    return _csv(name, f"{HEADER}{GOOD}2,{quoted},dog\n", "line 3", *says, path=True)


PATHS = (
    _refused_uri("parent", "../../etc/passwd", "climbs"),
    _refused_uri("parent inside", "a/../../b.png", "climbs"),
    _refused_uri("parent at the end", "a/..", "climbs"),
    _refused_uri("absolute", "/etc/passwd", "is absolute"),
    _refused_uri("http", "http://example.org/a.png", "scheme"),
    _refused_uri("file", "file:///etc/passwd", "scheme"),
    _refused_uri("file with one colon", "file:a.png", "scheme"),
    _refused_uri("s3", "s3://bucket/a.png", "scheme"),
    _refused_uri("drive", "C:/a.png", "scheme"),
    _refused_uri("backslash", "a\\b.png", "backslash"),
    _refused_uri("NUL", "a\x00.png", "control character", "\\x00"),
    _refused_uri("newline", "a\nb.png", "control character", "\\n"),
    _refused_uri("carriage return", "a\rb.png", "control character"),
    _refused_uri("escape", "a\x1b[2Jb.png", "control character"),
    _refused_uri("C1 control", "a\x9bb.png", "control character"),
    _refused_uri("line separator", "a\u2028b.png", "control character"),
    _refused_uri("right-to-left override", "a\u202egnp.exe", "reverses the direction", "\\u202e"),
    _refused_uri("isolate", "a\u2066b.png", "reverses the direction"),
    _refused_uri("empty uri", "", "is empty"),
    *(
        _ok(f"plain {uri[:12]!r}", f"{HEADER}1,{uri},cat\n", ("1", uri, "cat"))
        for uri in (
            "a b.png", "..a.png", "a..b/c..png", "...", "~/a.png", "./c:a.png", "d/c:a.png", "%2e%2e/a.png",
            "2020-01-01T10:00.png", "Ω/é.png", "图.png", "a" * 300 + ".png", "é" * 200 + ".png", "$HOME",
            "a*.png",
        )
    ),
)  # fmt: skip

GROUPS = {"csv": CSV, "ids and labels": IDS_AND_LABELS, "paths": PATHS}

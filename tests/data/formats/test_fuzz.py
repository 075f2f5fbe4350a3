"""Whatever lies in a source's folder, a reader ends in annotations or in our errors, and opens nothing outside it.

The normal run draws 200 cases over all readers; 2,000 and more, which also show that no kind of attack was left out, by
    GASTROVL_FUZZ_CASES=2000 python -m pytest tests/data/formats/test_fuzz.py
Archives and moving pictures have files of their own: test_fuzz_archives.py and test_fuzz_frames.py.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gastrovl.core.errors import GastroVLError
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats import FORMATS
from gastrovl.data.images import list_images

Watch = Callable[..., Any]

CASES = int(os.environ.get("GASTROVL_FUZZ_CASES", "200"))
WIDTH, HEIGHT = 20, 10
SECRET = "secret"

NAMES = st.sampled_from(
    ["a.png", "a", "sub/b.png", "b", "./a.png", "link.png", "link.png", "sub/../link.png", "../secret.png",
     "../../etc/passwd", "/etc/passwd", "..", "/", "", " ", "C:\\x\\a.png", "..\\a.png", "a\0.png", "x" * 5000,
     "a.png/..", "\u202egnp.a", "images/a.png", "~/a"]
)  # fmt: skip
OUTSIDE = ["link", "../secret", "sub/../../secret", "/etc/passwd", "loop"]
FILES = st.sampled_from([*["ann"] * 5, *OUTSIDE, "missing", "sub", "", "a\0b"])
LABELS = st.one_of(st.sampled_from(["polyp", "ulcer", "\ud800", "\0", ""]), st.text(max_size=8))
NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-3, 25),
    st.floats(-2, 30),
    st.sampled_from(
        [float("nan"), float("inf"), -1, 1e308, 10**400, "7", "x", "", None, True, [], {}, "1e5", "\u0663"]
    ),
)
SIZES = st.sampled_from(
    [(WIDTH, HEIGHT), (WIDTH, HEIGHT), (HEIGHT, WIDTH), (-WIDTH, HEIGHT), (0, 0), (None, None), ("a", 1)]
)
BOXES = st.one_of(st.just([2, 1, 8, 6]), st.lists(NUMBERS, min_size=3, max_size=5))
POINTS = st.lists(st.lists(NUMBERS, min_size=1, max_size=3), max_size=4)
JUNK = st.recursive(st.one_of(NUMBERS, st.text(max_size=5)), lambda inner: st.lists(inner, max_size=3), max_leaves=6)
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(12))  # 10**11 times "lol"
ENTITIES = [
    f'<!DOCTYPE x [{LAUGHS}<!ENTITY b "&l11;"><!ENTITY c "&b;">]>',
    f'<!DOCTYPE x [<!ENTITY b "{"x" * 50_000}"><!ENTITY c "{"&b;" * 5_000}">]>',
    '<!DOCTYPE x [<!ENTITY b SYSTEM "../secret.xml"><!ENTITY c SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE x SYSTEM "../secret.dtd">',
]


def maybe(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The value, or now and then something of another kind."""
    return st.integers(0, 11).flatmap(lambda n: JUNK if n == 0 else value)


def records(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {}, optional={key: maybe(value) for key, value in fields.items()}
    ) | st.fixed_dictionaries({key: maybe(value) for key, value in fields.items()})


def rows_of(*columns: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*columns), max_size=4)


# ---- a file of each format: structure that is mostly right, with values that are often wrong

COCO = records(
    images=st.lists(records(id=st.integers(0, 2), file_name=NAMES, width=NUMBERS, height=st.just(HEIGHT)), max_size=3)
    | st.sampled_from(["a.png", "a.png", "a.png", "link.png"]).map(
        lambda name: [{"id": 0, "file_name": name, "width": WIDTH, "height": HEIGHT}]
    ),
    categories=st.just([{"id": 0, "name": "polyp"}]) | st.lists(records(id=NUMBERS, name=LABELS), max_size=2),
    annotations=st.lists(
        records(
            image_id=st.just(0),
            category_id=st.just(0),
            bbox=BOXES,
            segmentation=st.lists(st.lists(NUMBERS, max_size=7), max_size=2)
            | records(
                size=st.just([HEIGHT, WIDTH]) | st.lists(NUMBERS, max_size=3),
                counts=st.lists(NUMBERS, max_size=4) | st.text(max_size=8) | st.just([5, 100, 95]),
            ),
        ),
        max_size=3,
    ),
).map(json.dumps)
JSON_BOXES = st.dictionaries(
    NAMES,
    maybe(
        records(
            width=NUMBERS,
            height=NUMBERS,
            bbox=st.lists(records(label=LABELS, xmin=NUMBERS, ymin=NUMBERS, xmax=NUMBERS, ymax=NUMBERS), max_size=2),
        )
    ),
    max_size=3,
).map(json.dumps)
LABELME = records(
    imagePath=NAMES,
    imageWidth=st.just(WIDTH),
    imageHeight=st.sampled_from([HEIGHT, WIDTH]),
    flags=st.dictionaries(LABELS, st.booleans(), max_size=2),
    shapes=st.lists(
        records(
            label=LABELS,
            shape_type=st.sampled_from(["polygon", "rectangle", "circle", "mask", "point", "x"]),
            points=POINTS,
        ),
        max_size=3,
    ),
).map(json.dumps)
SAID = st.sampled_from(
    ["<image>\nWhat?", "Where is the polyp?", "{<2><1><8><6>}", "{<9><1><2><6>}", "{<2><1><8><600>}", "{<2><1><8>}",
     "polyp", "<image>", "", "{<" + "9" * 400 + "><1><8><6>}", "[002,001,008,006]", "[999,001,008,006]", "absent",
     "\ud800"]
)  # fmt: skip
TURNS = st.lists(SAID, min_size=1, max_size=4).map(
    lambda texts: [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
)
DIALOGUES = st.lists(
    records(
        id=NAMES,
        image=NAMES,
        conversations=TURNS | st.lists(records(**{"from": SAID, "value": SAID}), max_size=2),
    )
    | records(
        image=st.just("a.png"),
        conversations=TURNS,
        task=st.sampled_from(["CLS", "REC", "REG", "CAP", "VQA", "x"]),
        labels=st.lists(LABELS, max_size=2),
        group=LABELS,
        split=LABELS,
    ),
    max_size=3,
).map(json.dumps)
TABLE = rows_of(NAMES, LABELS, NUMBERS, NUMBERS, NUMBERS, NUMBERS).map(
    lambda rows: "\n".join(["image,label,a,b,c,d", *(",".join(str(cell) for cell in row) for row in rows)])
)
PAIRS = st.lists(records(image=NAMES, question=LABELS, answer=LABELS), max_size=3).map(json.dumps)
BOX_ROWS = rows_of(NUMBERS, NUMBERS, NUMBERS, NUMBERS, LABELS).map(
    lambda rows: "\n".join(" ".join(str(cell) for cell in row) for row in rows)
)
YOLO_ROWS = rows_of(
    st.sampled_from(["0", "1", "9", "-1", "\u00b2", "9" * 5000]), *[st.floats(-1, 2).map(str) | NUMBERS.map(str)] * 4
).map(lambda rows: "\n".join(" ".join(row) for row in rows))


def _voc(parts: tuple[Any, ...]) -> str:
    name, size, label, box, declared = parts
    corners = "".join(
        f"<{key}>{escape(str(value))}</{key}>"
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=False)
    )
    return (
        f"{declared}<annotation><filename>{escape(name)}</filename><size><width>{size[0]}</width><height>{size[1]}</height>"
        f"</size><object><name>{escape(label)}</name><bndbox>{corners}</bndbox></object></annotation>"
    )


def _cvat(parts: tuple[Any, ...]) -> str:
    name, size, label, box, declared = parts
    numbers = [quoteattr(str(value)) for value in (*box, 1, 1, 1, 1)]
    points = quoteattr(";".join(f"{x},{y}" for x, y in itertools.pairwise(box)))
    return (
        f'{declared}<annotations><image name={quoteattr(name)} width="{size[0]}" height="{size[1]}">'
        f"<box label={quoteattr(label)} xtl={numbers[0]} ytl={numbers[1]} xbr={numbers[2]} ybr={numbers[3]}></box>"
        f"<polygon label={quoteattr(label)} points={points}/><tag label={quoteattr(label)}/>"
        f"<mask label={quoteattr(label)} left={numbers[0]} top={numbers[1]} width={numbers[2]} height={numbers[3]}/>"
        "</image></annotations>"
    )


DECLARED = st.sampled_from(
    ["", "", "", "", *ENTITIES, '<?xml version="1.0" encoding="utf-16"?>', '<?xml version="1.0" encoding="zz"?>']
)
XML_PARTS = st.tuples(NAMES, SIZES, LABELS | st.just("&b;&c;"), BOXES, DECLARED)


def _workbook(rows: list[tuple[Any, ...]]) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["image", "label"])
    for row in rows:
        book.active.append([str(cell).replace("\0", "").replace("\ud800", "")[:99].strip("\x00-\x1f") for cell in row])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


WORKBOOK = rows_of(NAMES.filter(str.isprintable), st.sampled_from(["polyp", ""])).map(_workbook)


def _mask(parts: tuple[Any, ...]) -> bytes:
    values, size_wh = parts
    stream = io.BytesIO()
    Image.fromarray(np.resize(np.array(values, dtype=np.uint8), size_wh[::-1])).save(stream, "PNG")
    return stream.getvalue()


MASK = st.tuples(
    st.lists(st.integers(0, 255), min_size=1, max_size=9), st.sampled_from([(WIDTH, HEIGHT), (HEIGHT, WIDTH), (1, 1)])
).map(_mask)

Wrong = tuple[str, int, bytes]
DAMAGE: st.SearchStrategy[Wrong] = st.tuples(
    st.sampled_from(["no", "no", "no", "no", "cut", "insert", "latin", "utf-16", "deep", "mark"]),
    st.integers(0, 400),
    st.binary(max_size=6),
)


def damaged(content: bytes, damage: Wrong) -> bytes:
    """The file as a careless program or a stranger might have left it."""
    kind, place, junk = damage
    if kind == "cut":
        return content[: place % (len(content) + 1)]
    if kind == "insert":
        return content[:place] + junk + content[place:]
    if kind == "latin":
        return content[:place] + "\xe9".encode("latin-1") + content[place:]
    if kind == "utf-16":
        return content.decode("utf-8", "replace").encode("utf-16")
    if kind == "deep":
        return (b"<a>" if content.lstrip().startswith(b"<") else b"[") * 3000 + content
    return b"\xef\xbb\xbf" + content if kind == "mark" else content


# format -> (suffix of its file, the file, options beside the file's name; one of several is drawn)
INPUTS: dict[str, list[tuple[str, st.SearchStrategy[Any], dict[str, Any]]]] = {
    "coco": [(".json", COCO, {}), (".json", COCO, {"outside": "clip"})],
    "voc": [(".xml", XML_PARTS.map(_voc), {}), (".xml", XML_PARTS.map(_voc), {"outside": "clip", "first_pixel": 1})],
    "cvat": [(".xml", XML_PARTS.map(_cvat), {}), (".xml", XML_PARTS.map(_cvat), {"outside": "clip"})],
    "labelme": [(".json", LABELME, {"flags": True}), (".xml", XML_PARTS.map(_voc), {"kind": "xml"})],
    "conversations": [
        (".json", DIALOGUES, {"labels": ["polyp"], "wording": "source"}),
        (".json", DIALOGUES, {"boxes": "bins"}),
    ],
    "qa_pairs": [(".json", PAIRS, {}), (".csv", TABLE, {"question": "label", "answer": "a"})],
    "csv_labels": [
        (".csv", TABLE, {"box": ["a", "b", "c", "d"]}),
        (".csv", TABLE, {"label_delimiter": ",", "box": ["a", "b", "c", "d"], "box_order": "xywh"}),
        (".xlsx", WORKBOOK, {}),
    ],
    "json_boxes": [(".json", JSON_BOXES, {})],
    "box_text": [(".txt", BOX_ROWS, {}), (".txt", BOX_ROWS, {"box_order": "xywh"})],
    "yolo": [(".txt", YOLO_ROWS, {"classes": "classes.txt"})],
    "masks": [
        (".png", MASK, {"label": "polyp"}),
        (".png", MASK, {"classes": {1: "polyp", 255: "ulcer"}}),
        (".png", MASK, {}),
    ],
    "class_folders": [(".txt", st.just(""), {"level": 1}), (".txt", st.just(""), {"level": 2})],
}
PICTURE = io.BytesIO()
Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)).save(PICTURE, "PNG")


CODE = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib", "purelib", "platlib")]


def is_code(path: str) -> bool:
    """Whether Python imports it or looks for what to import."""
    return any(Path(path).resolve().is_relative_to(folder) for folder in CODE) or path.endswith((".py", ".pyc", ".so"))


def lay_out(top: Path, content: bytes, suffix: str, name: str) -> tuple[Path, str]:
    """A source's folder with two images and an annotation file, links that lead out of it, and a secret beside it."""
    root = top / "root"
    (root / "images/sub").mkdir(parents=True)
    (root / "sub").mkdir()
    (top / f"{SECRET}{suffix}").write_bytes(content)
    (top / SECRET).mkdir()
    (top / SECRET / f"a{suffix}").write_bytes(content)
    (top / f"{SECRET}.png").write_bytes(PICTURE.getvalue())
    for image in ("a.png", "sub/b.png"):
        (root / "images" / image).write_bytes(PICTURE.getvalue())
    (root / "images/link.png").symlink_to(top / f"{SECRET}.png")
    (root / "classes.txt").write_text("polyp\nulcer\n", encoding="utf-8")
    (root / f"ann{suffix}").write_bytes(content)
    (root / f"link{suffix}").symlink_to(top / f"{SECRET}{suffix}")
    (root / f"loop{suffix}").symlink_to(root / f"loop{suffix}")
    return root, name + suffix


def options_of(kind: str, more: dict[str, Any], root: Path, name: str) -> dict[str, Any]:
    """The format's options with the annotation file under the key that the format has for it."""
    fields = FORMATS[kind].options.model_fields
    if "files" in fields:
        return {"files": {"train": name}, **more}
    if "file" in fields:
        return {"file": name, **more}
    if "folder" not in fields:
        return more
    folder = {"ann": "one", "link": "."}.get(Path(name).stem, name.removesuffix(Path(name).suffix))
    if "\0" not in folder and folder == "one":
        (root / "one").mkdir()
        (root / f"one/a{Path(name).suffix}").write_bytes((root / name).read_bytes())
    return {"folder": folder, **more}


def read_all(kind: str, root: Path, more: dict[str, Any], name: str) -> list[Annotation]:
    options = FORMATS[kind].options(**options_of(kind, more, root, name))
    images = list_images(root, ["images/**/*.png"], max_px=10_000)
    return list(FORMATS[kind].read(root, options, images))


def case_of(kind: str) -> st.SearchStrategy[tuple[str, Any, dict[str, Any]]]:
    return st.one_of([st.tuples(st.just(suffix), files, st.just(options)) for suffix, files, options in INPUTS[kind]])


SWAPPED = {
    "coco": rf'"height": {HEIGHT}',  # a record of one image, whose width is drawn and may be anything
    "labelme": rf'"imageHeight": {WIDTH}|<width>{HEIGHT}</width><height>{WIDTH}<',
    "voc": rf"<width>{HEIGHT}</width><height>{WIDTH}<",
    "cvat": rf'width="{HEIGHT}" height="{WIDTH}"',
}
ATTACKS: dict[str, str] = {
    "path out": r"\.\./|/etc/passwd|~/a",
    "link out": r"link\.png",
    "negative": r"[^\w]-[1-9]",
    "entities": "<!DOCTYPE",
}


def attacks(kind: str, content: str, name: str, damage: Wrong) -> set[str]:
    """What is wrong with a case on purpose."""
    found = {attack for attack, pattern in ATTACKS.items() if re.search(pattern, content)}
    if kind in SWAPPED and re.search(SWAPPED[kind], content):
        found.add("swapped axes")
    if name in OUTSIDE:
        found.add("file outside")
    return found | ({"bad encoding"} if damage[0] in ("latin", "utf-16") else set())


NAMED = {"path out", "link out"}  # where a file names images itself
EXPECTED: dict[str, set[str]] = {
    "coco": {*NAMED, "file outside", "bad encoding", "negative", "swapped axes"},
    "voc": {*NAMED, "file outside", "bad encoding", "negative", "swapped axes", "entities"},
    "cvat": {*NAMED, "file outside", "bad encoding", "negative", "swapped axes", "entities"},
    "labelme": {*NAMED, "file outside", "bad encoding", "negative", "swapped axes", "entities"},
    "conversations": {*NAMED, "file outside", "bad encoding"},
    "qa_pairs": {*NAMED, "file outside", "bad encoding"},
    "csv_labels": {*NAMED, "file outside", "bad encoding", "negative"},
    "json_boxes": {*NAMED, "file outside", "bad encoding", "negative"},
    "box_text": {"file outside", "bad encoding", "negative"},
    "yolo": {"file outside", "bad encoding", "negative"},
    "masks": {"file outside"},
    "class_folders": set(),
}


def test_every_format_is_fuzzed():
    assert INPUTS.keys() == EXPECTED.keys() == FORMATS.keys()


def fuzz(kind: str, watched: Watch) -> tuple[Callable[[], None], Counter[str]]:
    """A run over the cases of a format, and how often each attack was drawn in it."""
    drawn: Counter[str] = Counter()

    @settings(
        max_examples=max(1, -(-CASES // len(INPUTS))),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(case=case_of(kind), name=FILES, damage=DAMAGE)
    def run(case: tuple[str, Any, dict[str, Any]], name: str, damage: Wrong) -> None:
        suffix, content, more = case
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        made = attacks(kind, raw.decode("latin-1"), name, damage)
        drawn.update(["case", *made])
        is_refused = False
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder).resolve()
            root, named = lay_out(top, damaged(raw, damage), suffix, name)
            with watched(top, top / SECRET) as found:
                try:
                    annotations = read_all(kind, root, more, named)
                except GastroVLError:
                    annotations, is_refused = [], True
            outside = [path for path in found if not Path(path).resolve().is_relative_to(root) and not is_code(path)]
            assert not outside, f"opened outside the root: {outside}"
            if "file" in " ".join(FORMATS[kind].options.model_fields) or "folder" in FORMATS[kind].options.model_fields:
                assert is_refused or name not in OUTSIDE, "a file outside the root was taken"
            if name == "ann" and damage[0] == "no":
                assert is_refused or "entities" not in made, "a document type was taken"
            for annotation in annotations:
                assert annotation.where
                is_unread = annotation.image.size_wh is None  # a link that leads out is set aside, known by name only
                assert is_unread or annotation.image.path.resolve().is_relative_to(root)
                assert annotation.box is None or max(annotation.box.xyxy) <= 1  # Box itself checks the rest
                said = annotation.dialogue.turns if annotation.dialogue else ()
                "".join((*annotation.labels, *(text for turn in said for text in turn))).encode()  # can be written

    return run, drawn


@pytest.mark.parametrize("kind", sorted(INPUTS))
def test_a_reader_ends_in_annotations_or_in_our_errors(kind, watched):
    run, drawn = fuzz(kind, watched)
    run()
    if drawn["case"] > 100:  # a small run cannot draw everything
        assert not EXPECTED[kind] - drawn.keys(), f"never drawn: {EXPECTED[kind] - drawn.keys()}"

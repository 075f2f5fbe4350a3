"""How boxes are written for a model: by hand, back again, and nothing but well-formed boxes is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gastrovl.core import geometry
from gastrovl.core.boxcoding import BoxCoding, BoxCodingConfig, exact_boxes, unread
from gastrovl.core.boxtext import BOX_PATTERN, decode_box, decode_boxes, encode_box, encode_boxes
from gastrovl.core.errors import BoxTextError, GeometryError
from gastrovl.core.types import Box

BOX = Box(x0=0.25, y0=0.5, x1=0.75, y1=1.0)
SIZE = (640, 480)
EVERY = [
    {"kind": kind, "order": order, "several": several, **bins}
    for kind, bins in [("digits", {}), ("pixels", {}), ("tokens", {"bins": 64}), ("tokens", {})]
    for order in ("xyxy", "yxyx")
    for several in ("largest", "left")
]


def coding(**config):
    return BoxCoding(BoxCodingConfig(**config))


@pytest.fixture(params=EVERY, ids=lambda config: "-".join(map(str, config.values())))
def every(request):
    return coding(**request.param)


@st.composite
def boxes(draw):
    x0, y0 = draw(st.floats(0, 0.9)), draw(st.floats(0, 0.9))
    return Box(x0=x0, y0=y0, x1=draw(st.floats(x0 + 0.02, 1)), y1=draw(st.floats(y0 + 0.02, 1)))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({}, "[250,500,749,999]"),
        ({"order": "yxyx"}, "[500,250,999,749]"),
        ({"kind": "pixels"}, "{<160><240><480><480>}"),
        ({"kind": "pixels", "order": "yxyx"}, "{<240><160><480><480>}"),
        ({"kind": "tokens"}, "<loc250><loc500><loc749><loc999>"),
        # 63 steps: 15.75 -> 16, 31.5 -> 32, 47.25 -> 47
        ({"kind": "tokens", "bins": 64}, "<loc016><loc032><loc047><loc063>"),
        ({"kind": "tokens", "bins": 64, "order": "yxyx"}, "<loc032><loc016><loc063><loc047>"),
    ],
)
def test_a_box_is_written_as_the_config_says(config, text):
    assert coding(**config).write_box(BOX, SIZE) == text


def test_the_default_leaves_every_text_alone():
    for text in ("[0,0,9,9] and [5,5,1,1]", "<loc001>", "{<1>", "[250,500,749,999]"):
        assert BoxCoding().is_plain
        assert BoxCoding().decode_text(text) == text
    assert BoxCoding().encode_text("at [000,000,500,999]")[0] == "at [000,000,500,999]"


def test_boxes_in_the_middle_of_words_are_written_and_read(every):
    text = f"Is {encode_box(BOX)} left of [000,100,100,333]? Say so."

    said, found = every.encode_text(text, SIZE, {encode_box(BOX): BOX})

    assert found[0] is BOX
    assert said.startswith("Is ")
    assert said.endswith("? Say so.")
    again = every.decode_text(said, SIZE)
    boxes = [decode_box(match.group()) for match in BOX_PATTERN.finditer(again)]
    for box, true in zip(boxes, found, strict=True):
        assert box.xyxy == pytest.approx(true.xyxy, abs=0.5 / 63 + 0.5 / 999)


@given(st.lists(boxes(), min_size=1, max_size=4), st.integers(50, 4096), st.integers(50, 4096))
def test_several_boxes_come_back_whatever_their_order(found, width, height):
    text, exact = encode_boxes(found), {encode_box(box): box for box in found}
    for config in EVERY:
        one = coding(**config)

        said, written = one.encode_text(text, (width, height), exact, sorts=True)
        read = one.read_boxes(said, (width, height))

        steps = one.steps((width, height))
        for box, true in zip(read, written, strict=True):
            for axis in (0, 1):
                for edge in (axis, axis + 2):
                    assert abs(box.xyxy[edge] - true.xyxy[edge]) <= 1 / steps[axis] / 2 + 1e-9 or (
                        true.xyxy[axis + 2] - true.xyxy[axis] < 1 / steps[axis]
                    )
        if config["several"] == "left":
            assert [box.x0 for box in written] == sorted(box.x0 for box in written)
        assert len(decode_boxes(one.decode_text(said, (width, height)))) == len(found)


def test_left_puts_the_leftmost_first_in_answers_only_and_replies_are_largest_first_again():
    left = coding(kind="tokens", several="left")
    text = "[400,000,999,999] [100,000,200,100]"

    answer, written = left.encode_text(text, sorts=True)
    question, _ = left.encode_text(text)

    assert answer.startswith("<loc100>")
    assert [round(box.x0, 1) for box in written] == [0.1, 0.4]
    assert question.startswith("<loc400>")
    assert left.encode_text(f"Both: {text}", sorts=True)[0].startswith("Both: <loc400>")
    assert left.decode_text(answer) == text


def test_absent_stays_absent(every):
    assert every.encode_text("absent", SIZE, sorts=True) == ("absent", ())
    assert every.decode_text("absent", SIZE) == "absent"
    assert every.read_boxes(" Absent\n", SIZE) == ()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"order": "yxyx"}, "[500,250,499,749]"),
        ({"order": "yxyx"}, "[500,250,999,1000]"),
        ({"order": "yxyx"}, "[0,1,2,12345678901]"),
        ({"kind": "pixels"}, "{<160><240><480><481>}"),  # the image is 480 high: not clipped
        ({"kind": "pixels"}, "{<641><240><642><480>}"),
        ({"kind": "pixels"}, "{<-1><240><480><480>}"),
        ({"kind": "pixels"}, "{<160><240><160><480>}"),
        ({"kind": "pixels"}, "{<160><240><150><480>}"),
        ({"kind": "pixels"}, "{<160><240><480>}"),
        ({"kind": "pixels"}, "{<160><240><480><48"),
        ({"kind": "pixels"}, "{<1><2><3><4>} {<5>"),
        ({"kind": "pixels"}, "{<1><2><3><12345678901>}"),
        ({"kind": "pixels", "order": "yxyx"}, "{<0><0><481><640>}"),
        ({"kind": "pixels"}, "[160,240,480,480]"),
        ({"kind": "tokens"}, "<loc250><loc500><loc749>"),
        ({"kind": "tokens"}, "<loc250><loc500><loc749><loc999><loc000>"),
        ({"kind": "tokens"}, "<loc250><loc500><loc250><loc999>"),
        ({"kind": "tokens"}, "<loc250><loc500><loc749><loc400>"),
        ({"kind": "tokens", "bins": 64}, "<loc000><loc000><loc064><loc001>"),
        ({"kind": "tokens"}, "<loc250> <loc500> <loc749> <loc999>"),
        ({"kind": "tokens"}, "[250,500,749,999]"),
    ],
)
def test_malformed_boxes_are_refused_and_stay_unread(config, text):
    one = coding(**config)

    with pytest.raises(BoxTextError):
        one.read_boxes(text, SIZE)
    with pytest.raises(BoxTextError):
        one.decode_text(text, SIZE)
    with pytest.raises(BoxTextError):  # so that no evaluation reads what the model did not say
        decode_boxes(unread(text))


def test_other_words_are_no_boxes(every):
    for text in ("", "no finding", f"{every.write_box(BOX, SIZE)} maybe"):
        with pytest.raises(BoxTextError):
            every.read_boxes(text, SIZE)


@given(st.text(alphabet="[]{}<>loc0123456789, -", max_size=40))
def test_any_text_is_read_as_boxes_inside_the_image_or_refused(text):
    for config in EVERY:
        try:
            found = coding(**config).read_boxes(text, SIZE)
        except BoxTextError:
            continue
        assert all(min(box.xyxy) >= 0 and max(box.xyxy) <= 1 for box in found)


def test_places_take_the_place_of_tokens_in_their_own_order():
    one = coding(kind="tokens", bins=65, order="yxyx")  # 64 steps

    (box,) = one.read_boxes("<loc016><loc032><loc048><loc064>", places=[16.4, 31.6, 48.0, 63.2])

    assert box.xyxy == (31.6 / 64, 16.4 / 64, 63.2 / 64, 48.0 / 64)
    assert one.places(box) == pytest.approx((16.4, 31.6, 48.0, 63.2))
    # 31.6 / 64 x 999 = 493.2, 16.4 -> 256.0, 63.2 -> 986.5, 48 -> 749.25
    assert one.decode_text("<loc016><loc032><loc048><loc064>", places=[16.4, 31.6, 48.0, 63.2]) == "[493,256,987,749]"
    with pytest.raises(BoxTextError, match="4 location tokens, 3 places"):
        one.read_boxes("<loc016><loc032><loc048><loc064>", places=[1.0, 2.0, 3.0])


def test_exact_boxes_are_found_by_the_words_of_the_view():
    box = Box(x0=0.1003, y0=0.2, x1=0.5, y1=0.6)

    (item,) = exact_boxes([box], geometry.flip_horizontal).items()

    # 0.1003 x 999 = 100.2 -> 100, mirrored 899; 0.5 x 999 = 499.5 -> 500, mirrored 499
    assert item == ("[499,200,899,599]", geometry.flip_horizontal(box))
    assert exact_boxes([box], lambda _: None) == {}


def test_pixels_need_the_images_size():
    with pytest.raises(GeometryError, match="give its size"):
        coding(kind="pixels").write_box(BOX)
    with pytest.raises(GeometryError, match="give its size"):
        coding(kind="pixels").decode_text("{<1><2><3><4>}")


def test_bins_belong_to_tokens():
    for config in ({"bins": 100}, {"kind": "pixels", "sigma": 1.0}, {"reading": "median"}):
        with pytest.raises(ValidationError, match="belong to kind `tokens`"):
            BoxCodingConfig(**config)
    assert BoxCodingConfig.model_validate(BoxCodingConfig(kind="pixels").model_dump()).kind == "pixels"

"""A text to the sizes and grades that it states: "0.8-1 cm" to 8 to 10 mm, "LA grade B" to "los_angeles b"."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_BELOW = (
    "<=",
    "<",
    "≤",
    "less than",
    "smaller than",
    "under",
    "below",
    "up to",
    "at most",
    "no more than",
    "not exceeding",
)
_ABOVE = (">=", ">", "≥", "more than", "larger than", "greater than", "over", "at least", "exceeding")
_NUMBER = rf"\d+(?:[.,]\d+)?|{'|'.join(_WORDS)}"
_UNIT = r"mm|cm|millimet(?:er|re)s?|centimet(?:er|re)s?"
_JOINED = "|".join(re.escape(word) for word in (*_BELOW, *_ABOVE))
_SIZE = re.compile(
    rf"(?:(?<![\w<>])(?P<bound>{_JOINED})\s*)?"
    rf"(?<![\w.,])(?P<n1>{_NUMBER})(?:\s*-?\s*(?P<u1>{_UNIT})\b)?"
    rf"(?:\s*(?:-|–|to|x|×|by|\*)\s*(?P<n2>{_NUMBER})(?:\s*-?\s*(?P<u2>{_UNIT})\b)?)?"
    rf"(?:\s*(?:x|×|by|\*)\s*(?P<n3>{_NUMBER})(?:\s*-?\s*(?P<u3>{_UNIT})\b)?)?"
)
# "at 38 cm", "38 cm from the incisors": how far in, and not how large.
_DISTANCE_BEFORE = re.compile(r"\b(?:at|distance of)\s+(?:about\s+)?$")
_DISTANCE_BEHIND = re.compile(r"\s*(?:from|ab|above|below|proximal|distal|beyond|past)\b")

_ROMAN = {"1": "i", "2": "ii", "3": "iii", "4": "iv"}
_CLASS = r"(?: classification| class| type| grade| stage| score)?[\s:,]*"
_GRADE = re.compile(
    r"\b(?:"
    + "|".join(
        (
            rf"(?:la|los angeles){_CLASS}(?:grade|class)?\s*(?P<los_angeles>[a-d](?:\s?(?:-|–|to|/)\s?[a-d])?)\b",
            rf"forrest{_CLASS}(?P<forrest>iii|i{{1,2}}[abc]|[12][abc]|3)\b",
            rf"(?:paris{_CLASS})?(?P<paris>0-(?:iii|ii[abc]|i(?:sp|s|p))(?:\s?\+\s?(?:0-)?(?:iii|ii[abc]|i(?:sp|s|p)))*)\b",
            rf"paris{_CLASS}(?P<paris_bare>iii|ii[abc]|i(?:sp|s|p))\b",
            r"(?:prague[\s:,]*)?(?P<prague>c\s?\d+(?:\.\d)?\s?m\s?\d+(?:\.\d)?)\b",
            rf"siewert{_CLASS}(?P<siewert>i{{1,3}}|[1-3])\b",
            rf"borrmann{_CLASS}(?P<borrmann>i{{1,3}}|iv|[1-4])\b",
            rf"hill{_CLASS}(?:grade)?\s*(?P<hill>i{{1,3}}|iv|[1-4])\b",
            rf"kimura(?:[- ]takemoto)?{_CLASS}(?P<kimura_bare>[co][- ]?[1-3])\b",
            r"(?P<kimura>[co]-[1-3])\b",
            rf"(?:eggim){_CLASS}(?P<eggim>\d+)\b",
            rf"olgim{_CLASS}(?P<olgim>i{{1,3}}|iv|[0-4])\b",
            rf"olga{_CLASS}(?P<olga>i{{1,3}}|iv|[0-4])\b",
            r"(?P<severity>mild|moderate|severe|mildly|moderately|severely|low[- ]grade|high[- ]grade)\b",
            r"grade[\s:]+(?!0-i)(?P<any>[\w.+/-]*\w)",
        )
    )
    + ")"
)
_SEVERITY = {"mildly": "mild", "moderately": "moderate", "severely": "severe"}
_IN_ROMAN = frozenset({"forrest", "siewert", "borrmann", "hill", "olgim", "olga"})


@dataclass(frozen=True, slots=True)
class Size:
    """A length, or a range of lengths, at text[start:end].

    Attributes:
        low_mm, high_mm: Its ends in millimetres, equal for one number; 0 and infinity are "less" and "more than".
            Of two or three extents ("1 x 2 cm"), the least and the largest.
    """

    low_mm: float
    high_mm: float
    start: int
    end: int

    def __str__(self) -> str:
        if self.low_mm == 0:
            return f"<{self.high_mm:g} mm"
        if math.isinf(self.high_mm):
            return f">{self.low_mm:g} mm"
        return f"{self.low_mm:g} mm" if self.low_mm == self.high_mm else f"{self.low_mm:g}-{self.high_mm:g} mm"


@dataclass(frozen=True, slots=True)
class Grade:
    """A grade at text[start:end]; `value` is "<scale> <grade>", or the grade alone where no scale is named."""

    value: str
    start: int
    end: int


def sizes(plain: str) -> Iterator[Size]:
    """Sizes of things; distances ("38 cm from the incisors") are left out.

    Args:
        plain: The text in small letters.
    """
    if "mm" not in plain and "cm" not in plain and "imet" not in plain:
        return
    for match in _SIZE.finditer(plain):
        units = [match["u1"], match["u2"], match["u3"]]
        if (
            not any(units)
            or _DISTANCE_BEFORE.search(plain[: match.start()])
            or _DISTANCE_BEHIND.match(plain, match.end())
        ):
            continue
        extents = []
        for place, number in enumerate((match["n1"], match["n2"], match["n3"])):
            if number is not None:
                unit = next((one for one in (*units[place:], *reversed(units[:place])) if one), "mm")
                extents.append(_number(number) * (10 if unit.startswith("c") else 1))
        low, high = min(extents), max(extents)
        if match["bound"] in _BELOW:
            low = 0.0
        elif match["bound"] in _ABOVE:
            low, high = high, math.inf
        if high > 0:
            yield Size(round(low, 3), round(high, 3), match.start(), match.end())


def grades(plain: str) -> Iterator[Grade]:
    """Grades of the usual scales, severities ("mild"), and "grade <x>" of any other scale.

    Args:
        plain: The text in small letters, with its terms blotted out: "high-grade dysplasia" states no grade.
    """
    for match in _GRADE.finditer(plain):
        scale = match.lastgroup or "any"
        value = re.sub(r"\s?(?:to|–|/)\s?(?=[a-d]$)", "-", match[scale]).replace(" ", "")
        scale = scale.removesuffix("_bare")
        if scale == "paris" and not value.startswith("0-"):
            value = f"0-{value}"
        if scale == "paris":
            value = value.replace("+0-", "+")
        if scale == "kimura":
            value = f"{value[0]}-{value[-1]}"
        if scale in _IN_ROMAN and value[0] in _ROMAN:
            value = _ROMAN[value[0]] + value[1:]
        if scale == "severity":
            value = _SEVERITY.get(
                value, value.replace(" ", "-").replace("lowgrade", "low-grade").replace("highgrade", "high-grade")
            )
        named = "" if scale in ("any", "severity") else f"{scale} "
        yield Grade(named + value, match.start(), match.end())


def _number(text: str) -> float:
    return float(_WORDS.index(text) + 1) if text in _WORDS else float(text.replace(",", "."))

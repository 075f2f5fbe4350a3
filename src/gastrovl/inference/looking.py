"""How closely a perception head looks: what it costs, and what a record of answers says of it."""

from __future__ import annotations

from dataclasses import dataclass

from gastrovl.core.errors import ConfigError

VIEWS = (1, 2, 4)


@dataclass(frozen=True)
class Looking:
    """How a perception head comes to its answers; the language model runs no more often for it.

    Attributes:
        zoom: Look at each box of REC a second time, in a crop around it. Costs one more pass of the tower for each box.
        views: Average CLS, REC and REG over the image alone (1), with its mirror image left to right (2), or with that,
            the one top to bottom and both (4). Costs as many passes of the tower, and of those that `zoom` adds.

    Raises:
        ConfigError: `views` is another number.
    """

    zoom: bool = False
    views: int = 1

    def __post_init__(self) -> None:
        if self.views not in VIEWS:
            raise ConfigError(
                f"views is {self.views}; expected 1 (the image alone), 2 (and mirrored left to right) or 4 (all mirror "
                "images)"
            )

    @property
    def settings(self) -> dict[str, bool | int]:
        """What is not as usual, for fingerprints and records; empty where the image is looked at once."""
        said: dict[str, bool | int] = {"zoom": True} if self.zoom else {}
        return said | ({"views": self.views} if self.views > 1 else {})

    def need_head(self, name: str, *, has_head: bool) -> None:
        """Refuse a model that cannot look again.

        Raises:
            ConfigError: Something other than one look is asked for, and no perception head answers.
        """
        if self.settings and not has_head:
            asked = " and ".join(self.settings)
            raise ConfigError(
                f"{name}: a perception head that answers is needed for {asked}; this model has none, or is told to "
                "answer in words. Leave it out, or take a checkpoint that was trained with `perception`"
            )


@dataclass(frozen=True)
class Manner:
    """How a checkpoint comes to its answers.

    Attributes:
        uses_head: Let the perception head answer what it has learnt; else the language model writes all.
        looking: How closely that head looks.
        is_raw: Leave confidences as they are, also where the checkpoint has a calibration.
        makes_checks: Ask a calibrated checkpoint the other way round, too, and let disagreement lower confidences.

    Raises:
        ConfigError: Raw confidences and checks, which change them.
    """

    uses_head: bool = True
    looking: Looking = Looking()
    is_raw: bool = False
    makes_checks: bool = False

    def __post_init__(self) -> None:
        if self.is_raw and self.makes_checks:
            raise ConfigError("--raw leaves confidences as they are, and --checks changes them; give one of the two")

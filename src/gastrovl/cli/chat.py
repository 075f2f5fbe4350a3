"""`gastrovl chat`: a dialogue with a checkpoint about one image after another, in the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from gastrovl.cli.manner import CHECKPOINT, CHECKS, RAW, ZOOM
from gastrovl.core.errors import ConfigError, GastroVLError

if TYPE_CHECKING:
    from gastrovl.inference.predictor import Predictor
    from gastrovl.inference.session import Exchange, Session, Wish

HELP = """\
/image PATH            ask about this image from now on
/add PATH              show one more image in this dialogue, with your next words
/classify              which labels fit
/locate TERM           where TERM is
/name X0,Y0,X1,Y1      what lies in this box, in fractions of width and height
/describe              what the image shows
/draw FILE.png         write the image with the boxes answered so far
/rate N right|partly|wrong [WHAT WOULD HAVE BEEN RIGHT]
/save FILE.json        write the session: questions, answers, confidences, ratings
/new                   forget the dialogue, keep the image
/help, /quit
Anything else is said to the model."""
_RATINGS = ("right", "partly", "wrong")


def chat(
    checkpoint: Annotated[Path, typer.Argument(help=CHECKPOINT)],
    image: Annotated[Path | None, typer.Argument(help="The first image; /image PATH shows another one.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the session to this JSON after every answer.")] = None,
    zoom: Annotated[bool, typer.Option("--zoom", help=ZOOM)] = False,
    raw: Annotated[bool, typer.Option("--raw", help=RAW)] = False,
    checks: Annotated[bool, typer.Option("--checks", help=CHECKS)] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the best there is when left out.")] = None,
) -> None:
    """Talk about images; /help lists the commands, and the end of input or /quit ends it."""
    from gastrovl.inference.head.looking import Looking, Manner
    from gastrovl.inference.loading import load_predictor
    from gastrovl.inference.question import NOTICE
    from gastrovl.inference.session import Session
    from gastrovl.inference.starter import remark_of

    manner = Manner(looking=Looking(zoom), is_raw=raw, makes_checks=checks)
    with suppress(ImportError):  # arrow keys and earlier lines, where the platform has them
        import readline  # noqa: F401
    console = Console(highlight=False)
    predictor = load_predictor(checkpoint, device, manner)
    talk = _Talk(console, predictor, Session(predictor, predictor.card.name))
    console.print(f"{remark_of(checkpoint) or predictor.card.name}. {NOTICE}\n/help lists the commands.", markup=False)
    if image is not None:
        talk.show(str(image))
    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line in ("/quit", "/exit"):
            return
        try:
            talk.hear(line)
            if save is not None and talk.session.exchanges:
                talk.session.save(save)
        except GastroVLError as error:  # a mistyped path must not end a long session
            console.print(f"error: {error}", style="red", markup=False)


class _Talk:
    """Lines typed to what the session is asked, and its answers to lines."""

    def __init__(self, console: Console, predictor: Predictor, session: Session) -> None:
        self.console, self.predictor, self.session = console, predictor, session
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self.show,
            "/add": self._add,
            "/classify": lambda _: self._ask("classify"),
            "/locate": lambda words: self._ask("locate", words),
            "/name": lambda words: self._ask("name", words),
            "/describe": lambda _: self._ask("describe"),
            "/draw": self._draw,
            "/rate": self._rate,
            "/save": self._save,
            "/new": lambda _: self.session.forget(),
            "/help": lambda _: self.console.print(HELP, markup=False),
        }

    def hear(self, line: str) -> None:
        """One line as it was typed.

        Raises:
            GastroVLError: It is no command, or what it asks for cannot be done.
        """
        if not line:
            return
        if not line.startswith("/"):
            self._say(line)
            return
        name, _, rest = line.partition(" ")
        if name not in self._commands:
            raise ConfigError(f"no command is called {name!r}; /help lists them")
        self._commands[name](rest.strip())

    def show(self, path: str) -> None:
        self._open(path, self.session.show)

    def _add(self, path: str) -> None:
        self._open(path, self.session.add)

    def _open(self, path: str, show: Callable[[Any, str], None]) -> None:
        from gastrovl.cli.answers import scope_line
        from gastrovl.core.images import open_image

        place = Path(" ".join(shlex.split(path)) if path else "")
        image = open_image(place)
        show(image, place.name)
        self.console.print(f"{place.name}: {image.width} x {image.height} px", style="dim")
        if line := scope_line(self.predictor.judge(image)):
            self.console.print(line, style="yellow", markup=False)

    def _ask(self, kind: str, words: str = "") -> None:
        from gastrovl.inference.session import Kind, Wish, parse_box

        box = parse_box(words) if kind == "name" else None
        wish = Wish(Kind(kind), "" if box else words, box)
        self._print(wish, self.session.ask(wish))

    def _print(self, wish: Wish, said: Exchange) -> None:
        from gastrovl.cli.answers import lines_of

        for place, line in enumerate(lines_of(wish, said.answer)):
            self.console.print(f"{f'[{said.number}] ' if place == 0 else '    '}{line}", markup=False)

    def _say(self, words: str) -> None:
        for piece in self.session.say(words, self.predictor.stream):
            self.console.print(piece, end="", markup=False, soft_wrap=True)
        self.console.print(f"  [{self.session.exchanges[-1].number}]", style="dim", markup=False)

    def _draw(self, file: str) -> None:
        from gastrovl.inference.drawing import marked, save_png

        if not file:
            raise ConfigError("expected a file to write, such as /draw boxes.png")
        marks = self.session.marks()
        save_png(marked(self.session.image, marks), Path(file))
        self.console.print(f"{len(marks)} boxes drawn in {file}", markup=False)

    def _rate(self, words: str) -> None:
        number, _, rest = words.partition(" ")
        verdict, _, correction = rest.strip().partition(" ")
        if not number.isdecimal() or verdict not in _RATINGS:
            raise ConfigError(f"found {words!r}; expected the number of an answer and {', '.join(_RATINGS)}")
        self.session.rate(int(number), verdict, correction.strip() or None)  # type: ignore[arg-type]
        self.console.print(f"[{number}] rated {verdict}", style="dim", markup=False)

    def _save(self, file: str) -> None:
        if not file:
            raise ConfigError("expected a file to write, such as /save session.json")
        self.session.save(Path(file))
        self.console.print(f"{len(self.session.exchanges)} answers in {file}", markup=False)

"""Questions of a batch to what holds their replies to a form: names, whole boxes, location tokens, a JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import ABSENT
from gastrovl.core.types import Task
from gastrovl.inference.decoding.boxdigits import BoxDigits
from gastrovl.inference.decoding.boxgrammar import BoxGrammar, HeldToBoxes
from gastrovl.inference.decoding.boxlocations import BoxLocations
from gastrovl.inference.decoding.jsonreply import HeldToJson, JsonGrammars
from gastrovl.inference.decoding.labelnames import HeldToNames, LabelNames
from gastrovl.inference.question import LABEL_TASKS, Question
from gastrovl.model.processor import GastroVLProcessor

# (ids so far, scores of the next token, of which rows of the batch when not of all) to changed scores
RowChooser = Callable[[Tensor, Tensor, Sequence[int] | None], Tensor]


class Forms:
    """What a processor's replies can be held to; read once."""

    def __init__(self, processor: GastroVLProcessor) -> None:
        self.processor = processor

    @cached_property
    def names(self) -> LabelNames:
        """The names of the taxonomy, as tokens."""
        return LabelNames(self.processor, [term.name for term in Taxonomy.load().terms])

    @cached_property
    def boxes(self) -> BoxGrammar:
        """How lists of boxes are written."""
        return BoxGrammar(self.processor)

    @cached_property
    def json(self) -> JsonGrammars:
        """How JSON of a schema is written."""
        return JsonGrammars(self.processor.tokenizer)

    def limit(self, question: Question, most: int) -> int:
        """Tokens that a reply may have: `most`, or what one box takes where it has to be one."""
        return max(most, self.boxes.room(question.original_wh)) if question.task is Task.REC else most

    def hold(self, questions: Sequence[Question], prompt_length: int) -> Held:
        """What holds the replies to these questions; ids handed to it begin with `prompt_length` of the prompts."""
        return Held(self, questions, prompt_length)


class Held:
    """Changes the scores of a batch's next tokens, and reads the replies that come of it."""

    def __init__(self, forms: Forms, questions: Sequence[Question], prompt_length: int) -> None:
        self._forms, self._questions = forms, questions
        processor = forms.processor
        coding = processor.coding.config
        self._choosers: list[RowChooser] = []
        is_label = [question.task in LABEL_TASKS for question in questions]
        sizes = [question.original_wh if question.task is Task.REC else None for question in questions]
        schemas = [question.schema for question in questions]
        if any(schema is not None for schema in schemas):
            self._choosers.append(HeldToJson(forms.json, prompt_length, schemas))
        if any(sizes):
            self._choosers.append(HeldToBoxes(forms.boxes, prompt_length, sizes))
        if coding.kind == "digits":
            self._choosers.append(BoxDigits(processor.tokenizer))
        if any(is_label):
            self._choosers.append(HeldToNames(forms.names, prompt_length, is_label))
        # Behind what holds replies to names, so that it leaves those alone.
        self._locations = BoxLocations(processor.locations, coding.reading) if processor.locations else None
        if self._locations:
            self._choosers.append(self._locations)

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """New scores, (rows, vocabulary); `rows` are the numbers of the questions, all of them when left out."""
        for chooser in self._choosers:
            scores = chooser(input_ids, scores, rows)
        return scores

    def text(self, row: int, ids: list[int]) -> str:
        """The reply of a question as datasets write it, of its tokens with or without the one that ends it."""
        question = self._questions[row]
        if question.task in LABEL_TASKS:
            return self._forms.names.text(ids)
        places = self._locations.of_reply(row, len(ids)) if self._locations else None
        if question.task is Task.REC:
            return self._boxes(question, ids, places)
        return self._forms.processor.decode(ids, question.original_wh, places)

    def _boxes(self, question: Question, ids: list[int], places: list[float] | None) -> str:
        grammar = self._forms.boxes
        text = grammar.whole(grammar.said(ids), grammar.far(question.original_wh))
        if grammar.coding.is_plain or text == ABSENT:
            return text
        written = len(grammar.coding.pattern.findall(text))
        return grammar.coding.decode_text(text, question.original_wh, places and places[: 4 * written])

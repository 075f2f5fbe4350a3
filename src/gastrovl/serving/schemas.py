"""What requests and answers of the server look like, as pydantic models; the OpenAPI schema is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from gastrovl.core.types import Task
from gastrovl.inference.belief.verdicts import Verdict
from gastrovl.inference.question import NOTICE

Name = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]  # ours, checked where made


class Asked(BaseModel):
    """Base of requests: what is not known is refused, so that nothing asked for is silently left undone."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Given(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True)


# --- OpenAI's chat interface ---


class ImageUrl(Asked):
    url: str = Field(description="data:image/png;base64,... only; nothing is fetched.")
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Asked):
    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(Asked):
    type: Literal["text"]
    text: str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    """A turn; further fields of a message of ours that is sent back are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part]


class SchemaOfReply(Asked):
    name: str = Field(
        pattern="^[A-Za-z0-9_-]{1,64}$",
        description="classify, locate, name_region, describe: our typed answers; any other: words in that form.",
    )
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None


class TextFormat(Asked):
    type: Literal["text"]


class JsonObjectFormat(Asked):
    type: Literal["json_object"]


class JsonSchemaFormat(Asked):
    type: Literal["json_schema"]
    json_schema: SchemaOfReply


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(Asked):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Asked):
    """A dialogue about an image, or several. Decoding is greedy: `temperature` and the like may only ask for that."""

    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    task: Task | None = Field(
        default=None, description="Ours: CLS, REC or REG hold the reply to the form of that task."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logprobs: bool | None = Field(
        default=None, description="Log-probabilities of the reply's tokens, as the model has them before any form."
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        default=None, description="So many of the likeliest tokens at each place; needs `logprobs`."
    )
    metadata: dict[str, str] | None = None
    store: bool | None = None


class Usage(Given):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PlacedBox(Given):
    """A box twice: as fractions of the image's width and height, and in pixels of the image that was sent."""

    fractions: tuple[Share, Share, Share, Share] = Field(description="x0, y0, x1, y1 from the top left.")
    pixels: tuple[float, float, float, float]
    expected_iou: Share | None = Field(default=None, description="Overlap with the truth that the model expects.")


class SetLabel(Given):
    id: str
    name: str


class SureLabel(SetLabel):
    probability: Share


class CheckMade(Given):
    """A comparison with another answer of the same model; `passed`: they agree."""

    name: str
    passed: bool
    detail: str


class BeliefGiven(Given):
    """What to believe of an answer, by what was fitted on validation data."""

    withheld: bool = Field(description="Too unsure to be given at `risk`; `text` is the model's own all the same.")
    fallback: list[SureLabel] = Field(description="Of withheld labels what is sure: they themselves, or wider terms.")
    risk: Share | None = Field(description="Share of the answers given that may be wrong.")
    risk_is_shown: bool | None = Field(description="Whether validation was enough to show that it is kept.")
    label_set: list[SetLabel] | None = Field(description="Labels that may be true at `level`, likeliest first.")
    level: Share | None
    checks: list[CheckMade] = Field(description="Empty where the server makes none.")


class ScopeGiven(Given):
    """Whether the picture is one that the model is for; a hint, which in-scope pictures set off, too."""

    verdict: Verdict
    reason: str


class About(Given):
    """Ours, beside a chat completion: how sure the reply is, the boxes in it, and what it is not."""

    confidence: Share
    calibrated: bool
    belief: BeliefGiven | None = None
    scope: ScopeGiven | None = None
    boxes: list[PlacedBox]
    notice: str = NOTICE


class ReplyMessage(Given):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class LikelyToken(Given):
    """A token, and the natural logarithm of the probability that the model gave it."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(LikelyToken):
    """A token of the reply, with the likeliest ones at its place."""

    top_logprobs: list[LikelyToken]


class Logprobs(Given):
    content: list[TokenLogprob]
    refusal: None = None


class Choice(Given):
    index: int = 0
    message: ReplyMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(Given):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    gastrovl: About


class ModelEntry(Given):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "gastrovl"


class ModelList(Given):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(Given):
    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(Given):
    error: ErrorDetail


# --- typed answers ---


class ImageAsked(Asked):
    """What every typed question has."""

    image: Annotated[str, Field(min_length=1, description="Base64 of an image file, or a data URL.")]
    model: Name | None = Field(default=None, description="Name of a served model; the first one when left out.")


class ClassifyRequest(ImageAsked):
    """Which labels fit the image?"""


class LocateRequest(ImageAsked):
    """Where is it?"""

    what: str = Field(min_length=1, max_length=200, description="A term of the taxonomy by id or name, or own words.")


class NameRegionRequest(ImageAsked):
    """What is in the box?"""

    box: tuple[float, float, float, float] = Field(description="x0, y0, x1, y1 from the top left.")
    unit: Literal["fraction", "pixel"] = "fraction"


class DescribeRequest(ImageAsked):
    """What does the image show, in a sentence or two?"""

    max_tokens: Annotated[int, Field(ge=1)] | None = None


class ImageSize(Given):
    width_px: int
    height_px: int


class TypedAnswer(Given):
    """What every typed answer has.

    `confidence` is in [0, 1]; a probability of being right only where `calibrated` is true, and then `belief` says
    more. `scope` is null where nothing speaks against the picture and no scope was fitted. A reply that cannot be read
    as an answer of its task says so in `unreadable`, and gives nothing else.
    """

    model: str
    text: str
    confidence: Share
    calibrated: bool
    belief: BeliefGiven | None = None
    image: ImageSize
    scope: ScopeGiven | None = None
    unreadable: str | None = None
    notice: str = NOTICE


class Label(Given):
    id: str
    name: str
    probability: Share | None


class LabelsAnswer(TypedAnswer):
    """The labels given, likeliest first, and the probability of every term that the model has one for, by its id."""

    labels: list[Label]
    probabilities: dict[str, Share] | None


class RegionAnswer(LabelsAnswer):
    """The same of the region asked about."""

    box: PlacedBox


class BoxesAnswer(TypedAnswer):
    """Where it is; no box: it is not there."""

    what: str
    present: bool | None
    presence: Share | None = Field(default=None, description="Probability that it is there, where the model has one.")
    boxes: list[PlacedBox]


class WordsAnswer(TypedAnswer):
    """A description; `length` when it was cut at the limit of tokens."""

    stop_reason: Literal["end", "length"]


# --- what a client needs to ask well ---


class TermEntry(Given):
    """A term of the taxonomy; `parent` is the id of the one above it."""

    id: str
    name: str
    level: int
    parent: str | None
    synonyms: tuple[str, ...]


class TermList(Given):
    """All terms, and how typed questions are worded: {label} is a term's name, {box} is [x0,y0,x1,y1] in 0-999."""

    terms: list[TermEntry]
    wordings: dict[str, str]


class ImageRequest(Asked):
    """What does the file hold?"""

    image: Annotated[str, Field(min_length=1, description="Base64 of an image file, or a data URL.")]


class ImageFacts(ImageSize):
    """Of the image as models see it: its size, and the SHA-256 of its mode and pixels, by which sessions know it."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")

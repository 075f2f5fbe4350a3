"""Every error a user can meet, as one type per kind of mistake; a message says where, what, expected, remedy."""


class GastroVLError(Exception):
    """Base of all errors that the command line prints as a message instead of a traceback."""


class GeometryError(GastroVLError):
    """A box is reversed, outside the image, or not finite.

    No ValueError on purpose: pydantic would wrap it, and its message would lose the remedy.
    """


class BoxTextError(GastroVLError, ValueError):
    """A text that should hold boxes does not."""


class RecordError(GastroVLError, ValueError):
    """A JSONL record is broken, of another version, or contradicts another record."""


class ConfigError(GastroVLError, ValueError):
    """A YAML config has an unknown key, a wrong value, or cannot be read."""


class ImageError(GastroVLError, ValueError):
    """An image is missing, unreadable, truncated, empty, or too large to open safely."""


class LabelError(GastroVLError, ValueError):
    """A label or term is not in the taxonomy or has no mapping."""


class SourceError(GastroVLError, ValueError):
    """A source folder does not hold what its description says."""


class DownloadError(GastroVLError, OSError):
    """A file cannot be fetched, is not what was promised, or its licence was not accepted."""


class EndpointError(GastroVLError, OSError):
    """A model server cannot be reached, refuses, answers nonsense, or may not be given images."""


class PredictionError(GastroVLError, ValueError):
    """Predictions do not fit the conversations they answer: missing, double or unknown."""


class CheckpointError(GastroVLError, ValueError):
    """A checkpoint folder is incomplete, of another version, or not ours to load."""


class ModelInputError(GastroVLError, ValueError):
    """Tensors handed to the model contradict each other."""


class OutputError(GastroVLError, OSError):
    """An output path cannot be written, or holds something else already."""


class OutOfMemoryError(GastroVLError, RuntimeError):
    """A training step needs more memory than the device has."""


class DivergedError(GastroVLError, ArithmeticError):
    """A loss or a gradient is not a number any more."""


class DiskFullError(GastroVLError, OSError):
    """A disk or a quota has no room for what has to be written."""


class TokenizerError(GastroVLError, ValueError):
    """A tokenizer is not the one that a model's weights were made for."""


class ChangedInputError(GastroVLError, ValueError):
    """A file that a run was begun with has changed since."""


class MissingExtraError(GastroVLError, ImportError):
    """An optional library is needed for this call; the message names the extra to install."""


class PeerError(GastroVLError):
    """Another process of the same run has ended; what went wrong stands in its own message."""

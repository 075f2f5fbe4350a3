"""A sample's record and a template file to the prompt for a model, and to a second one that says what was wrong."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gastrovl.clinical.implication import is_view
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import ConfigError
from gastrovl.core.files import sha256_file
from gastrovl.core.positions import position_phrase, share_word
from gastrovl.core.types import Finding, Sample, Status
from gastrovl.data.exchanges import largest_first

_PACKAGED = Path(__file__).parent / "templates"
_SLOTS = {"request": {"facts"}, "retry": {"facts", "reply", "faults"}}
_MOST_QUOTED = 600  # letters of a bad reply that are shown to the model again


class _TemplateFile(Config):
    request: str
    retry: str


@dataclass(frozen=True)
class Template:
    """Wordings of a request; `sha256` is the hash of the file."""

    name: str
    sha256: str
    request: str
    retry: str


def packaged_templates() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.yaml"))


def load_template(name: str) -> Template:
    """A packaged template by its name, or one of your own by the path of its YAML file.

    Raises:
        ConfigError: There is none, or a slot is missing or unknown.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _PACKAGED / f"{name}.yaml"
    if path.parent == _PACKAGED and not path.is_file():
        known = ", ".join(packaged_templates())
        raise ConfigError(f"template {name!r} is not packaged; take one of {known}, or the path of a .yaml file")
    content = load_config(path, _TemplateFile)
    for key, slots in _SLOTS.items():
        text = getattr(content, key)
        try:
            found = {slot for _, slot, _, _ in string.Formatter().parse(text) if slot is not None}
        except ValueError as error:
            raise ConfigError(f"{path}: {key}: unpaired brace ({error}); write {{{{ and }}}} for braces") from error
        if found != slots:
            raise ConfigError(f"{path}: {key}: has slots {sorted(found)}, expected {sorted(slots)}")
    return Template(path.stem, sha256_file(path), content.request, content.retry)


def request_prompt(template: Template, sample: Sample, taxonomy: Taxonomy) -> str:
    """What the model is asked first."""
    return template.request.format(facts=render_facts(sample, taxonomy)).strip()


def retry_prompt(template: Template, sample: Sample, taxonomy: Taxonomy, reply: str, faults: Iterable[str]) -> str:
    """What the model is asked after a reply that was wrong."""
    listed = "\n".join(f"- {fault}" for fault in faults)
    quoted = " ".join(reply.split())[:_MOST_QUOTED]
    return template.retry.format(facts=render_facts(sample, taxonomy), reply=quoted, faults=listed).strip()


def render_facts(sample: Sample, taxonomy: Taxonomy) -> str:
    """The original annotation as a list: sites, findings with status, grade, number and places, stated absences.

    Raises:
        LabelError: A term is not in the taxonomy.
    """
    ordered = sorted(sample.findings, key=lambda finding: taxonomy.order(finding.term))
    sites = [finding.site for finding in ordered if finding.site and finding.status is not Status.ABSENT]
    views = [one.term for one in ordered if is_view(one.term, taxonomy) and one.status is not Status.ABSENT]
    lines = [f"- in view: {taxonomy[term].name}" for term in sorted({*sites, *views}, key=taxonomy.order)]
    for finding in ordered:
        if finding.status is Status.ABSENT:
            lines.append(f"- not there: {taxonomy[finding.term].name}")
        elif not is_view(finding.term, taxonomy):
            lines.append(f"- finding: {_finding_text(finding, taxonomy)}")
    return "\n".join(dict.fromkeys(lines))


def _finding_text(finding: Finding, taxonomy: Taxonomy) -> str:
    name = taxonomy[finding.term].name
    parts = [f"possible {name} (not certain)" if finding.status is Status.UNCERTAIN else name]
    if finding.grade and f"grade {finding.grade.lower()}" not in name:
        parts.append(f"grade {finding.grade}")
    if finding.site:
        parts.append(f"site {taxonomy[finding.site].name}")
    elif taxonomy[finding.term].site is None and taxonomy.at_level(finding.term, 1).id == "pathological_findings":
        parts.append("organ not noted")
    boxes = largest_first(finding.boxes)
    if len(boxes) > 1:
        parts.append(f"in {len(boxes)} places")
    parts += [f"{position_phrase(box)} ({share_word(box)} in view)" for box in boxes]
    return ", ".join(parts)

"""The checks of a gate to files that CI systems show: JUnit XML and JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from gastrovl.core.files import write_text
from gastrovl.evaluation.comparing.gate import GateReport, Status

SCHEMA = "gastrovl/gate/1"
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def write_junit(path: Path, report: GateReport) -> None:
    """Write one test case a check, as the JUnit report format that GitLab, GitHub and Jenkins read."""
    counts = {status: sum(one.status is status for one in report.checks) for status in Status}
    suite = ElementTree.Element(
        "testsuite",
        name="gastrovl gate",
        tests=str(len(report.checks)),
        failures=str(counts[Status.FAILED]),
        errors="0",
        skipped=str(counts[Status.SKIPPED]),
    )
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(check.what), name=_clean(check.subject))
        if check.status is Status.FAILED:
            ElementTree.SubElement(case, "failure", message=_clean(check.message))
        elif check.status is Status.SKIPPED:
            ElementTree.SubElement(case, "skipped", message=_clean(check.message))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(check.message)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n")


def write_json(path: Path, report: GateReport) -> None:
    """Write the report with its schema tag."""
    content = {"schema": SCHEMA, **report.model_dump(mode="json")}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("?", text)

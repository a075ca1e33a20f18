"""`doctor`: what works on this machine, what does not, and what to do about it."""

import typer

from qlora_tui.cli.options import Json
from qlora_tui.terminal import printable

_MARKS = {"ok": "ok", "note": "note", "problem": "PROBLEM", "broken": "BROKEN"}


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Json = False) -> None:
    """Check hardware, libraries and network access.

    The exit code is 12 when training is not possible.
    """
    from qlora_tui.checks import all_findings
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.errors import EnvironmentProblem

    findings = []
    for finding in all_findings():
        findings.append(finding)
        if not as_json:
            write_line(f"{_MARKS[finding.verdict]:8} {finding.subject}: {printable(finding.detail, one_line=True)}")
            if finding.remedy and finding.verdict != "ok":
                write_line(f"{'':8} -> {printable(finding.remedy, one_line=True)}")
    if as_json:
        write_json({"findings": [finding.as_json() for finding in findings]})
    broken = [finding for finding in findings if finding.verdict == "broken"]
    if broken:
        subjects = ", ".join(finding.subject for finding in broken)
        raise EnvironmentProblem(f"broken: {subjects}", hint=broken[0].remedy)

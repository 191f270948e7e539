"""What a terminal showed, as an SVG: monospaced lines on a dark ground, nothing that runs, nothing from elsewhere."""

import re
from xml.sax.saxutils import escape

_SIZE, _WIDE, _HIGH, _MARGIN = 13, 7.85, 18, 16
_COLOURS = (
    (re.compile(r"\$ "), "#7ee787"),
    (re.compile(r"error: |.*\b(NOT HEALTHY|FAILED|killed)\b"), "#ff7b72"),
    (re.compile(r"hint: "), "#e3b341"),
)
_PLAIN = "#e6edf3"
#: With what stands behind it in a cell, if another cell follows.
_DATE = re.compile(r"\b(\d{4}-\d{2}-\d{2}T)(\d{2}:\d{2}:\d{2}Z(?: \([^)]*\)(?=  ))?)")


def dateless(text: str) -> str:
    """Instants without their day, and tables as wide as before: a picture is not of one day."""
    return _DATE.sub(lambda found: found[2] + (" " * len(found[1]) if found[2].endswith(")") else ""), text)


def drawn(command: str, output: str) -> str:
    """`command` as it was typed, and what it printed; dates go, nothing else."""
    lines = [f"$ {command}", *dateless(output).rstrip("\n").splitlines()]
    width = round(max(map(len, lines)) * _WIDE) + 2 * _MARGIN
    height = len(lines) * _HIGH + 2 * _MARGIN
    rows = "\n".join(_row(line, at) for at, line in enumerate(lines))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(command, {chr(34): "&quot;"})}">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n'
        f'<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="{_SIZE}">\n'
        f"{rows}\n</g>\n</svg>\n"
    )


def _row(line: str, at: int) -> str:
    colour = next((colour for pattern, colour in _COLOURS if pattern.match(line)), _PLAIN)
    y = _MARGIN + (at + 1) * _HIGH - 5
    length = f' textLength="{round(len(line) * _WIDE)}"' if line else ""
    return f'<text x="{_MARGIN}" y="{y}" fill="{colour}" xml:space="preserve"{length}>{escape(line)}</text>'

from pathlib import Path

import pytest
from click.testing import CliRunner

from keyrotd.cli.probe import probe


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "Missing argument"),
        (["a:b"], "none of HOST:PORT"),
        (["a", "--timeout", "5"], "want a duration such as"),
        (["a", "--timeout", "0s"], "between 1ms and 1000d"),
        (["a", "--expect-key", "beef"], "hexadecimal"),
        (["a", "--sni", "a..b"], "no host name"),
        (["a", "--insecure", "--ca", __file__], "exclude each other"),
        ([f"a:{port}" for port in range(1, 66)], "65 are more than 64"),
    ],
)
def test_wrong_usage_is_said_and_exits_2(words: list[str], complaint: str) -> None:
    result = CliRunner().invoke(probe, words)

    assert (result.exit_code, complaint in result.output) == (2, True), result.output


def test_a_ca_file_without_certificates_is_wrong_usage(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.touch()

    result = CliRunner().invoke(probe, ["127.0.0.1:1", "--ca", str(empty)])

    assert (result.exit_code, "does not load" in result.output) == (2, True)

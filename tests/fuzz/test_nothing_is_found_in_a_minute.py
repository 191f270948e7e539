import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nothing_is_found_in_a_minute() -> None:
    if importlib.util.find_spec("atheris") is None:
        message = "atheris is not installed: its wheels are for Linux on x86-64"
        if os.environ.get("CI") == "true":
            pytest.fail(message, pytrace=False)
        pytest.skip(message)

    argv = [sys.executable, "-m", "tests.fuzz", "--seconds", "2"]
    ran = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=False, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr

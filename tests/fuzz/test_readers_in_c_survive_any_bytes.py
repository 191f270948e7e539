"""A minute of libFuzzer under ASan and UBSan over the parser of readers in C, from the vectors as seeds."""

import re
import subprocess
from pathlib import Path

import pytest

from tests import servers_found
from tests.vectors.make_keyfiles import FOLDER

pytestmark = pytest.mark.debian

CHECKOUT = Path(__file__).parents[2]
SECONDS = 60
#: Longer than any file that a reader takes in.
MOST_BYTES = 8_192


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
def test_a_minute_of_fuzzing_finds_nothing(tmp_path: Path) -> None:
    fuzzer, corpus = tmp_path / "fuzzer", tmp_path / "corpus"
    corpus.mkdir()
    sanitizers = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
    source, include = CHECKOUT / "tests" / "fuzz" / "keyfile.c", CHECKOUT / "deploy" / "keyfile"
    options = ("-g", "-O1", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *sanitizers, f"-I{include}")
    subprocess.run((servers_found.clang(), *options, source, "-lcrypto", "-o", fuzzer), check=True)

    # No limit on memory: it counts ASan's own, huge pages and all, and the parser allocates nothing.
    limits = (f"-max_total_time={SECONDS}", f"-max_len={MOST_BYTES}", "-timeout=10", "-rss_limit_mb=0")
    bounds = (*limits, f"-artifact_prefix={tmp_path}/")
    ran = subprocess.run([fuzzer, *bounds, corpus, FOLDER], capture_output=True, text=True, check=False)

    runs = re.search(r"Done (\d+) runs in", ran.stderr)
    crashes = [path.read_bytes() for path in tmp_path.glob("*-*") if path.is_file()]
    assert (ran.returncode, crashes) == (0, []), ran.stderr[-4_000:]
    assert runs is not None
    print(f"\n{int(runs[1]):,} runs, nothing found")

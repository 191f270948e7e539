"""Runs one target in a process of its own, since atheris never returns: TARGET LIBFUZZER-ARGUMENT..."""

import sys

import atheris

from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *arguments = sys.argv[1:]
    target, _ = TARGETS[name]
    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

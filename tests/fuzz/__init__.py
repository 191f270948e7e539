"""Guided by coverage, with atheris: `python -m tests.fuzz [TARGET] [--seconds N]`. What must hold is in targets.py."""

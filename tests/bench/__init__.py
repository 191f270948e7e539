"""Benchmarks that anyone can run: `./dev bench`, or `./dev bench memory cpu`, baselines included."""

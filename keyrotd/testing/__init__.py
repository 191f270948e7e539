"""Twins, contract suites and real servers for tests, `keyrotd demo` and authors of drivers and stores."""

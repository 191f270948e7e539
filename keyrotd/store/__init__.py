"""Where a ring's schedulers and agents meet: opaque bytes, carried and never trusted."""

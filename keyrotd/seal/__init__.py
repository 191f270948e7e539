"""Values to bytes and back: wire formats, envelope, key files. No clock, no chance of its own, no input or output."""

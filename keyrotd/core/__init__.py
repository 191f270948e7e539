"""The idea of keyrotd, pure: no clock, no chance, no input or output, no logging."""

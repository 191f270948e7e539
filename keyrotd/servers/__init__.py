"""Drivers: how keys get into each kind of TLS server, and how they are read back."""

"""Rotates TLS session ticket keys across a fleet of servers, without a reload, with proof."""

__version__ = "0.1.0"

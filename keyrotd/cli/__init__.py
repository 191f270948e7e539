"""The front door: one module per family of commands. Imports of what is slow to load stay inside commands."""

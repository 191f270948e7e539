"""The daemons: read, decide, act, report. Everything here meets the world through what it is handed."""

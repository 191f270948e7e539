"""
Exit codes, the same for every command. Others' scripts rely on them.

     0  done
     1  refused, failed or unhealthy
     2  the command line is wrong
    69  the store is away: wait and try again (EX_UNAVAILABLE)
    78  the configuration is wrong: a restart does not help (EX_CONFIG)
"""

from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
STORE_AWAY: Final = 69
CONFIGURATION: Final = 78

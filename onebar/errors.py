"""The root of every error of ours: what a caller can catch, and the command line tells in one
line."""

from __future__ import annotations


class OneBarError(Exception):
    """What went wrong, in a sentence that says what was expected, what came, and what to do.

    Each error of ours also is the built-in exception that it specialises (`ValueError`,
    `LookupError`, …), so that code which knows nothing of OneBar handles it as it should.
    """


class UsageError(OneBarError):
    """The caller is to blame: an argument or a setting. The command line ends with status 2."""

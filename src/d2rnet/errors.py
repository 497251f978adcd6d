"""Errors that a user can act on; the command line prints them without a traceback.

A message says what failed, in which file and record, what was found, what was expected and what to do.
"""


class D2RNetError(ValueError):
    """Base class of every error that is the input's or the configuration's fault."""


class DatasetError(D2RNetError):
    """A table, image, report or annotation file is not what its format says."""


class ConfigError(D2RNetError):
    """A setting is unknown, of the wrong type, out of range, or asks for what the machine lacks."""


class CheckpointError(D2RNetError):
    """A weight file does not fit the model it is loaded into, or nothing in it was used."""


class ToolError(D2RNetError):
    """An outside program (such as Java for METEOR) is missing, died or timed out."""

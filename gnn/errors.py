"""What went wrong, in words for people."""


class SluiceError(Exception):
    """Work failed, through no mistake of the user's (exit code 1)."""


class InputError(SluiceError):
    """The user's input cannot be used (exit code 2).

    The message is one line: what is wrong, where, which value, and what to do.
    """


class BusyError(SluiceError):
    """Another process holds what this one needs; it may be free a little later."""

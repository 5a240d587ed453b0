"""The one exception of the checkpoints floor that speaks to a user."""


class UserError(Exception):
    """An error whose message is complete for a user: what was given, what was expected, what to do.

    The command line prints it as one line, without a traceback.
    """

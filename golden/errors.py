"""The one exception that stands for a mistake of the user, not of the program."""


class UserError(Exception):
    """A wrong input, configuration, file or environment.

    The message is a single line that says what was wrong, what was expected and what to do.
    The command line prints it and exits with code 2; library users catch it by this type.
    """

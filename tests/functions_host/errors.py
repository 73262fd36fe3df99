"""What goes wrong in the host itself, as opposed to in the app."""


class HostError(Exception):
    """The app can't be hosted, or a request can't be bound; the text says what to change."""

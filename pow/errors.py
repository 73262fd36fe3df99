"""The exceptions that `pow` raises on purpose. Each message says what came and what is allowed.

PowError
├── InvalidArgument   a caller's argument is out of range or of the wrong kind
├── InvalidChain      a document is not a chain at all (one that is, but is wrong, fails verification)
├── BackendError      a scan backend that is unknown, unsupported here, or failed its self-test
├── SettingsError     an environment setting with a value that isn't allowed
├── EngineError       the workflow engine can't be started or reached
├── ChainStoreError   the store of named chains can't be reached
└── MiningStopped     the work was stopped before it found its nonce
"""


class PowError(Exception):
    """Root of everything that this package raises on purpose."""


class InvalidArgument(PowError, ValueError):
    """An argument is out of range or of the wrong kind."""


class InvalidChain(PowError, ValueError):
    """A document does not have the form of a chain."""


class BackendError(PowError):
    """A scan backend is unknown, unsupported on this machine, or failed its self-test."""


class SettingsError(PowError):
    """A setting has a value that isn't allowed."""


class EngineError(PowError):
    """The workflow engine can't be started or reached."""


class ChainStoreError(PowError):
    """The store of named chains can't be reached."""


class MiningStopped(PowError):
    """The work was stopped before it found its nonce."""

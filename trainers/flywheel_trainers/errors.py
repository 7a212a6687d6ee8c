"""Every way a run may end badly. The reason decides the exit code, and the message names the mend."""

EXIT_OK, EXIT_CONFIG, EXIT_DATA, EXIT_RETRY = 0, 64, 65, 75

EXIT_CODES = {
    "InvalidConfig": EXIT_CONFIG,
    "InvalidParameter": EXIT_CONFIG,
    "DatasetMissing": EXIT_DATA,
    "DatasetEmpty": EXIT_DATA,
    "DatasetInvalid": EXIT_DATA,
    "DigestMismatch": EXIT_DATA,
    "ModelMissing": EXIT_DATA,
    "ModelInvalid": EXIT_DATA,
    "Interrupted": EXIT_RETRY,
    "PeerLost": EXIT_RETRY,
    "StorageUnavailable": EXIT_RETRY,
}


class RunError(Exception):
    """A foreseen end. Anything else that is raised is a bug and leaves with Python's own exit code 1."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.reason]

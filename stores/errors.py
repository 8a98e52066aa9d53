"""The error tree. Every error that users can meet states the offending value, the rule and a remedy."""


class EmbankError(Exception):
    """Base of all errors meant for the user; `exit_code` is the process's (docs/reference/exit-codes.md).

    Args:
        found: the offending value, as the user knows it.
        rule: what it should have been.
        remedy: what to do now.

    Attributes:
        exit_code: of the process.
    """

    exit_code = 2

    def __init__(self, found: str, rule: str, remedy: str) -> None:
        self.found, self.rule, self.remedy = found, rule, remedy
        super().__init__(found, rule, remedy)

    def __str__(self) -> str:
        return f"{self.found}. {self.rule}. Remedy: {self.remedy}."


class Refused(EmbankError):
    """The request cannot be carried out as asked; nothing was changed."""


class ManifestError(Refused):
    """A manifest that cannot be read without guessing."""


class PathRefused(Refused):
    """A path that leaves the root, or is ambiguous."""


class BankError(Refused):
    """A bank that is absent, damaged, incomplete, of another schema, or made from another manifest."""


class MachineFault(EmbankError):
    """The machine failed (disk full, device lost); the same command resumes where it stopped."""

    exit_code = 3

"""The error tree. Every error a user can meet says what was found, the rule it breaks and the remedy."""


class EmbankError(Exception):
    """Base of all errors meant for the user; `exit_code` is the process's (docs/reference/exit-codes.md).

    Args:
        found: the value that was met, as the user would recognise it.
        rule: what it should have been.
        remedy: what to do now.
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
    """A path that leaves the root, or that could be read in two ways."""


class BankError(Refused):
    """A bank that is absent, of another schema, damaged, unsealed, or made from another manifest."""


class MachineFault(EmbankError):
    """The machine failed (disk full, device lost); the same command resumes where it stopped."""

    exit_code = 3

"""`--model all`: the models of a bank, resolved in one place."""

from collections.abc import Sequence
from pathlib import Path

from stores.errors import Refused

#: Stands for all models of a bank; no feature can be called so (`stores.bank.names`).
ALL = "all"


def models_of(bank: str, words: Sequence[str]) -> list[str]:
    """Return the models that words name, each once; `all` stands for every finished feature of the bank.

    Features without any embedding are left out of `all`, which is said.

    Raises:
        Refused: `all` of a bank without finished features. BankError: no bank, or damage.
    """
    if ALL not in words:
        return list(words)
    from engine.report import console
    from stores.bank.reader import Bank

    features = Bank.open(bank).list()
    for info in features:
        if not info.sealed or not info.ok:
            why = "no image has an embedding" if info.sealed else "its embedding is not finished"
            console.say(f"{info.title} is not among all models: {why}")
    titles = [info.title for info in features if info.sealed and info.ok]
    if not titles:
        raise Refused(
            f"{bank} has no finished feature", "all stands for these", "embed first, with `embank embed`"
        )
    return titles


def filter_of(value: str | list[str] | None) -> str | list[str] | None:
    """Return the value of a filter: `all` is no filter."""
    return None if value is not None and ALL in ([value] if isinstance(value, str) else value) else value


def refuse_weights_of_several(weights: Path | None, models: Sequence[str]) -> None:
    """Refuse one file of weights for several models. Raises Refused."""
    if weights is not None and len(models) > 1:
        raise Refused(
            f"--weights {weights} for {len(models)} models",
            "A file holds the weights of one",
            "run the command once for each model",
        )

"""One sentence for each command on what it leaves behind when it is stopped (Ctrl-C, SIGTERM).

A sentence must be true at whatever moment the command stops, the last one included; so none states what
depends on that moment.
"""

from collections.abc import Mapping, Sequence

_READS = "This command only reads: nothing was changed."
_MANIFEST = "A manifest is written in one step, the last: before that nothing is written."
_EVALUATION = (
    "A record is written to the bank once everything is computed: before that the bank is unchanged. "
    "Run the same command again."
)
_ATOMIC = "The change is made completely or not at all: run the same command again."

#: Command -> what is kept if it is stopped.
KEPT: Mapping[str, str] = {
    "doctor": _READS,
    "quickstart": "What is done is kept; run the same command to resume.",
    "manifest folder": _MANIFEST,
    "manifest table": _MANIFEST,
    "manifest build": "Images that were written to ROOT are kept. " + _MANIFEST,
    "manifest check": _READS,
    "manifest split": _MANIFEST,
    "embed": "Committed chunks are kept; run the same command to resume.",
    "bank ls": _READS,
    "bank show": _READS,
    "bank verify": _READS,
    "bank repair": "What was repaired is kept; run the same command to go on.",
    "bank export": "Finished files are kept and the rest is not; run the same command to write all of them.",
    "bank rename": _ATOMIC,
    "bank rm": "The same command finishes a removal that has begun; until then the feature takes no part.",
    "bank prune": "What was removed can be made again, the rest is kept; run the same command to go on.",
    "bank relabel": "The old bank is unchanged; what the new one has taken over is kept. "
    "Run the same command to resume.",
    "bank audit": _EVALUATION,
    "bank scatter": "A picture is written in one step, the last: run the same command again.",
    "compare": "Records are only read, and an output is written in one step: run the same command again.",
    "report": "Records are only read, and each file is written in one step: run the same command again.",
    "fewshot": _EVALUATION,
    "knn": _EVALUATION,
    "probe": _EVALUATION,
    "search": _EVALUATION,
    "invariance": "Features of finished views are kept; run the same command to resume.",
    "saliency": "Finished maps, and the places of the last one, are kept; run the same command to resume.",
    "perceptual": "A table is written in one step, the last: run the same command again.",
    "finetune": "The last checkpoint and finished weights are kept; run the same command to resume.",
    "reconstruct": "Finished reconstructions, and checkpoints of others, are kept; run the same command "
    "to resume.",
    "records ls": _READS,
    "records show": _READS,
    "records export": "The file is written in one step, the last: run the same command again.",
    "study run": "Finished cells, committed chunks and checkpoints are kept; run the same command to go on.",
    "study status": _READS,
    "models list": _READS,
    "models show": _READS,
    "models choose": "Records are written once all that lack are computed, and an output in one step. "
    "Run the same command again.",
    "models fetch": "Downloaded bytes are kept; run the same command to resume.",
    "models convert": "A converted file is written in one step: run the same command again.",
    "datasets list": _READS,
    "datasets show": _READS,
    "bench": "A benchmark keeps only the reports that it had written; run the same command again.",
}
_UNKNOWN = "What was finished is kept; run the same command again."


def command(words: Sequence[str]) -> str | None:
    """Return the command, a key of `KEPT`, that the words of a command line name; None if there is none."""
    first_words = {name.partition(" ")[0] for name in KEPT}
    for i, word in enumerate(words):
        if word in first_words:
            subcommands = (f"{word} {other}" for other in words[i + 1 :])
            return word if word in KEPT else next((name for name in subcommands if name in KEPT), None)
    return None


def sentence(words: Sequence[str]) -> str:
    """Return the message for the command line of these words when it is stopped."""
    return f"Stopped. {KEPT.get(command(words) or '', _UNKNOWN)}"

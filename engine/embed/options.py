"""The settings of an embed run: how images are embedded, and how far their files are trusted."""

from dataclasses import dataclass, field

from engine.decode.contents import Contents
from engine.decode.source import ImageSource, Limits
from engine.runtime import Runtime
from stores.limits import check_whole
from stores.manifest.manifest import Manifest

#: Most images of a forward pass, and most rows of a chunk; the bank has the latter limit too.
MAX_BATCH, MAX_CHUNK_ROWS = 65_536, 1 << 20


@dataclass(frozen=True)
class EmbedOptions:
    """Options of embedding; only the first three can change the features.

    Attributes:
        decoder: `auto`, `dali`, `turbo` or `reference`.
        dct: let the JPEG decoder scale (turbo only): faster on large files, within 0.5/255 on average.
        dtype: of the stored embeddings, `float16` or `float32`.
        batch_size: images a forward pass; None takes 256 on CUDA and 32 on the CPU.
        chunk_rows: rows a chunk of a new bank; None lets the bank choose.
        limits: largest image accepted.
        allow_outside: whether links may lead out of the manifest's root.
    """

    decoder: str = "auto"
    dct: bool = False
    dtype: str = "float16"
    batch_size: int | None = None
    chunk_rows: int | None = None
    limits: Limits = field(default_factory=Limits)
    allow_outside: bool = False

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_whole("batch_size", self.batch_size, 1, MAX_BATCH)
        if self.chunk_rows is not None:
            check_whole(
                "chunk_rows", self.chunk_rows, 1, MAX_CHUNK_ROWS, "leave `embank embed --chunk-rows` out"
            )

    def batch_for(self, runtime: Runtime, chunk_rows: int) -> int:
        """Return the number of images of a forward pass.

        Batches do not cross chunks, so a larger one would be padding on CUDA.
        """
        return min(self.batch_size or (256 if runtime.on_cuda else 32), chunk_rows)


@dataclass(frozen=True)
class InputChecks:
    """Checks that image files have not changed since they were embedded.

    Attributes:
        max_missing: the largest share of missing files with which a run starts.
        every: compare every file of what was embedded before, not a random sample.
        accept_changed: if files have changed, make features of them as they are now, beside the old ones.
        retry_failed: try again the rows that failed because of their image.
    """

    max_missing: float = 0.01
    every: bool = False
    accept_changed: bool = False
    retry_failed: bool = False


def image_source(manifest: Manifest, options: EmbedOptions, contents: Contents | None = None) -> ImageSource:
    """Give the manifest's files to the decoders, each compared with its digest in `contents`."""
    return ImageSource(
        root=manifest.root,
        uris=manifest.uris,
        sha256=manifest.sha256s,
        limits=options.limits,
        allow_outside=options.allow_outside,
        contents=contents,
    )

"""The decoders with NVIDIA DALI."""

from engine.decode.dali.decoder import DaliDecoder, DaliTrainingDecoder

__all__ = ["DaliDecoder", "DaliTrainingDecoder"]

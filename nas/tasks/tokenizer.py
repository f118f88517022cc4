"""Tokenizers that lose no byte: bytes themselves, and byte-level BPE."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import UserError


class Tokenizer(Protocol):
    """Texts to tokens and back, every byte accounted for."""

    @property
    def kind(self) -> str:
        """Either bytes or bpe."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each token, `(vocabulary,)`."""

    def encode(self, texts: Sequence[bytes]) -> list[NDArray[np.uint32]]:
        """Return the tokens of each text, valid UTF-8; their lengths sum to that of the text."""

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes of `tokens`; not always whole UTF-8 characters."""

    def to_json(self) -> str:
        """Return all there is to it, for the file beside an exported model."""


class ByteTokenizer:
    """A token for every byte value."""

    kind = "bytes"
    vocabulary = 256

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Ones, `(256,)`."""
        return np.ones(256, dtype=np.int64)

    def encode(self, texts: Sequence[bytes]) -> list[NDArray[np.uint32]]:
        """Return the values of the bytes."""
        return [np.frombuffer(text, dtype=np.uint8).astype(np.uint32) for text in texts]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes of the values."""
        return bytes(tokens)

    def to_json(self) -> str:
        """Return `{"kind": "bytes"}`."""
        return json.dumps({"kind": self.kind})


class BpeTokenizer:
    """Byte-level byte pair encoding (arXiv:1508.07909, on bytes as in GPT-2), by `tokenizers`.

    Special tokens that were added to it, such as an end of text, stand for no bytes: no text gives
    them, not even one that spells them out.
    """

    kind = "bpe"

    def __init__(self, text: str) -> None:
        """Open a tokenizer from its JSON (`to_json`).

        Raises:
            UserError: Not a byte-level BPE, one that normalises or that adds tokens which are not
                special, or `tokenizers` is missing.
        """
        library = _library()
        try:
            self._tokenizer = library.Tokenizer.from_str(text)
            self._tokenizer.encode_special_tokens = True  # spelled out, they are text as any other
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            special = _special_tokens(json.loads(text))
            self._pieces = [
                b"" if token in special else _bytes_of(self._tokenizer.id_to_token(token), token)
                for token in range(self._tokenizer.get_vocab_size())
            ]
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                f"the tokenizer is not a plain byte-level BPE in the JSON of `tokenizers` "
                f"({' '.join(str(error).split())}); set task.tokenizer: bpe to train one"
            ) from error
        self._lengths = np.array([len(piece) for piece in self._pieces], dtype=np.int64)

    @classmethod
    def train(cls, texts: Iterable[bytes], *, vocabulary: int) -> "BpeTokenizer":
        """Train on `texts`, valid UTF-8; the same texts give the same tokenizer.

        Raises:
            UserError: `vocabulary` is below 256 or more than the texts yield, or `tokenizers` is
                missing.
        """
        if vocabulary < 256:
            raise UserError(
                f"task.vocabulary {vocabulary} is below 256, the bytes that BPE starts from; "
                "raise it to 256 or more"
            )
        library = _library()
        bytes_of_words = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = bytes_of_words
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator((text.decode() for text in texts), trainer)
        size = tokenizer.get_vocab_size()
        if size < vocabulary:
            raise UserError(
                f"task.vocabulary {vocabulary} is too large for the training text, which yields "
                f"{size} tokens; set task.vocabulary to {size} or less, or add text"
            )
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, path: Path) -> "BpeTokenizer":
        """Open the JSON file that `save` wrote.

        Raises:
            UserError: The file is missing or holds something else.
        """
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"task.tokenizer {path} cannot be read ({type(error).__name__}); name bytes, bpe, "
                "or the tokenizer.json of an earlier run"
            ) from error

    def save(self, path: Path) -> None:
        """Write the JSON, whole or not at all."""
        part = path.with_name(path.name + ".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(self.to_json())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    @property
    def vocabulary(self) -> int:
        """Number of tokens, at least 256."""
        return len(self._pieces)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each token, `(vocabulary,)`."""
        return self._lengths

    def encode(self, texts: Sequence[bytes]) -> list[NDArray[np.uint32]]:
        """Return the tokens of each text.

        Raises:
            UserError: The tokenizer, one from elsewhere, does not give back the text's bytes.
        """
        decoded = [text.decode() for text in texts]
        encodings = self._tokenizer.encode_batch_fast(decoded, add_special_tokens=False)
        tokens = [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]
        for text, ids in zip(texts, tokens, strict=True):
            if self.decode(ids.tolist()) != text:
                raise UserError(
                    "the tokenizer does not give back the bytes of the text, so bits per byte "
                    "would be wrong; set task.tokenizer: bpe to train one that does"
                )
        return tokens

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes of `tokens`."""
        return b"".join(self._pieces[token] for token in tokens)

    def to_json(self) -> str:
        """Return the JSON of `tokenizers`, which `Tokenizer.from_str` opens anywhere."""
        return str(self._tokenizer.to_str())


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """Return the sha256 of the tokenizer's JSON, as 64 hex digits."""
    return hashlib.sha256(tokenizer.to_json().encode()).hexdigest()


def _special_tokens(document: dict[str, Any]) -> set[int]:
    """Return the special tokens that the JSON of a tokenizer adds.

    Raises:
        ValueError: It is one that does not give back the bytes of every text.
    """
    model = document.get("model") or {}
    if "Metaspace" in json.dumps([document.get("pre_tokenizer"), document.get("decoder")]):
        raise ValueError("it marks spaces as SentencePiece does, and is not on bytes")
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {model['type']}")
    if document.get("normalizer"):
        raise ValueError("it normalises")
    if model.get("dropout"):
        raise ValueError("it drops merges at random")
    added = document.get("added_tokens") or []
    for token in added:
        if not token.get("special"):
            raise ValueError(f"it adds the token {token['content']!r}, which is not special")
    return {token["id"] for token in added}


def _bytes_of(name: str | None, token: int) -> bytes:
    """Return the bytes that a token of the vocabulary is spelled with."""
    if name is None:
        raise ValueError(f"it has no token {token}")
    if not set(name) <= _BYTE_OF.keys():
        raise ValueError(f"its token {name!r} is not spelled in bytes")
    return bytes(_BYTE_OF[char] for char in name)


def _byte_of() -> dict[str, int]:
    """Return the byte of each character in GPT-2's spelling of bytes, where all are printable."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    spelling = {chr(byte): byte for byte in printable}
    return spelling | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_of()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(
            "BPE needs the package tokenizers, which is not installed; "
            "run pip install 'elastic-nas[hf]', or set task.tokenizer: bytes"
        ) from error
    return tokenizers

"""Language modelling: predicting the next token of a text."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from platform import python_version
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.tasks.corpus import Document, corpus_digest, read_corpus, split_documents
from nas.tasks.metrics import cross_entropies, language_metrics
from nas.tasks.parameters import at_least
from nas.tasks.partition import check_fractions, part_of
from nas.tasks.streams import stream
from nas.tasks.task import SPLITS, SplitName
from nas.tasks.tokenizer import BpeTokenizer, ByteTokenizer, Tokenizer, tokenizer_digest
from search_spaces.errors import UserError


class LanguageModelling:
    """Task of predicting each token of a text from up to `context` tokens before it.

    The documents of a split are joined as they are, with nothing in between. Training batches are
    random crops. Evaluation predicts non-overlapping windows of `context` tokens, each
    from its own beginning: the first tokens of a window have little to go by, so figures
    are somewhat higher than those of a sliding window.

    Attributes:
        vocabulary: Number of tokens; `num_classes` is the same.
        context: Tokens in a sequence.
        tokenizer: The tokenizer; `to_json` and, of BPE, `save` are for whoever serves the model.
        record: See `Task.record`.
    """

    kind = "language-modelling"
    quality = "bits_per_byte"

    def __init__(
        self,
        *,
        data: str = "stdlib",
        tokenizer: str = "bytes",
        vocabulary: int | None = None,
        context: int = 128,
        batch_size: int = 16,
        evaluation_batch_size: int = 32,
        split: Sequence[float] = (0.9, 0.05, 0.05),
        max_bytes: int | None = None,
        evaluation_tokens: int = 65536,
        seed: int = 0,
        split_seed: int | None = None,
    ) -> None:
        """Read, split and encode the texts.

        Args:
            data: "stdlib", a text file, or a folder of text files (see `read_corpus`).
            tokenizer: "bytes"; "bpe", trained on the training split; or the path of a BPE's JSON.
            vocabulary: Number of tokens; None is 256 for bytes, 4096 for bpe and what the file
                holds for a file.
            context: Tokens in a sequence.
            batch_size: Sequences in a training batch.
            evaluation_batch_size: Sequences in a batch of `split`; fixed, since results may
                depend on it in their last bits.
            split: Fractions of train, validation and test, by bytes (see `split_documents`).
            max_bytes: Limit of the corpus, bytes; None takes all.
            evaluation_tokens: Limit of the predicted tokens of a split: its windows are
                then a sample, evenly spread.
            seed: Seed of the crops.
            split_seed: Seed of the split; None is `seed`.

        Raises:
            UserError: Parameters or texts that cannot be used.
        """
        self.batch_size = at_least(1, "batch_size", batch_size)
        self.context = at_least(1, "context", context)
        self.evaluation_batch_size = at_least(1, "evaluation_batch_size", evaluation_batch_size)
        self._seed = at_least(0, "seed", seed)
        split_seed = seed if split_seed is None else at_least(0, "split_seed", split_seed)
        if max_bytes is not None:
            at_least(1, "max_bytes", max_bytes)
        # The spread of a single window is not known, hence two.
        if at_least(1, "evaluation_tokens", evaluation_tokens) < 2 * context:
            raise UserError(
                f"task.evaluation_tokens {evaluation_tokens} is below {2 * context}, two windows "
                f"of task.context {context}; raise it"
            )
        fractions = check_fractions(split)
        documents = read_corpus(data, max_bytes=max_bytes)
        parts, unit = split_documents(documents, fractions, seed=split_seed)
        self.tokenizer = _tokenizer(tokenizer, vocabulary, parts["train"])
        self.vocabulary = self.tokenizer.vocabulary
        self._tokens = {name: self._encode(name, parts[name]) for name in SPLITS}
        self._windows = {
            name: _spread((len(tokens) - 1) // context, evaluation_tokens // context)
            for name, tokens in self._tokens.items()
        }
        self.record: dict[str, Any] = {
            "schema": 1,
            "kind": self.kind,
            "data": data,
            "python": python_version() if data == "stdlib" else None,
            "max_bytes": max_bytes,
            "seed": split_seed,
            "fractions": fractions,
            "unit": unit,
            "counts": {name: len(parts[name]) for name in SPLITS},
            "bytes": {name: sum(len(d.data) for d in parts[name]) for name in SPLITS},
            "tokens": {name: len(tokens) for name, tokens in self._tokens.items()},
            "evaluated_windows": {name: len(part) for name, part in self._windows.items()},
            "context": context,
            "sha256": corpus_digest(documents),
            "index_sha256": {name: corpus_digest(parts[name]) for name in SPLITS},
            "held_out": {name: [d.name for d in parts[name]] for name in SPLITS[1:]},
            "tokenizer": {
                "kind": self.tokenizer.kind,
                "vocabulary": self.vocabulary,
                "sha256": tokenizer_digest(self.tokenizer),
            },
        }

    @property
    def num_classes(self) -> int:
        """The vocabulary."""
        return self.vocabulary

    @property
    def tokenizer_json(self) -> str | None:
        """That of a BPE; bytes need none."""
        return None if self.tokenizer.kind == "bytes" else self.tokenizer.to_json()

    @property
    def steps_per_epoch(self) -> int:
        """Training steps that draw as many tokens as the training split holds."""
        return -(-len(self._tokens["train"]) // (self.batch_size * self.context))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the random crops of `step` (see `Task.batch`).

        Returns:
            Tokens and the tokens that follow each of them, int64 `(batch_size, context)`.
        """
        tokens = self._tokens["train"]
        starts = stream(self._seed, "crops", step).integers(
            0, len(tokens) - self.context, size=self.batch_size
        )
        return self._crops(tokens, starts)

    def split(self, name: SplitName, share: float = 1.0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the windows of a split (see `Task.split`); the last batch may be smaller."""
        windows = part_of(self._windows[name], share, name)
        for start in range(0, len(windows), self.evaluation_batch_size):
            chosen = windows[start : start + self.evaluation_batch_size]
            yield self._crops(self._tokens[name], chosen * self.context)

    def only(self, *splits: SplitName) -> Self:
        """Hold the tokens of these splits alone (see `Task.only`)."""
        part = copy.copy(self)
        part._tokens = {name: self._tokens[name] for name in splits}
        part._windows = {name: self._windows[name] for name in splits}
        return part

    @torch.no_grad()
    def metrics(
        self,
        forward: Callable[[Tensor], Tensor | NDArray[Any]],
        split: SplitName,
        share: float = 1.0,
    ) -> dict[str, float]:
        """Return cross_entropy (nats per token), bits_per_byte, perplexity, `_se` and n tokens.

        How the standard errors are got is said at `language_metrics`.
        """
        nats, lengths = [], []
        for inputs, targets in self.split(split, share):
            nats.append(cross_entropies(forward(inputs), targets))
            lengths.append(self.tokenizer.lengths[targets.numpy()])
        return language_metrics(np.concatenate(nats), np.concatenate(lengths))

    def _crops(self, tokens: NDArray[Any], starts: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        places = starts[:, None] + np.arange(self.context + 1)
        crops = torch.from_numpy(tokens[places].astype(np.int64))  # (batch, context + 1)
        return crops[:, :-1].contiguous(), crops[:, 1:].contiguous()

    def _encode(self, name: SplitName, documents: Sequence[Document]) -> NDArray[Any]:
        texts = self.tokenizer.encode([document.data for document in documents])
        tokens: NDArray[Any] = np.concatenate([np.zeros(0, dtype=np.uint32), *texts])
        needed = self.context + 1 if name == "train" else 2 * self.context + 1
        if len(tokens) < needed:
            raise UserError(
                f"the {name} text has {len(tokens)} tokens, fewer than the {needed} that "
                f"task.context {self.context} needs; add text, lower task.context, or change "
                "task.split"
            )
        compact: NDArray[Any] = tokens.astype(np.min_scalar_type(self.vocabulary - 1))
        return compact


def _tokenizer(name: str, vocabulary: int | None, train: Sequence[Document]) -> Tokenizer:
    if name == "bpe":
        return BpeTokenizer.train(
            (document.data for document in train), vocabulary=vocabulary or 4096
        )
    tokenizer: Tokenizer
    if name == "bytes":
        tokenizer = ByteTokenizer()
    elif name.endswith(".json"):
        tokenizer = BpeTokenizer.load(Path(name).expanduser())
    else:
        raise UserError(
            f"task.tokenizer {name!r} is not bytes, bpe or the path of a .json file; choose one"
        )
    if vocabulary not in (None, tokenizer.vocabulary):
        raise UserError(
            f"task.vocabulary {vocabulary} is not the {tokenizer.vocabulary} of task.tokenizer "
            f"{name}; set it to that, or leave it out"
        )
    return tokenizer


def _spread(available: int, wanted: int) -> NDArray[np.int64]:
    """Return the indices of at most `wanted` of `available` windows, evenly spread."""
    count = min(available, wanted)
    return np.arange(count, dtype=np.int64) * available // count

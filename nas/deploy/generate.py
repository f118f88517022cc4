"""Continue a text with an exported subnet: the prompt in one call, then token by token.

Needs onnxruntime and numpy, and `tokenizers` if the model has a BPE, whose tokenizer.json lies
beside it as the JSON of each exported model does. It is free to be copied and changed.

    python generate.py s03.onnx "import json" 200

    from generate import Generator
    generate = Generator("s03.onnx")
    print(generate("import json", tokens=200))
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Generator:
    """An exported language model in onnxruntime, with its tokenizer and key/value cache."""

    def __init__(self, model: str | Path) -> None:
        """Open a model with the threads and the provider that it was measured with.

        Args:
            model: The ONNX file; a JSON of the same name says how to feed it.
        """
        import onnxruntime

        path = Path(model)
        how = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.context: int = how["task"]["context"]
        self.caches = {port["name"]: port["shape"] for port in how["inputs"][1:]}
        self.tokenizer: Any = None
        if how["task"]["tokenizer"]["kind"] == "bpe":
            from tokenizers import Tokenizer

            self.tokenizer = Tokenizer.from_file(str(path.parent / how["tokenizer_file"]))
            # As in training: a text that spells out a special token is text as any other.
            self.tokenizer.encode_special_tokens = True
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = how["runtime"]["intra_op_num_threads"]
        config = dict(how["runtime"].get("session_config", {}))
        processor = Path("/proc/cpuinfo")
        if not (processor.exists() and b"_vnni" in processor.read_bytes()):
            config.update(how["runtime"].get("session_config_without_vnni", {}))
        for name, value in config.items():
            options.add_session_config_entry(name, value)
        provider = how["runtime"].get("provider", "CPUExecutionProvider")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        self.outputs = [port.name for port in self.session.get_outputs()]

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""
        if self.tokenizer is None:
            return list(text.encode())
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        """Text of tokens; special ones have none, and what is no whole character is replaced."""
        if self.tokenizer is None:
            return bytes(tokens).decode(errors="replace")
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def empty_cache(self) -> dict[str, NDArray[np.float32]]:
        """The key/value cache before the first token."""
        free = {"batch": 1, "past": 0}
        return {
            name: np.zeros([free[s] if isinstance(s, str) else s for s in shape], dtype=np.float32)
            for name, shape in self.caches.items()
        }

    def step(
        self, tokens: list[int], cache: dict[str, NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        """Read more tokens.

        Returns:
            Logits of the token that follows each of them, shape `(len(tokens), vocabulary)`; and
            the cache with them.
        """
        feeds = {"tokens": np.array([tokens], dtype=np.int64), **cache}
        results = dict(zip(self.outputs, self.session.run(self.outputs, feeds)))
        grown = {name: results[name.replace("past", "present", 1)] for name in self.caches}
        return results["logits"][0], grown

    def __call__(
        self, prompt: str, tokens: int = 100, temperature: float = 0.7, seed: int = 0
    ) -> str:
        """Return the text that follows `prompt`.

        Args:
            prompt: What is to be continued; its last `context - 1` tokens are read.
            tokens: How many are written, at most; prompt and they end at the trained context.
            temperature: Of the sampling; 0 takes the most probable token.
            seed: Of the sampling.
        """
        rng = np.random.default_rng(seed)
        fresh = self.encode(prompt)[-(self.context - 1) :] or [0]
        written: list[int] = []
        cache, length = self.empty_cache(), len(fresh)
        while len(written) < tokens and length < self.context:
            logits, cache = self.step(fresh, cache)
            last = logits[-1].astype(np.float64)
            if temperature > 0:
                weights = np.exp((last - last.max()) / temperature)
                fresh = [int(rng.choice(len(last), p=weights / weights.sum()))]
            else:
                fresh = [int(last.argmax())]
            written += fresh
            length += 1
        return self.decode(written)


def main(arguments: list[str]) -> None:
    """Print a prompt with its continuation."""
    if len(arguments) not in (2, 3) or not all(word.isdigit() for word in arguments[2:]):
        raise SystemExit("usage: python generate.py MODEL.onnx PROMPT [TOKENS]")
    model, prompt, *tokens = arguments
    try:
        generate = Generator(model)
    except OSError as error:
        raise SystemExit(f"generate.py: {error}; the model needs its .json beside it") from None
    print(prompt + generate(prompt, tokens=int(tokens[0]) if tokens else 100))


if __name__ == "__main__":
    main(sys.argv[1:])

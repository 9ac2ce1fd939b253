"""Indirect-object sentences written by a language model: a local or Hub model, or an endpoint.

An endpoint speaks the OpenAI chat protocol; its address and key come from OPENAI_BASE_URL and
OPENAI_API_KEY and are never arguments. What comes back is only text: it passes the same filters as
sentences from a file, and the filters say how much of it was usable.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from nnheads.errors import RunError, first_line
from nnheads.prompts.ioi_words import NAMES
from nnheads.remote.endpoint import endpoint, unusable

INSTRUCTION = (
    "Write {count} short English sentences about {first} and {second}, one a line and without"
    " numbering. First name both people, then say that {subject} gave or sent or showed something,"
    ' and stop right after the word "to", before it is said to whom. Use the two names and no other'
    " name."
)
SENTENCES_PER_REQUEST = 5
# of generation: weights with NaN, a context that is too short
FAILURES = (RuntimeError, ValueError, LookupError)


def open_writer(spec: str) -> Callable[[int, int], list[str]]:
    """Return a function (n, seed) -> sentences, for `openai:MODEL`, a Hub id or a folder."""
    generate = (
        _endpoint(spec.removeprefix("openai:")) if spec.startswith("openai:") else _local(spec)
    )

    def write(n: int, seed: int) -> list[str]:
        generator = np.random.default_rng(seed)
        sentences: list[str] = []
        for _ in range(-(-n // SENTENCES_PER_REQUEST)):
            request = _request(generator)
            sentences += sentences_in(generate(request, int(generator.integers(2**31))))
        return sentences[:n]

    return write


def _request(generator: np.random.Generator) -> str:
    """Draw two names, and which of them gives something."""
    first, second = (str(name) for name in generator.choice(NAMES, 2, replace=False))
    subject = first if generator.random() < 0.5 else second
    return INSTRUCTION.format(
        count=SENTENCES_PER_REQUEST, first=first, second=second, subject=subject
    )


def sentences_in(text: str) -> list[str]:
    """Return one sentence a line, without bullets, numbers and quotes."""
    lines = (
        re.sub(r"^[\s\-*•]*(?:\d+[.)])?[\s\"“”]*|[\s\"“”]+$", "", line)
        for line in text.splitlines()
    )
    return [line for line in lines if line]


def _endpoint(name: str) -> Callable[[str, int], str]:
    ask = endpoint("writer", "--writer openai", name, "chat/completions", _text)

    def generate(request: str, seed: int) -> str:
        return ask({"seed": seed, "messages": [{"role": "user", "content": request}]})

    return generate


def _text(choice: dict) -> str:
    text = choice["message"]["content"]
    if not isinstance(text, str):
        raise unusable("writer", "no text in its message")
    return text


def _local(name: str) -> Callable[[str, int], str]:
    """Generate with transformers: nothing inside the model is needed here."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nnheads.models.load import locate
    from nnheads.models.loading import one_line, whole_checkpoint

    path = locate(name)
    with one_line(name), whole_checkpoint(name):
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path).eval()

    def generate(request: str, seed: int) -> str:
        torch.manual_seed(seed)
        ids = _ids(tokenizer, request)
        try:
            with torch.no_grad():
                out = model.generate(
                    **ids,
                    max_new_tokens=40 * SENTENCES_PER_REQUEST,
                    do_sample=True,
                    pad_token_id=tokenizer.pad_token_id,
                )
        except FAILURES as error:
            raise RunError(f"the writer {name!r} failed: {first_line(error)}") from error
        return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))

    return generate


def _ids(tokenizer, request: str):
    """Return the tokens of a request, as a chat where the model has a template for one."""
    chat = tokenizer.chat_template
    text = request + "\n"
    if chat:
        message = [{"role": "user", "content": request}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=not chat)
    ids.pop("token_type_ids", None)
    return ids

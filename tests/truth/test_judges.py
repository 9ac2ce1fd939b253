"""Judges: a local model's probability of yes, an endpoint's, and what is said when either fails."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from endpoint import KEY, serving
from random_models import build, whole_words

from nnheads.errors import BadInput, RunError
from nnheads.truth import judges
from nnheads.truth.judges import judge_prompt, judged, of_choice, open_judge


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory):
    """A tiny model whose tokenizer knows the words of a judge's prompt."""
    words = "<pad> <bos> <eos> <unk> Q : A True Helpful yes no what is red blue ?".split()
    folder = tmp_path_factory.mktemp("judge") / "model"
    build("llama").save_pretrained(folder)
    whole_words(words, pad_token="<pad>").save_pretrained(folder)
    return folder


def completion(choice) -> bytes:
    return json.dumps({"choices": [choice]}).encode()


def test_a_judge_reads_the_prompt_of_truthfulqa():
    assert judge_prompt(" What is red? ", " blue\n") == "Q: What is red?\nA: blue\nTrue:"
    assert judge_prompt("What?", "", "informative") == "Q: What?\nA: \nHelpful:"
    with pytest.raises(BadInput, match="cannot be asked whether an answer is 'short'"):
        judge_prompt("a", "b", "short")


def test_a_local_judge_says_its_probability_of_yes(judge_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = judged(open_judge(str(judge_folder)), ["what is red ?"] * 2, ["blue", "red"])
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(judge_folder),
        AutoTokenizer.from_pretrained(judge_folder),
    )
    wanted = []
    for answer in ("blue", "red"):
        ids = tokenizer(f"Q: what is red ?\nA: {answer}\nTrue:", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            wanted.append(
                float(model(ids).logits[0, -1].softmax(-1)[tokenizer.convert_tokens_to_ids("yes")])
            )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found.dtype == np.float32 and abs(found[0] - found[1]) > 1e-6


def test_a_judge_that_cannot_say_yes_is_refused(llama_folder):
    with pytest.raises(BadInput, match="has no single token for ' yes' behind its prompt"):
        judged(open_judge(str(llama_folder)), ["what ?"], ["4"])


def test_a_judge_that_reads_too_little_fails_in_one_line(judge_folder, monkeypatch):
    judge = open_judge(str(judge_folder))
    monkeypatch.setattr(
        torch.nn.Embedding,
        "forward",
        lambda *_: (_ for _ in ()).throw(IndexError("too far\nindeed")),
    )
    with pytest.raises(RunError, match=r"the judge '.*' failed: too far"):
        judged(judge, ["what ?"], ["red"])


def test_an_endpoint_says_its_probability_of_yes(monkeypatch, capfd):
    likely = {" yes": math.log(0.5), "Yes": math.log(0.25), " no": math.log(0.2)}
    with serving(
        monkeypatch, body=completion({"text": " no", "logprobs": {"top_logprobs": [likely]}})
    ) as endpoint:
        found = judged(open_judge("openai:ft:judge"), ["what is red ?"], ["blue"], "informative")
    assert found == pytest.approx([0.75])
    [(path, headers, asked)] = endpoint.asked
    assert path == "/v1/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert asked["model"] == "ft:judge" and asked["prompt"] == "Q: what is red ?\nA: blue\nHelpful:"
    assert (asked["max_tokens"], asked["temperature"]) == (1, 0)
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("text", "said"), [(" yes", 1.0), ("Yes.", 1.0), (" no", 0.0), ("yesterday", 0.0)]
)
def test_without_probabilities_what_is_written_decides(text, said):
    assert of_choice({"text": text}) == of_choice({"text": text, "logprobs": None}) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 401}, "the judge's endpoint answered 401 Unauthorized"),
        ({"body": b"nothing"}, "gave no usable answer: JSONDecodeError"),
        ({"body": b"{}"}, "gave no usable answer: KeyError"),
        ({"body": completion({"text": None})}, "gave no usable answer: AttributeError"),
        ({"body": completion("yes")}, "gave no usable answer: AttributeError"),
        ({"status": 0}, "gave no usable answer: BadStatusLine"),
    ],
)
def test_an_endpoint_that_fails_is_said_in_one_line_without_the_key(monkeypatch, answer, said):
    with serving(monkeypatch, **answer), pytest.raises(RunError, match=said) as found:
        judged(open_judge("openai:x"), ["what ?"], ["red"])
    assert KEY not in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("spec", "key", "base", "said"),
    [
        ("openai:", "k", "http://x", "a judge at openai:NAME needs the name of a model"),
        ("openai:x", " ", "http://x", "needs OPENAI_API_KEY in the environment"),
        ("openai:x", "a b", "http://x", "OPENAI_API_KEY holds blanks"),
        ("openai:x", "k", "ftp://x", "OPENAI_BASE_URL 'ftp://x' is no address"),
        ("./nowhere", "k", "", "no model folder './nowhere'"),
    ],
)
def test_a_judge_that_cannot_be_opened_says_why(monkeypatch, spec, key, base, said):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_BASE_URL", base)
    with pytest.raises(BadInput, match=said):
        open_judge(spec)


def test_verdicts_are_one_for_each_answer_and_probabilities():
    with pytest.raises(BadInput, match="1 questions and 2 answers; they go one by one"):
        judged(lambda prompts: np.ones(len(prompts)), ["a"], ["b", "c"])
    with pytest.raises(RunError, match="verdicts are no probabilities"):
        judged(lambda prompts: np.full(len(prompts), np.nan), ["a"], ["b"])
    assert set(judges.ASKED) == {"true", "informative"}

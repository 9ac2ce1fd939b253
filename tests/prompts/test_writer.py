"""Sentences written by a model: what is read out of its text, the endpoint over a loopback server,
a local model.
"""

from __future__ import annotations

import pytest
from endpoint import KEY, chat, serving
from hypothesis import given
from hypothesis import strategies as st
from random_models import words_tokenizer

from nnheads.errors import BadInput, ModelError, RunError
from nnheads.prompts.format import from_sentences, keep_well_formed
from nnheads.prompts.writer import SENTENCES_PER_REQUEST, open_writer, sentences_in


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("1. When Mary met John", "When Mary met John"),
        ("12) When Mary met John", "When Mary met John"),
        ("- When Mary met John", "When Mary met John"),
        ('  * "When Mary met John"  ', "When Mary met John"),
        ("• “When Mary met John”", "When Mary met John"),
        ("- 3. When Mary met John", "When Mary met John"),
        ('" When Mary met John "', "When Mary met John"),
        ("3 cats and Mary met John", "3 cats and Mary met John"),
        ("When Mary paid 3.50 to", "When Mary paid 3.50 to"),
    ],
)
def test_numbers_bullets_and_quotes_are_taken_off(line, sentence):
    assert sentences_in(line) == [sentence]


def test_empty_lines_are_no_sentences():
    assert sentences_in('1. One\n\n2.\n - \n""\n3. Two\n') == ["One", "Two"]


@given(st.text())
def test_arbitrary_text_gives_lines_without_blanks(text):
    assert all(
        line.strip() == line != "" and len(line.splitlines()) == 1 for line in sentences_in(text)
    )


def test_an_endpoint_is_asked_until_there_is_enough(monkeypatch):
    text = "\n".join(f"{i}. Then Mary and John met, John gave hat {i} to" for i in range(1, 6))
    with serving(monkeypatch, body=chat(text)) as endpoint:
        write = open_writer("openai:some-model")
        sentences = write(7, 3)
        again = write(7, 3)
    assert len(sentences) == 7 and sentences == again
    assert sentences[0] == sentences[5] == "Then Mary and John met, John gave hat 1 to"
    assert len(endpoint.asked) == 4  # two requests of five sentences, twice
    path, headers, body = endpoint.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {KEY}"
    assert (
        body["model"] == "some-model"
        and f"Write {SENTENCES_PER_REQUEST} short" in body["messages"][0]["content"]
    )
    assert [body for *_, body in endpoint.asked[:2]] == [body for *_, body in endpoint.asked[2:]], (
        "decided by the seed"
    )
    assert endpoint.asked[0][2] != endpoint.asked[1][2]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"", "the writer's endpoint answered 401 Unauthorized"),
        (500, b"{}", "the writer's endpoint answered 500 Internal Server Error"),
        (200, b'{"choices": [', "gave no usable answer: JSONDecodeError"),
        (200, b"\xff\xfe", "gave no usable answer"),
        (200, b"[]", "gave no usable answer: TypeError"),
        (200, b'{"choices": []}', "gave no usable answer: IndexError"),
        (200, b'{"error": "x"}', "gave no usable answer: KeyError"),
        (200, chat(None), "gave no usable answer: no text"),
        (0, b"", "gave no usable answer: BadStatusLine"),
    ],
)
def test_every_bad_answer_is_one_line_without_the_key(monkeypatch, status, body, message):
    with serving(monkeypatch, status, body), pytest.raises(RunError, match=message) as failure:
        open_writer("openai:m")(1, 0)
    assert len(str(failure.value).splitlines()) == 1 and KEY not in str(failure.value)


def test_nobody_listening_is_one_line(monkeypatch):
    with serving(monkeypatch):
        pass
    with pytest.raises(RunError, match=r"gave no usable answer: URLError.*refused"):
        open_writer("openai:m")(1, 0)


def test_a_redirect_does_not_carry_the_key_to_another_address(monkeypatch):
    with serving(monkeypatch, body=chat("A line")) as other:
        with serving(monkeypatch, 302, Location=f"{other.url}/elsewhere"):
            open_writer("openai:m")(1, 0)
        ((path, headers, _),) = other.asked
    assert path == "/v1/elsewhere" and "Authorization" not in headers


@pytest.mark.parametrize("address", ["nonsense", "ftp://127.0.0.1/", "file:///tmp"])
def test_an_address_that_is_no_web_address_is_refused(monkeypatch, address):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(BadInput, match=r"OPENAI_BASE_URL .* expected http"):
        open_writer("openai:m")


def test_a_missing_key_or_name_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadInput, match="needs OPENAI_API_KEY in the environment"):
        open_writer("openai:m")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(BadInput, match="needs the name of a model"):
        open_writer("openai:")


@pytest.mark.parametrize("key", ["sk-not\na-key", "sk-“quoted”", "two words"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(BadInput, match="OPENAI_API_KEY holds") as refusal:
        open_writer("openai:m")
    assert key not in str(refusal.value)


def test_a_line_break_after_the_key_does_no_harm(monkeypatch):
    with serving(monkeypatch, body=chat("A line")) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
        assert open_writer("openai:m")(1, 0) == ["A line"]
    assert endpoint.asked[0][1]["Authorization"] == f"Bearer {KEY}"


def test_nonsense_of_a_local_model_is_dropped_and_counted(llama_folder):
    write = open_writer(str(llama_folder))
    sentences = write(2, 0)
    assert sentences == write(2, 0), "decided by the seed"
    assert 1 <= len(sentences) <= 2
    pairs, dropped = from_sentences(sentences, "other")
    kept, malformed = keep_well_formed(pairs)
    assert kept == [] and (dropped + malformed).total() == len(sentences)


def test_a_chat_template_is_used_where_there_is_one(llama_folder, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    model.save_pretrained(tmp_path)
    tokenizer = type(words_tokenizer()).from_pretrained(llama_folder)
    tokenizer.chat_template = "{% for m in messages %}Then {{ m['content'] }} and{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    seen = []
    monkeypatch.setattr(
        type(model),
        "generate",
        lambda self, **given: seen.append(given["input_ids"]) or given["input_ids"],
    )
    assert open_writer(str(tmp_path))(1, 0) == []
    words = words_tokenizer().convert_ids_to_tokens(seen[0][0].tolist())
    assert (words[0], words[-1]) == ("Then", "and")


def test_a_local_model_that_fails_is_one_line(llama_folder, monkeypatch):
    write = open_writer(str(llama_folder))
    from transformers import LlamaForCausalLM

    def broken(self, **_):
        raise RuntimeError("probability tensor contains nan\nand more")

    monkeypatch.setattr(LlamaForCausalLM, "generate", broken)
    with pytest.raises(RunError, match=r"the writer .* failed: probability tensor contains nan$"):
        write(1, 0)


def test_a_writer_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder without config\.json"):
        open_writer(str(tmp_path))
    with pytest.raises(ModelError, match="no model folder"):
        open_writer(str(tmp_path / "none"))

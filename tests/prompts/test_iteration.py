"""Step-by-step tasks: the states against plain loops, the spans against the text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_models import byte_tokenizer, words_tokenizer

from nnheads.errors import BadInput
from nnheads.models.texts import encode_with_offsets as encode
from nnheads.prompts.iteration import iteration
from nnheads.prompts.iteration_tasks import MODULUS, TASKS, solve
from nnheads.spans.nulls import NULL, NULL_DRAWS

TOKENIZERS = {"words": words_tokenizer, "bytes": byte_tokenizer}


def plain(task: str, inputs: list[int]) -> list[int]:
    """Each state from all inputs before it, without the function under test."""
    states = []
    for t in range(len(inputs)):
        seen = inputs[: t + 1]
        if task == "copy":
            states.append(seen[-1])
        elif task == "parity":
            states.append(sum(seen) % 2)
        elif task == "maximum":
            states.append(sorted(seen)[-1])
        else:
            state = seen[0]
            for x in seen[1:]:
                state = state * x + 1
                while state >= 11:
                    state -= 11
            states.append(state)
    return states


@given(st.sampled_from(sorted(TASKS)), st.data())
def test_states_are_those_of_a_plain_loop(task, data):
    inputs = data.draw(st.lists(st.sampled_from(list(TASKS[task][0])), min_size=1, max_size=12))
    assert solve(task, inputs) == plain(task, inputs)


def test_the_polynomial_by_hand():
    assert MODULUS == 11 and list(TASKS["polynomial"][0]) == list(range(1, 11))
    # 7; 7*8+1 = 57 = 2; 2*5+1 = 11 = 0; 0*9+1 = 1; 1*10+1 = 11 = 0; 0*3+1 = 1; 1*9+1 = 10
    assert solve("polynomial", [7, 8, 5, 9, 10, 3, 9]) == [7, 2, 0, 1, 0, 1, 10]
    assert solve("parity", [1, 1, 0, 1]) == [1, 0, 0, 1] and solve("maximum", [3, 1, 4, 1]) == [
        3,
        3,
        4,
        4,
    ]


def last_example(text: str) -> tuple[list, list]:
    """(number, first character, end) of the last example's inputs and states, found from the end of
    the text.
    """
    head, _, states = text.rpartition(":")
    inputs_from = head.rindex(":") + 1
    numbers = []
    for start, end in ((inputs_from, len(head)), (len(head) + 1, len(text))):
        found, place = [], start
        for word in text[start:end].split():
            place = text.index(word, place)
            if word.isdigit():
                found.append((int(word), place, place + len(word)))
            place += len(word)
        numbers.append(found)
    assert states
    return numbers[0], numbers[1]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_spans_cover_the_tokens_of_the_inputs_and_states(name, task):
    tokenizer = TOKENIZERS[name]()
    prompts = iteration(tokenizer, 6, task=task, steps=5, seed=2)
    two_digits, longest = 0, 5
    for case in range(6):
        text = str(prompts["text"].values[case])
        ids, offsets = encode(tokenizer, text)
        shift = prompts.sizes["position"] - len(ids)
        inputs, states = last_example(text)
        assert [state for state, *_ in states] == plain(task, [x for x, *_ in inputs])

        def tokens(low: int, high: int, offsets=offsets, shift=shift) -> tuple[int, int]:
            inside = [i for i, (a, b) in enumerate(offsets) if a < high and b > low]
            return inside[0] + shift, inside[-1] + 1 + shift

        x, s = (
            [tokens(low, high) for _, low, high in inputs],
            [tokens(low, high) for _, low, high in states],
        )
        two_digits += sum(stop - start > 1 for start, stop in x + s)
        asked = [start - 1 for start, _ in s]
        count = len(asked)
        assert count == len(x) == 5 - case % 3, "5, 4 and 3 steps in turn"
        expected = {
            "iteration": [(q, *key) for q, key in zip(asked, x)],
            "wrong_offset": [
                (q, *x[o]) for t, q in enumerate(asked) for o in (t - 1, t + 1) if 0 <= o < count
            ],
            "previous_state": [(q, *key) for q, key in zip(asked[1:], s)],
            "separator": [(q, asked[0], asked[0] + 1) for q in asked],
            **{f"iteration@{t}": [(asked[t], *x[t])] if t < count else [] for t in range(longest)},
        }
        for kind, triples in expected.items():
            own = prompts.isel(batch=case, span=prompts["kind"].values == kind)
            parts = [own[part].values.tolist() for part in ("query", "key_start", "key_stop")]
            assert [span for span in zip(*parts) if span[0] >= 0] == triples, kind
        missing = [-1] * (longest - count)
        assert prompts["ask"].values[case].tolist() == asked + missing
        assert (
            prompts["target"].values[case].tolist() == [ids[q + 1 - shift] for q in asked] + missing
        )
    if (name, task) == ("bytes", "polynomial"):
        assert two_digits, "10 should be two tokens here"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_null_is_other_inputs_of_the_same_sequence(name):
    prompts = iteration(TOKENIZERS[name](), 6, task="polynomial", steps=4)
    places = [prompts.isel(span=prompts["kind"].values == f"iteration@{t}") for t in range(4)]
    null = prompts.isel(span=prompts["kind"].values == f"iteration{NULL}")
    assert null.sizes["span"] == 4 * NULL_DRAWS
    for case in range(6):
        count = 4 - case % 2
        inputs = [
            (one["key_start"].values[case, 0], one["key_stop"].values[case, 0])
            for one in places[:count]
        ]
        assert (null["query"].values[case, count * NULL_DRAWS :] == -1).all()
        for number in range(count * NULL_DRAWS):
            query, low, high = (
                null[part].values[case, number] for part in ("query", "key_start", "key_stop")
            )
            t = number // NULL_DRAWS
            assert query == places[t]["query"].values[case, 0]
            assert (low, high) in inputs and (low, high) != inputs[t]


def test_examples_are_solved_and_stand_in_front():
    text = str(iteration(byte_tokenizer(), 1, task="parity", steps=3, examples=2)["text"].values[0])
    blocks = text.split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        inputs, states = (line.split(": ")[1].split() for line in block.split("\n"))
        assert [int(s) for s in states] == plain("parity", [int(x) for x in inputs])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "0 prompts were asked for"),
        (
            {"task": "sorting"},
            "'sorting'.*copy, parity, polynomial, maximum",
        ),
        ({"steps": 2}, "2 steps are too few"),
        ({"steps": 8, "fewest": 2}, "2 steps are too few"),
    ],
)
def test_what_is_no_task_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        iteration(words_tokenizer(), **options)


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast, unk_token_id, pad_token_id = False, None, None

    with pytest.raises(BadInput, match="does not say where its tokens are"):
        iteration(Slow(), 1)


def numbers_of_steps(**options) -> list[int]:
    prompts = iteration(words_tokenizer(), **options)
    assert prompts.sizes["step"] == options.get("steps", 16)
    return (prompts["ask"] >= 0).sum("step").values.tolist()


def test_prompts_have_all_numbers_of_steps_in_turn():
    assert numbers_of_steps(n=30) == [*range(16, 2, -1), *range(16, 2, -1), 16, 15]
    assert numbers_of_steps(n=5, steps=9, fewest=7) == [9, 8, 7, 9, 8]
    assert (
        numbers_of_steps(n=3, steps=5, fewest=5)
        == [5, 5, 5]
        == numbers_of_steps(n=3, steps=5, fewest=8)
    )
    assert numbers_of_steps(n=2, steps=3) == [3, 3]


def test_prompts_differ():
    texts = iteration(words_tokenizer(), 20, steps=8)["text"].values
    assert len(np.unique(texts)) > 15

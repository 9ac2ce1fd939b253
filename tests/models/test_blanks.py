"""Where a word that is written without a blank has one before it, in prose, code and numbers."""

from __future__ import annotations

import pytest

from nnheads.models.blanks import takes_blank

BLANK = [
    ("gave the bag to", "Mary"),
    ("Answer:", "A"),
    ("**Answer:**", "Paris"),
    ("the _last_", "word"),
    ("2 + 2 =", "4"),
    ("if x != y and a !=", "b"),
    ('He said "yes"', "and"),
    ('She said "I am\nhere"', "and"),
    ("the dogs'", "bones"),
    ("He left.", "Then"),
    ("He left.", "then"),
    ("Yes.", "it"),
    ("in the U.S.", "is"),
    ("see e.g.", "this"),
    ("it was in 2020.", "2021"),
    ("chapter 3:", "4"),
    ("we chose 10:", "Mary"),
    ("She programs in C++", "and"),
    ("She programs in C#", "and"),
    ("let $x$", "be"),
    ("나는 학교에", "갔다"),
    ("I love 🐶", "dogs"),
    ("one, two,", "three"),
    ("one —", "x"),
    ("What a day!", "We"),
    ("„Ja“", "sagte"),
    ("»Ja«", "sagte"),
    ("a list:\n-", "item"),
    ("(see above).", "then"),
    ("“Yes”", "she"),
]
NONE = [
    ("Answer: (", "A"),
    ("Answer: ", "A"),
    ("first line\n", "A"),
    ("2+2=", "4"),
    ("a!=", "b"),
    ("it costs $", "5"),
    ("it costs ¥", "5"),
    ("it costs ₹", "5"),
    ('He said "', "Yes"),
    ("He said '", "Yes"),
    ("a **", "bold"),
    ("x = ['a','b','", "c"),
    ("{'a':'", "b"),
    ("I don’", "t"),
    ("I don'", "t"),
    ("un verre d'", "eau"),
    ("five o'", "clock"),
    ("import os\nos.", "path"),
    ("x = np.random.", "choice"),
    ("df = pd.", "DataFrame"),
    ("import torch\nfrom torch.", "nn"),
    ("def f(self):\n    return self.", "x"),
    ("std::", "string"),
    ("www.example.", "com"),
    ("user@example.", "com"),
    ("pi is 3.", "14"),
    ("it is 10:", "30"),
    ("1,", "000"),
    ("1,2,3,4,5,", "6"),
    ("a,b,c,", "d"),
    ("1990–", "1995"),
    ("word—", "x"),
    ("a well-", "known"),
    ("https://", "www"),
    ("我喜欢", "你"),
    ("我喜欢", "A"),
    ("我喜欢，", "你"),
    ("the end", "."),
    ("it is 20", "°C"),
    ("f(x", ")"),
    ('He said "yes', '"'),
    ("", "A"),
    ("Mary", "'s"),
    ("they", "’re"),
    ("do", "n't"),
    ("it is 20°", "C"),
    ('{"a":1,', '"b"'),
    ('{"a":1,"b":', "2"),
    ("if (!", "ready"),
    ("return !", "x"),
    ("x = -", "5"),
    ("foo().", "bar"),
    ("x[0].", "y"),
    ("df['a'].", "mean"),
    ("snake_case_", "name"),
    ("5×", "6"),
    ("„", "Ja"),
    ("“", "Yes"),
    ("»", "Ja"),
]


@pytest.mark.parametrize(("text", "word"), BLANK)
def test_prose_puts_a_blank_between_words(text, word):
    assert takes_blank(text, word)


@pytest.mark.parametrize(("text", "word"), NONE)
def test_brackets_numbers_code_and_other_scripts_do_not(text, word):
    assert not takes_blank(text, word)

"""Whether a word that is written without a blank follows a text with one.

    takes_blank("gave the bag to", "Mary"), takes_blank("Answer: (", "A")    # True, False

The text decides: prose puts a blank between words; numbers, code, quotations, markup and scripts
without blanks do not. Rules stand in the order in which they are asked; the last one is prose.
"""

from __future__ import annotations

import re
import unicodedata

# scripts that put no blank between words, and their marks
UNSPACED = re.compile("CJK|HIRAGANA|KATAKANA|THAI|LAO|KHMER|MYANMAR|TIBETAN|FULLWIDTH|IDEOGRAPHIC")
OPENING = "([{«‹“‘„‚¿¡「『（【《〈@~"
CLOSING = ".,;:!?)]}»›”’…%°"  # no blank stands before them
OPERATORS = re.compile(r"[=+\-*/\\|&^<>!—–×·]+\Z")  # join both sides, unless a blank stands before
LANGUAGES = re.compile(r"(?:^|\s)[A-Z](?:\+\+|#)\Z")  # C++, C#
MARKUP = re.compile(r"(?:\*+|_+|~~|`+|\$+)\Z")  # opens and closes in turn
CLITIC = re.compile(r"['’][a-z]|n['’]t\b", re.IGNORECASE)  # 's, 're, n't
# quotation marks that open in one language and close in another
TWO_WAYS = {"“": "„", "«": "»", "»": "«"}
ENDINGS = {"t", "s", "re", "ve", "ll", "d", "m", "em"}  # don't, it's, we're
ELISIONS = re.compile(r"(?:^|[\s(\"“-])(?:[a-z]|qu|jusqu|lorsqu|aujourd)['’]\Z", re.IGNORECASE)
KEYWORDS = "from|import|return|in|not|and|or|if|elif|while|await|yield|print|del|assert|lambda"
# a name of a program and its full stop, behind an operator, a keyword or a line's beginning
CODE_NAME = re.compile(
    rf"(?:(?P<start>^\s*)|[(\[{{=,+*/<>!-]\s*|\b(?:{KEYWORDS})\s+)(?P<name>[A-Za-z_]\w*(?:\.\w+)*)\.\Z",
    re.MULTILINE,
)
CODE = re.compile(r"^\s*(?:import|from|def|class|for|if|return)\b|[\w)\]]\s*=|\w\(", re.MULTILINE)
CALL = re.compile(r"\w(?:\([^()]*\)|\[[^\[\]]*\])\.\Z")  # f(x). and x[0].
ADDRESS = re.compile(r"(?:^|\s)(?:www\.|https?://|\S+@)\S*[./:]\Z")


def takes_blank(text: str, word: str) -> bool:
    """Return whether a word follows a text with a blank before it."""
    if not text or not word or text[-1].isspace() or word[0] in CLOSING:
        return False
    if _unspaced(text[-1]) or _unspaced(word[0]) or CLITIC.match(word):
        return False
    for rule in (
        _of_list,
        _of_pair,
        _of_quote,
        _of_markup,
        _of_opening,
        _of_operator,
        _of_number,
        _of_mark,
    ):
        answer = rule(text, word)
        if answer is not None:
            return answer
    return True


def _unspaced(character: str) -> bool:
    """Return whether a character is of a script that puts no blank between words."""
    return UNSPACED.match(unicodedata.name(character, "")) is not None


def _of_list(text: str, word: str) -> bool | None:
    """Decide in lists and objects without blanks: 1,2,3 and {"a":1}; and behind a list's dash."""
    chunk = text.split()[-1]
    if text[-1] in ",;:" and re.search(r"[\w'\"\])}][,;:][\w'\"\[({]", chunk):
        return False
    if text.rpartition("\n")[2].strip() in ("-", "*"):
        return not word[0].isdigit()
    return None


def _of_pair(text: str, word: str) -> bool | None:
    """Decide behind quotation marks that open in one language and close in another."""
    other = TWO_WAYS.get(text[-1])
    if other is None:
        return None
    return other in text and text.count(other) >= text.count(text[-1])


def _of_quote(text: str, word: str) -> bool | None:
    """Decide behind quotation marks and apostrophes, and before a mark that closes."""
    last, before = text[-1], text[-2:-1]
    paragraph = text.rpartition("\n\n")[2]
    if last in "'’" and before.isalpha():  # an apostrophe, or the end of a quotation
        return not (word.lower() in ENDINGS or ELISIONS.search(text))
    if last == "'":
        return not (not before or before.isspace() or before in OPENING + ",:;=+")
    if '"' in (last, word[0]):
        return paragraph.count('"') % 2 == 0
    return None


def _of_markup(text: str, word: str) -> bool | None:
    """Decide behind marks that open and close in turn: **bold**, $x$, `code`."""
    found = MARKUP.search(text)
    if found is None or text[: found.start()][-1:].isspace():
        return None if found is None or found[0] == "*" else False
    if re.search(r"\w_\w*_\Z", text):  # snake_case_
        return False
    line = text.rpartition("\n")[2]
    times = line.count(found[0])
    return True if times and times % 2 == 0 else None if found[0] == "*" else False


def _of_opening(text: str, word: str) -> bool | None:
    """Decide behind brackets and signs of currency."""
    last = text[-1]
    opens = last in OPENING or unicodedata.category(last) == "Sc"
    if LANGUAGES.search(text):
        return True
    return False if opens or last == "#" or text.endswith("::") else None


def _of_operator(text: str, word: str) -> bool | None:
    """Decide behind operators and dashes: as before them."""
    found = OPERATORS.search(text)
    if re.search(r"[=(,<>+*/]\s*-\Z|(?:^|[\s(])!\Z|°\Z", text):  # a sign before a number, not
        return False
    if found is None or found[0] == "!":
        return None
    return text[: found.start()][-1:].isspace()


def _of_number(text: str, word: str) -> bool | None:
    """Decide within numbers: 3.14, 10:30, 1,000."""
    found = re.search(r"(\d+)([.,:])\Z", text)
    if found is None or not word[0].isdigit():
        return None
    digits, mark = found.groups()
    inside = {
        ".": len(digits) < 4,
        ",": len(digits) < 4 and re.fullmatch(r"\d{3}", word) is not None,
        ":": len(digits) < 3 and re.fullmatch(r"[0-5]\d", word) is not None,
    }
    return not inside[mark]


def _of_mark(text: str, word: str) -> bool | None:
    """Decide behind a full stop that joins: os.path, www.example.com."""
    if ADDRESS.search(text) or (word[0].islower() and CALL.search(text)):
        return False
    found = CODE_NAME.search(text)
    if found is None or max(map(len, found["name"].split("."))) == 1:  # e.g. is no name
        return None
    if found["start"] is None:
        return False
    lines = text.rpartition("\n")[0]
    return False if found["name"][0].islower() and CODE.search(lines) else None

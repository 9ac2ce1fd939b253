"""What the coordinates of nnheads' datasets are: one table, from which files are labelled.

    dataset = labelled(dataset)  # every coordinate of the table says `long_name` and `units`

What a dataset says itself stays. A name means the same in every file; where two studies index
different things by one name, the table says what both have in common.
"""

from __future__ import annotations

import xarray as xr

ROLE = "role_"  # and the name of a role: where it stands
NUMBERS = "iufb"  # kinds of dtype that have a unit

COORDINATES = {
    # axes of a model
    "layer": "layer, counted from 0",
    "to_layer": "layer of the later head, counted from 0",
    "head": "head in its layer, counted from 0",
    "to_head": "later head in its layer, counted from 0",
    "kv_head": "key/value head in its layer, counted from 0",
    "component": "part of the model that writes to the residual stream",
    "position": "position in the padded row, counted from 0",
    "rank": "rank among the next tokens, 0 is the likeliest",
    # prompts
    "batch": "number of the prompt or token among those drawn or read, counted from 0",
    "prompt": "number of the prompt, counted from 0",
    "neutral": "number of the neutral text, counted from 0",
    "question": "number of the question, counted from 0",
    "token": "token id",
    "token_text": "text of the token",
    "next_text": "text of the token that may come next",
    "lens_text": "text of the best token by logit lens",
    "text": "text of the prompt",
    "prompt_text": "text of the prompt",
    "neutral_text": "neutral text",
    "clean_text": "clean prompt",
    "corrupted_text": "corrupted prompt",
    "answer_text": "answer, without a blank that its token may begin with",
    "wrong_text": "wrong answer, without a blank that its token may begin with",
    "input": "input of the example that is asked",
    "output": "right output of the example that is asked, without a blank before it",
    "prompt_length": "tokens of the prompt",
    "answer_length": "tokens of the answer",
    "label": "1 for a true statement, 0 for a false one",
    "is_best": "1 for the best answer of its question",
    "question_text": "text of the question",
    # the indirect-object task
    "template": "number of the sentence's template, counted from 0",
    "order": "order of the names: ABBA with the indirect object first, or BABA",
    "indirect_object": "name that has to follow",
    "subject": "name that is said twice",
    # needles
    "length": "tokens asked for",
    "tokens": "tokens of the prompt with its answer",
    "depth": "where the needle stands in its text, 0 at the start and 1 at the end",
    "depth_asked": "where the needle was to stand, 0 at the start and 1 at the end",
    "haystack_number": "number of the text; prompts of one number share theirs",
    "needle_number": "number of the needle, counted from 0",
    "copies": "steps that write a token of the needle, once for each place where it stands",
    "needle_tokens": "tokens of the needle",
    "needle_different": "different tokens of the needle",
    "recall": "share of the needle's different tokens in the answer",
    "answered": "1 where more than half of the needle is in the answer",
    # head types, tasks and classes
    "type": "head type, or study that ranks heads",
    "kind": "kind of what is measured",
    "task": "number of the task, counted from 0",
    "task_name": "task",
    "successor_text": "text of the token that follows in the order",
    "ordered_class": "ordered class of the token",
    # folds, draws and lists of heads
    "fold": "fold of the questions, counted from 0",
    "in_fold": "fold of the question",
    "part": "part that a row has in each fold",
    "draw": "number of the random draw, counted from 0",
    "k": "heads knocked out",
    "listed": "head of the list, strongest first",
    "drawn": "head of the random list",
    "member": "head of the list or circuit",
    "other": "other of two",
    "size": "share of the model's heads that are left",
    "heads": "number of heads",
    "alpha": "strength of the edit",
    "strength": "strength of the edit",
    "toward": "1 for a text toward which is steered, 0 for one away from which",
    "member_layer": "layer of the circuit's head, counted from 0",
    "member_head": "circuit's head in its layer, counted from 0",
    "member_kind": "what the subset without the head is",
    "member_cut": "heads that are taken out with the head",
    "cut_heads": "heads of the subset that is taken out",
    "cut_kind": "how the subset was chosen",
    "place": "name of the position, or place in the list",
    "condition": "what was done to the model",
    # runs beside each other
    "model": "name of the model",
    "revision": "revision of the model",
    "step": "training step of the revision",
    "entry": "list of heads",
    "n": "prompts in a sample",
    "target": "Jaccard that is asked for",
    # claims
    "claim": "name of the claim",
    "said": "claim in words",
    "reason": "why the verdict is as it is",
    "source": "where the claim was published",
    "requires": "what measuring the claim needs",
}


def labelled(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with `long_name`, and `units` of numbers, for each coordinate known here.

    A copy; what a coordinate says of itself stays.
    """
    copy = dataset.copy()
    for name in copy.coords:
        meaning, variable = meaning_of(str(name)), copy[name].variable
        if meaning:
            units = {"units": "1"} if variable.dtype.kind in NUMBERS else {}
            copy[name].attrs = {"long_name": meaning, **units, **variable.attrs}
    return copy


def meaning_of(name: str) -> str:
    """Return what a coordinate of that name is; nothing for a name that is not known."""
    if name.startswith(ROLE):
        role = name.removeprefix(ROLE)
        return f"position of {role} in the padded row, counted from 0 with the padding on the left"
    return COORDINATES.get(name, "")

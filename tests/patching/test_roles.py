"""Roles: the rules on a table made by hand, and the shipped model, whose circuit is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import xarray as xr
from random_models import placed, tiny

import nnheads
from nnheads.errors import BadInput
from nnheads.patching.patch import patch
from nnheads.patching.path_patching import path_patch
from nnheads.patching.role_lines import lines
from nnheads.patching.role_rules import EFFECTS, LOOKS, ROLES, avoids, roles, writing
from nnheads.patching.roles import role_table
from nnheads.runs import store


@functools.cache
def reference():
    return nnheads.load("reference")


def abc(n: int = 30, seed: int = 3) -> xr.Dataset:
    return nnheads.ioi(reference().tokenizer, n, seed=seed, corruption="abc")


@pytest.fixture(scope="module")
def table() -> xr.Dataset:
    return role_table(reference(), abc())


def made(*heads: dict) -> xr.Dataset:
    """A table of one layer in which every head has the evidence that is named, and nothing else."""
    data = {}
    for name in LOOKS:
        data[name] = [head.get(name, 0.0) for head in heads]
        data[f"{name}_flag"] = [
            int(head.get(f"{name}_flag", head.get(name, 0.0) > 0)) for head in heads
        ]
        for end, sign in (("_low", -1), ("_high", 1)):
            data[name + end] = [
                value + sign * head.get("look_width", 0.02)
                for value, head in zip(data[name], heads)
            ]
    for name in EFFECTS:
        data[name] = [head.get(name, 0.0) for head in heads]
        for end, sign in (("_low", -1), ("_high", 1)):
            width = [head.get("width", 0.005) for head in heads]
            data[name + end] = [value + sign * wide for value, wide in zip(data[name], width)]
    for name in ("copy", "negative"):
        data[name] = [head.get(name, 0.0) for head in heads]
        data[f"{name}_low"] = data[f"{name}_high"] = data[name]
        data[f"{name}_q_value"] = [head.get("q_value", 0.001) for head in heads]
    found = xr.Dataset(
        {name: (("layer", "head"), np.array([values], float)) for name, values in data.items()}
    )
    return found.assign_coords(layer=[0], head=range(len(heads)))


def role_of(**evidence) -> str:
    number = int(roles(made(evidence))[0, 0])
    return ["none", *ROLES][number]


@pytest.mark.parametrize(
    ("role", "evidence"),
    [
        ("name_mover", {"name_mover": 0.6, "direct": -0.2, "copy": 0.95}),
        ("negative_name_mover", {"name_mover": 0.6, "direct": 0.2, "negative": 0.9}),
        ("subject_suppression", {"subject": 0.6, "direct": -0.2, "negative": 0.9}),
        ("s_inhibition", {"subject": 0.5, "queries": -0.1}),
        ("induction", {"induction": 0.8, "total": -0.1}),
        ("induction", {"induction": 0.8, "total": 0.1}),
        ("duplicate_token", {"duplicate": 0.8, "total": -0.1}),
        ("previous_token", {"previous": 0.8, "before_end": 0.9, "total": -0.1}),
        ("backup", {"name_mover": 0.5, "alone": -0.1}),
        ("writer", {"direct": -0.1, "total": -0.1}),
        # what is missing something
        ("none", {}),
        ("none", {"name_mover": 1.0, "copy": 1.0}),
        ("writer", {"name_mover": 1.0, "direct": -0.2}),
        ("writer", {"name_mover": 0.6, "name_mover_flag": 0, "direct": -0.2, "copy": 0.95}),
        ("writer", {"name_mover": 0.6, "direct": -0.2, "copy": 0.95, "q_value": 0.5}),
        ("none", {"name_mover": 0.6, "direct": 0.2, "copy": 0.9}),
        ("writer", {"subject": 0.6, "direct": -0.2, "negative": 0.9, "q_value": 0.5}),
        ("none", {"subject": 0.6, "direct": 0.2, "negative": 0.9}),
        ("none", {"subject": 0.9, "total": -0.5}),
        ("none", {"subject": 0.1, "queries": -0.5}),
        # a path that carries a small part of what the head does is not how it acts
        ("none", {"subject": 0.5, "queries": -0.1, "total": -0.5}),
        ("s_inhibition", {"subject": 0.5, "queries": -0.1, "total": -0.3}),
        ("s_inhibition", {"subject": 0.5, "queries": -0.1, "total": 0.3}),
        # an interval that reaches below what counts
        ("none", {"induction": 0.9, "total": 0.04, "width": 0.03}),
        ("none", {"induction": 0.9, "total": -0.04, "width": 0.03}),
        ("induction", {"induction": 0.9, "total": -0.04, "width": 0.02}),
        ("none", {"induction": 0.9}),
        ("none", {"induction": 0.9, "total": -0.1, "width": 0.2}),
        ("none", {"previous": 0.9, "total": -0.1}),
        ("none", {"alone": -0.2}),
    ],
)
def test_a_role_takes_the_look_and_the_effect(role, evidence):
    assert role_of(**evidence) == role


@pytest.mark.parametrize("column", ["name_mover", "direct", "copy", "copy_q_value", "direct_high"])
def test_a_head_whose_evidence_is_missing_stays_unnamed(column):
    whole = made({"name_mover": 0.6, "direct": -0.2, "copy": 0.95})
    assert int(roles(whole)[0, 0]) == 1
    assert int(roles(whole.assign({column: whole[column] * np.nan}))[0, 0]) != 1


def test_what_raises_the_answer_directly_writes_unless_it_may_attend_to_the_subject():
    mover = {"name_mover": 0.6, "direct": -0.2, "copy": 0.95}
    plain, inhibiting = {"direct": -0.1}, {"direct": -0.3, "subject": 0.9}
    assert writing(made(mover, plain, inhibiting)) == [(0, 0), (0, 1)]
    assert writing(made({}, plain, inhibiting)) == [(0, 1)]
    assert writing(made({}, inhibiting)) == []
    unsure = {"direct": -0.3, "subject": 0.2, "subject_flag": 0, "look_width": 0.1}
    assert writing(made({}, plain, unsure)) == [(0, 1)], "it may attend to S2"
    suppressing = {"direct": -0.3, "subject": 0.9, "negative": 0.9}
    assert writing(made(mover, suppressing, plain)) == [(0, 0), (0, 1), (0, 2)]


def test_the_heads_that_write_are_said_by_their_kind():
    mover = {"name_mover": 0.6, "direct": -0.2, "copy": 0.95}
    suppressing = {"direct": -0.3, "subject": 0.9, "negative": 0.9}
    looking = {"direct": -0.3, "total": -0.3, "induction": 0.9}
    table = made({"direct": -0.1}, suppressing, mover, looking)
    table["role"] = roles(table)
    table.attrs = {"writers": "L0H0 L0H1 L0H2 L0H3", "cases": 30}
    assert lines(table)[0].endswith(
        "are of these): L0H2 (name movers); L0H1 (subject suppression); "
        "L0H0, L0H3 (raise IO directly, surely do not look at S2, and are no name movers)"
    )


def test_a_head_with_a_role_that_works_against_the_answer_is_said_to():
    table = made({"induction": 0.9, "total": 0.1}, {"induction": 0.9, "total": -0.2})
    table["role"] = roles(table)
    table.attrs = {"writers": "", "cases": 30}
    against, helping = (
        next(line for line in lines(table) if line.startswith(f"  L0H{head} ")) for head in (0, 1)
    )
    assert against.endswith("; it works against the answer") and "against" not in helping


def test_a_writer_that_may_look_at_the_subject_is_said_not_to_count_above():
    table = made({"direct": -0.1}, {"direct": -0.3, "subject": 0.4, "subject_flag": 0})
    table["role"] = roles(table)
    table.attrs = {"writers": "L0H0", "cases": 30}
    inside, apart = (
        next(line for line in lines(table)[1:] if line.startswith(f"  L0H{head} "))
        for head in (0, 1)
    )
    assert "not counted" not in inside and apart.endswith("; not counted above: END to S2 0.40")


def test_large_effects_without_a_role_and_unsure_looks_are_said():
    heads = (
        {"name_mover": 0.6, "direct": -0.2, "copy": 0.95, "total": -0.2},
        {"total": 0.3, "direct": 0.3},
        {"total": -0.4},
        {"total": -0.1, "subject": 0.2, "look_width": 0.1},
        {"total": -0.01},
    )
    table = made(*heads)
    table["role"] = roles(table)
    table.attrs = {"writers": "L0H0", "cases": 30}
    said = lines(table)
    first = said.index(next(line for line in said if "no role" in line))
    assert [line.split()[0] for line in said[first + 1 : first + 4]] == ["L0H2", "L0H1", "L0H3"]
    assert any(line.startswith("undecided: L0H3 END to S2 0.20 [0.10, 0.30]") for line in said)
    assert said[-1].startswith("these are 30 prompts; more (--limit)")
    table.attrs["cases"] = 3
    sure = table.isel(head=[0, 1])
    assert lines(sure)[-1].startswith("these are 3 prompts"), "few prompts are said to be few"
    assert not [line for line in lines(sure.assign_attrs(cases=30)) if "prompts" in line]


def test_the_shipped_models_circuit(table):
    named = {
        name: np.argwhere((table["role"] == number).values).tolist()
        for number, name in enumerate(ROLES, 1)
    }
    assert [2, 2] in named["s_inhibition"] and float(table["queries"][2, 2]) < -0.2
    assert named["previous_token"] == [[0, 0]] and [0, 2] in named["duplicate_token"]
    assert {(1, 0), (1, 1)} <= {tuple(head) for head in named["induction"]}
    assert named["name_mover"] == named["negative_name_mover"] == named["backup"] == [], (
        "this model has none"
    )
    assert {(3, 1), (3, 7)} <= {tuple(head) for head in named["writer"]}
    assert table.attrs["writers"].split()[0].startswith("L3")


def test_the_decoy_looks_like_a_name_mover_and_is_not_called_one(table):
    decoy = table.sel(layer=3, head=0)
    assert float(decoy["name_mover"]) > 0.95 and int(decoy["name_mover_flag"]) == 1
    assert int(decoy["role"]) == 0 and abs(float(decoy["direct"])) < 0.02
    said = "\n".join(lines(table))
    below = said.partition("the look of a role, but no effect surely beyond 0.02")[2]
    assert "  L3H0    END to IO 1.00" in below
    assert "no name movers" in said and "  L2H2    END to S2 1.00, total -0." in said
    assert said.index("s inhibition:") < said.index("L2H2") < said.index("induction:")


def test_columns_are_what_they_say(table):
    model, prompts = reference(), abc()
    swapped = patch(model, prompts, noising=True)
    base = swapped["clean_logit_difference"]
    total = (swapped["logit_difference"] - base).sum("batch") / base.sum()
    np.testing.assert_allclose(table["total"], total, atol=1e-5)
    direct = path_patch(model, prompts)["change"].sum("batch") / base.sum()
    np.testing.assert_allclose(table["direct"], direct, atol=1e-5)
    writers = [(int(name[1]), int(name[3])) for name in table.attrs["writers"].split()]
    queries = (
        path_patch(model, prompts, receivers=writers, at="END")["change"].sum("batch", min_count=1)
        / base.sum()
    )
    measured = table["queries"].notnull().values
    assert (measured == (avoids(table, "subject").values == 0) & queries.notnull().values).all()
    assert measured[2, 2] and measured.sum() < 16, "those that may look at S2, and no others"
    np.testing.assert_allclose(
        table["queries"].values[measured], queries.values[measured], atol=1e-5
    )
    looking = [tuple(head) for head in np.argwhere(table["alone"].notnull().values).tolist()]
    assert (3, 0) in looking and not set(looking) & set(writers)
    assert all(float(table["name_mover_high"][head]) >= 0.25 for head in looking)
    groups = [writers, *([*writers, head] for head in looking)]
    gone = patch(model, prompts, noising=True, groups=groups)["logit_difference"]
    for number, head in enumerate(looking, 1):
        alone = float((gone[:, number] - gone[:, 0]).sum() / base.sum() - total[head])
        assert abs(float(table["alone"][head]) - alone) < 1e-5


def test_batches_parts_and_a_rehearsal_change_nothing(table, tmp_path):
    split = role_table(reference(), abc(), batch_size=11, parts=tmp_path)
    assert len(list(tmp_path.glob("roles-*.nc"))) == len(list(tmp_path.glob("writers-*.nc"))) == 3
    rehearsed = placed("local", role_table)(reference(), abc())
    for other in (split, rehearsed):
        for name in table.data_vars:
            np.testing.assert_allclose(other[name], table[name], atol=1e-4, err_msg=str(name))


def test_a_table_is_labelled_and_can_be_kept(table, tmp_path):
    for name, values in table.data_vars.items():
        assert values.dims == ("layer", "head") and {"long_name", "units", "source"} <= set(
            values.attrs
        ), name
    store.save(tmp_path / "roles.nc", table)
    loaded = store.load(tmp_path / "roles.nc")
    assert lines(loaded) == lines(table)
    assert loaded["role"].attrs["flag_meanings"].split() == ["none", *ROLES]


def test_a_random_model_has_no_circuit():
    model, _ = tiny("llama")
    prompts = nnheads.ioi(model.tokenizer, 12, corruption="abc")
    found = role_table(model, prompts)
    assert int((found["role"] == 1).sum()) == 0 and found.attrs["cases"] == 12
    assert lines(found)[0].startswith("heads that write ")


def test_without_heads_that_write_there_is_nothing_to_act_through(monkeypatch):
    monkeypatch.setattr("nnheads.patching.roles.writing", lambda table: [])
    found = role_table(reference(), abc(6))
    assert bool(found["queries"].isnull().all()) and bool(found["alone"].isnull().all())
    assert "s inhibition" not in "\n".join(lines(found)) and lines(found)[0].startswith(
        "heads that write (queries and alone are of these): none"
    )


def test_prompts_without_roles_are_refused():
    with pytest.raises(BadInput, match="S2"):
        role_table(reference(), abc(6).drop_vars("role_S2"))


def test_every_head_that_was_listed_before_gets_a_line(table):
    from nnheads.patching.role_lines import lines_of_others

    said = lines(table)
    every = [(layer, head) for layer in range(4) for head in range(8)]
    others = lines_of_others(table, every, said)
    for layer, head in every:
        assert any(f"L{layer}H{head} " in line for line in [*said, *others])
    assert others[0] == "neither a role nor a sure effect here"

"""Pictures of odd shapes and values: no warning (warnings are errors here), every label where a
reader looks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from nnheads import plot
from nnheads.plot._figure import render
from nnheads.runs.folder import Run
from nnheads.runs.store import write

ODD = {
    "one cell": np.array([[0.5]]),
    "one layer": np.linspace(-1, 1, 64)[None],
    "one head": np.linspace(0, 1, 12)[:, None],
    "all unknown": np.full((3, 4), np.nan),
    "all zero": np.zeros((3, 4)),
    "one known": np.where(np.eye(4) * np.arange(4) == 2, -0.25, np.nan),
    "wide and deep": np.random.default_rng(0).normal(size=(80, 64)),
}


def table(values: np.ndarray, second: str = "head") -> xr.DataArray:
    rows, columns = values.shape
    return xr.DataArray(
        values.astype(np.float32),
        {"layer": range(rows), second: range(columns)},
        ("layer", second),
        "effect",
        {"long_name": "normalised effect", "units": "1"},
    )


def drawn(figure: Figure, folder):
    """Render as a run does: most of what can go wrong goes wrong here."""
    path = Run(folder, "test", "m", "main", {}).picture("picture", figure)
    assert path.read_bytes().startswith(b"\x89PNG")
    return figure.axes[0]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("name", ODD)
def test_a_heatmap_of_any_shape_is_drawn_with_its_labels(name, signed, tmp_path):
    values = table(ODD[name])
    figure = plot.heatmap(values, title="A title", signed=signed, note="model (main), n = 3")
    axes = drawn(figure, tmp_path)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("head", "layer", "A title")
    assert figure.axes[1].get_ylabel() == "normalised effect [1]"
    says = ["Blank: no value."] * bool(np.isnan(ODD[name]).any())
    assert figure.get_supxlabel().splitlines() == [*says, "model (main), n = 3"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        str(head) for head in values["head"].values
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        str(layer) for layer in values["layer"].values
    ]
    top, bottom = axes.get_ylim()[::-1]
    assert top < bottom, "layer 0 at the top"


def test_signed_colours_are_centred_and_the_others_start_at_zero(tmp_path):
    values = table(np.array([[-0.5, 2.0]]))
    signed = drawn(plot.heatmap(values, title=""), tmp_path).collections[0]
    assert signed.get_clim() == (-2.0, 2.0) and signed.cmap(0.5)[:3] == pytest.approx(
        (0.97, 0.97, 0.97), abs=0.01
    )
    assert drawn(plot.heatmap(values, title="", signed=False), tmp_path).collections[
        0
    ].get_clim() == (0.0, 2.0)


def test_marked_heads_get_a_frame_and_their_name(tmp_path):
    values = table(np.arange(12.0).reshape(3, 4)).assign_coords(layer=[2, 5, 7])
    marks = [{"layer": 5, "head": 1, "value": 5.0}, {"layer": 7, "head": 3, "value": 11.0}]
    axes = drawn(plot.heatmap(values, title="", marked=marks), tmp_path)
    assert [text.get_text() for text in axes.texts] == ["5.1", "7.3"]
    assert [patch.get_xy() for patch in axes.patches] == [(1, 1), (3, 2)]


def test_the_small_print_says_what_frames_mean(tmp_path):
    values = table(np.arange(12.0).reshape(3, 4))
    one, other = {"layer": 0, "head": 1, "value": 1.0}, {"layer": 2, "head": 3, "value": 11.0}
    figure = plot.heatmap(values, title="", marked=[one, other], note="n = 3")
    assert figure.get_supxlabel() == "Framed: the 2 strongest.\nn = 3"
    marked = [{**one, "flag": False}, {**other, "flag": True}]
    figure = plot.heatmap(values, title="", marked=marked, framed="the 2 highest", note="n = 3")
    says = "Framed: the 2 highest; solid where beyond chance, dashed where not.\nn = 3"
    assert figure.get_supxlabel() == says
    assert [patch.get_linestyle() for patch in drawn(figure, tmp_path).patches] == ["--", "-"]
    assert plot.heatmap(values, title="").get_supxlabel() == ""


def test_dashed_frames_of_neighbours_share_no_edge(tmp_path):
    marks = [{"layer": 0, "head": head, "value": 1.0, "flag": False} for head in (1, 2)]
    left, right = drawn(plot.heatmap(table(np.eye(3)), title="", marked=marks), tmp_path).patches
    assert left.get_x() + left.get_width() < right.get_x(), "two dashed lines would look solid"
    assert 0 < left.get_y() and left.get_y() + left.get_height() < 1


def test_long_small_print_is_wrapped(tmp_path):
    mark = {"layer": 0, "head": 1, "value": 1.0}
    framed = "the strongest either way, of those whose interval leaves zero out of it " * 2
    figure = plot.heatmap(table(np.eye(3)), title="", marked=[mark], framed=framed, note="n = 3")
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    (text,) = [text for text in figure.findobj(Text) if text.get_text() == figure.get_supxlabel()]
    assert text.get_window_extent(renderer).x1 <= figure.bbox.x1


def test_large_and_small_values_are_told_apart_on_a_logarithmic_scale(tmp_path):
    values = table(np.array([[2.0, 150.0, 24_000.0], [0.0, 120.0, np.nan]]))
    colours = drawn(plot.heatmap(values, title="", signed=False, log=True), tmp_path).collections[0]
    assert colours.norm.__class__.__name__ == "LogNorm"
    assert colours.get_clim() == pytest.approx((2.0, 24_000.0))
    shown = colours.cmap(colours.norm(np.array([0.0, 2.0, 120.0, 150.0, 24_000.0])))
    assert (shown[0] == shown[1]).all() and (shown[-1] == colours.cmap(1.0)).all()
    assert np.abs(np.diff(shown[1:], axis=0)).max(1).min() > 0.01
    for same in (np.zeros((2, 2)), np.full((2, 2), 3.0), np.full((2, 2), np.nan)):
        drawn(plot.heatmap(table(same), title="", signed=False, log=True), tmp_path)


@pytest.mark.parametrize("signed", [True, False])
def test_a_few_far_larger_values_lie_beyond_a_robust_scale_and_say_so(signed, tmp_path):
    values = np.random.default_rng(0).uniform(0.001, 0.01, (30, 9))
    values[23, 1], values[23, 8] = 0.25, -0.5 if signed else 0.5
    options = {"title": "", "signed": signed, "note": "n = 4"}
    figure = plot.heatmap(table(values), robust=True, **options)
    colours = drawn(figure, tmp_path).collections[0]
    usual = float(np.sort(values[values < 0.1])[-1])
    assert colours.get_clim()[1] == pytest.approx(usual, rel=1e-5)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.25", f"{values[23, 8]:.2g}"]
    assert figure.get_supxlabel() == "Red, with values: 2 cells beyond the scale.\nn = 4"
    assert figure.axes[1].get_ylabel() == "normalised effect [1]"
    beyond = colours.cmap(colours.norm(np.array([0.25, values[23, 8]])))
    assert (beyond == beyond[0]).all() and not (beyond[0] == colours.cmap(1.0)).all()
    even = plot.heatmap(table(np.clip(values, 0, 0.01)), robust=True, **options)
    assert even.get_supxlabel() == "n = 4" and not even.axes[0].texts


def test_tokens_of_blanks_are_seen_and_explained(tmp_path):
    texts = np.array([["  ", " ", "a b"]])
    figure = plot.heatmap(table(np.array([[0.1, 0.2, 0.3]])), title="", texts=texts)
    axes = drawn(figure, tmp_path)
    assert [text.get_text() for text in axes.texts] == ["\u2423\u2423", "\u2423", "a b"]
    assert figure.get_supxlabel() == "\u2423: a blank that is all of a token."


def test_positions_are_named_by_their_tokens_and_cells_by_their_texts(tmp_path):
    values = table(np.array([[0.1, 0.2, np.nan]]), "position")
    values["position"].attrs["labels"] = np.array(["Mary", "$5", " to"])
    axes = drawn(plot.heatmap(values, title="", texts=np.array([["a", "$b$", "\\"]])), tmp_path)
    assert axes.get_xlabel() == "position"
    assert len(axes.get_xticklabels()) == 3 and axes.get_xticklabels()[0].get_text() == "Mary"
    assert len(axes.texts) >= 2


AWKWARD = [
    "$x",
    "$\\frac$",
    "a$b$",
    "\n",
    "\t",
    "",
    "\\",
    "日本",
    "🙂",
    "\x00",
    "x" * 500,
    "{",
    "_^",
    "%",
    "\ufffd",
]


def test_tokens_of_any_kind_are_labels_and_no_formulas(tmp_path):
    n = len(AWKWARD)
    values = table(np.zeros((2, n)), "position")
    values["position"].attrs["labels"] = np.array(AWKWARD, dtype=object)
    axes = drawn(plot.heatmap(values, title="", texts=np.array([AWKWARD, AWKWARD])), tmp_path)
    assert len(axes.get_xticklabels()) == n
    attention = xr.DataArray(np.tri(n) / n, dims=("query", "key"))
    axes = drawn(plot.pattern(attention, AWKWARD, title="Attention"), tmp_path)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[3:5] == ["\\n", "\\t"] and len(labels[10]) < 40, (
        "line breaks are shown, long tokens cut"
    )


@pytest.mark.parametrize("n", [1, 2, 90])
def test_a_pattern_hides_the_future(n, tmp_path):
    attention = xr.DataArray(np.tri(n) / np.arange(1, n + 1)[:, None], dims=("query", "key"))
    figure = plot.pattern(
        attention, [f"t{i}" for i in range(n)], title="Attention of L0H0", note="small"
    )
    axes = drawn(figure, tmp_path)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "key",
        "query",
        "Attention of L0H0",
    )
    assert figure.axes[1].get_ylabel() == "attention [1]"
    hidden = np.ma.getmaskarray(axes.collections[0].get_array()).reshape(n, n)
    assert (hidden == ~np.tri(n, dtype=bool)).all()


def test_a_pattern_of_some_queries_frames_their_targets(tmp_path):
    attention = xr.DataArray([[0.2, 0.8, np.nan], [0.1, 0.2, 0.7]], dims=("query", "key"))
    figure = plot.pattern(
        attention, ["a", "b", "c"], title="", queries=["b", "c"], targets=[(0, 1), (1, 2)]
    )
    axes = drawn(figure, tmp_path)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "c"]
    assert [(patch.get_y(), patch.get_x()) for patch in axes.patches] == [(0, 1), (1, 2)]
    assert figure.get_supxlabel() == "Red frame: where such a head has to look."
    hidden = np.ma.getmaskarray(axes.collections[0].get_array()).reshape(2, 3)
    assert hidden.tolist() == [
        [False, False, True],
        [False] * 3,
    ], "what a query cannot see is left out"


@pytest.mark.parametrize("values", [[0.5], [0.1, np.nan, 0.3], [np.nan, np.nan]])
def test_lines_name_their_quantity(values, tmp_path):
    line = xr.DataArray(
        values,
        {"layer": range(len(values))},
        ("layer",),
        attrs={"long_name": "loss", "units": "nat"},
    )
    axes = drawn(plot.lines(line, title="A line"), tmp_path)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "layer",
        "loss [nat]",
        "A line",
    )


@pytest.mark.parametrize("log", [False, True])
def test_curves_show_intervals_points_and_names(log, tmp_path):
    about = {"long_name": "faithfulness", "units": "1"}
    share = xr.Variable("size", [0.01, 0.1, 1.0], {"long_name": "share of heads"})
    value = xr.DataArray([0.1, np.nan, 1.0], {"size": share}, ("size",), attrs=about)
    each = {"first": (value, value - 0.1, value + 0.1), "second": (value / 2, value / 2, value / 2)}
    axes = drawn(
        plot.curves(each, title="Curves", points={"a circuit": (0.5, 0.7)}, log=log), tmp_path
    )
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "share of heads",
        "faithfulness [1]",
        "Curves",
    )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "first",
        "second",
        "a circuit",
    ]
    assert axes.get_xscale() == ("log" if log else "linear")
    layers = xr.DataArray([0.1, 0.2], {"layer": [0, 1]}, ("layer",), attrs=about)
    axes = drawn(plot.curves({"one": (layers, layers, layers)}, title="By layer"), tmp_path)
    assert axes.get_xlabel() == "layer" and list(axes.get_xticks()) == [0, 1]


def test_the_caller_of_curves_says_which_levels_and_ends_are_drawn():
    about = {"long_name": "change", "units": "nat"}
    value = xr.DataArray([0.1, 2.0], {"strength": [0, 1]}, ("strength",), attrs=about)
    each = {"one": (value, value, value)}
    share, nats = (
        plot.curves(each, title=""),
        plot.curves(each, title="", levels=(0.0,), shaded="x"),
    )

    def levels(figure: Figure) -> list[float]:
        flat = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [0, 1]]
        return [line.get_ydata()[0] for line in flat if len(set(line.get_ydata())) == 1]

    assert levels(share) == [0.0, 1.0] and levels(nats) == [0.0]
    assert share.get_supxlabel() == "Shaded: the interval of each line."
    assert nats.get_supxlabel() == "Shaded: x."


def test_names_are_whole_where_tokens_would_be_cut():
    name = "reference shipped indirect_object, drawn by other prompts"
    values = table(np.eye(2), "entry").assign_coords(entry=[name, "b"])
    figure = plot.heatmap(values, title="")
    assert figure.axes[0].get_xticklabels()[0].get_text() == name


@pytest.mark.parametrize("revisions", [["step1"], ["step1", "step20", "step300"]])
def test_heads_that_emerge_are_named_strongest_first(revisions, tmp_path):
    values = np.zeros((len(revisions), 2, 3))
    values[-1] = [[0.1, 0.9, 0.2], [np.nan, 0.5, 0.3]]
    dims = ("revision", "layer", "head")
    coordinates = {"revision": revisions, "layer": [0, 1], "head": [0, 1, 2]}
    scores = xr.DataArray(values, coordinates, dims, attrs={"long_name": "mass", "units": "1"})
    axes = drawn(plot.emergence(scores, title="Emergence", top=2), tmp_path)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == (
        "revision",
        "mass [1]",
        "Emergence",
    )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0.1", "1.1"]


def test_lines_that_lie_on_each_other_can_all_be_seen(tmp_path):
    about = {"long_name": "share", "units": "1"}
    value = xr.DataArray([0.1, 0.1, 0.2], {"layer": [0, 1, 2]}, ("layer",), attrs=about)
    names = ("vector", "shuffled examples", "random heads", "nothing added")
    axes = drawn(plot.curves(dict.fromkeys(names, (value,) * 3), title=""), tmp_path)
    drawn_lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    looks = [(line._dash_pattern, line.get_marker()) for line in drawn_lines]
    assert len({marker for _, marker in looks}) == len({str(dash) for dash, _ in looks}) == 4
    many = value.isel(layer=[0] * 30).assign_coords(layer=np.arange(30))
    axes = drawn(plot.curves(dict.fromkeys(names, (many,) * 3), title=""), tmp_path)
    turns = [line.get_markevery() for line in axes.lines if len(line.get_xdata()) == 30]
    assert turns == [(number, 4) for number in range(4)], "markers do not hide each other"
    widths = [line.get_linewidth() for line in drawn_lines]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]


def legend_and_axes(figure: Figure):
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    return axes.get_legend().get_window_extent(renderer), axes.get_window_extent(renderer)


def test_legends_lie_beside_the_lines(tmp_path):
    n = xr.Variable("n", [4, 8, 16], {"long_name": "prompts in a sample"})
    value = xr.DataArray([0.2, 0.5, 0.9], {"n": n}, ("n",), attrs={"long_name": "J", "units": "1"})
    kinds = [f"a head type of a rather long name {number} (top 10)" for number in range(10)]
    figures = [plot.curves(dict.fromkeys(kinds, (value,) * 3), title="Found again")]
    grid = table(np.arange(12.0).reshape(3, 4))
    figures.append(plot.against(grid, grid, {"top": grid > 9}, grid < 9, title=""))
    joined = xr.concat([grid, grid * 2], xr.Variable("revision", ["step1", "step2"]))
    figures.append(plot.emergence(joined, title=""))
    for figure in figures:
        legend, axes = legend_and_axes(figure)
        assert legend.x0 >= axes.x1 and legend.x1 <= figure.bbox.x1 + 1


@pytest.mark.parametrize("apart", [0.0, 1e-4, 1.0])
def test_names_of_points_overlap_neither_each_other_nor_points(apart, tmp_path):
    estimated = table(np.random.default_rng(0).normal(0, apart, (6, 9)) + np.eye(6, 9))
    exact = estimated + np.random.default_rng(1).normal(0, apart / 10, (6, 9))
    exact.attrs = estimated.attrs
    some = exact > -np.inf
    figure = plot.against(estimated, exact, {"top": some}, ~some, title="", note="n = 3")
    axes = figure.axes[0]
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    points = axes.transData.transform(np.stack([estimated.values, exact.values], -1).reshape(-1, 2))
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert f"Named: {len(boxes)} of 54 heads" in figure.get_supxlabel() and len(boxes) >= 1
    largest = np.unravel_index(np.abs(exact.values).argmax(), exact.shape)
    assert axes.texts[0].get_text() == "{}.{}".format(*largest) or apart == 0


def test_the_small_print_names_model_revision_n_and_date():
    source = json.dumps({"model": "owner--name", "revision": "main", "dtype": "float32"})
    dataset = xr.Dataset(attrs={"source": source, "history": "2030-01-02T03:04:05Z nnheads ioi"})
    assert plot.note(dataset, 7) == "owner--name (main, float32), n = 7, 2030-01-02"


def test_drawing_changes_neither_the_data_nor_the_state_of_pyplot(tmp_path):
    import matplotlib.pyplot

    values = table(ODD["one known"])
    before = values.copy(deep=True)
    figure = plot.heatmap(values, title="")
    write(tmp_path / "a.png", figure.savefig)
    assert values.identical(before) and matplotlib.pyplot.get_fignums() == []


def test_answers_are_drawn_by_length_and_depth_and_blank_where_not_asked(tmp_path):
    values = xr.DataArray(
        np.array([[1.0, 0.0, np.nan], [0.5, 0.25, 1.0]], np.float32),
        dims=("length", "depth"),
        name="accuracy",
        coords={"length": [128, 256], "depth": [0.0, 0.5, 1.0]},
        attrs={"long_name": "share answered", "units": "1"},
    )
    before = values.copy(deep=True)
    figure = plot.accuracy(values, title="answers", note="small print")
    assert figure.get_supxlabel() == "Blank: not asked.\nsmall print"
    axes = figure.axes[0]
    shown = axes.collections[0].get_array()
    assert shown.shape == (3, 2) and shown.mask.tolist() == [
        [False, False],
        [False, False],
        [True, False],
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["128", "256"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0%", "50%", "100%"]
    assert axes.collections[0].get_clim() == (0.0, 1.0)
    render(figure, tmp_path / "accuracy.png")
    xr.testing.assert_identical(values, before)


def named(count: int) -> dict[str, xr.DataArray]:
    """So many types, each of one head, and one in between that has none."""
    types = {
        f"type {i}": table(np.where(np.arange(30).reshape(3, 10) == i, 0.9, np.nan))
        for i in range(count)
    }
    types["type 0b"] = table(np.full((3, 10), np.nan))
    return dict(sorted(types.items()))


@pytest.mark.parametrize("count", [1, 11, 20, 24])
def test_every_type_with_heads_has_a_colour_of_its_own(count, tmp_path):
    figure = plot.types_map(named(count), title="Types", note="small")
    axes = drawn(figure, tmp_path)
    handles = figure.legends[0].legend_handles
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == sorted(f"type {i}" for i in range(count)), "a type without heads takes no place"
    colours = np.array([handle.get_facecolor()[:3] for handle in handles])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 9 * np.eye(count)
    assert apart.min() > (0.25 if count <= 20 else 0.05)
    assert np.ptp(colours, 1).min() > 0.1, "grey is what the key of scores is drawn in"
    assert len(axes.patches) == count


def test_a_map_of_no_heads_has_no_legend(tmp_path):
    figure = plot.types_map({"one": table(np.full((2, 3), np.nan))})
    axes = drawn(figure, tmp_path)
    assert not figure.legends and not axes.patches and axes.get_title() == "Head types"


def test_a_map_of_types_says_what_strong_and_pale_colours_are():
    figure = plot.types_map(named(3), title="Types", scored="attention mass")
    types, scale = figure.legends
    assert (types.get_title().get_text(), scale.get_title().get_text()) == (
        "head type",
        "attention mass",
    )
    assert [text.get_text() for text in scale.get_texts()] == ["0", "0.25", "0.5", "0.75", "1"]
    opacities = [handle.get_alpha() for handle in scale.legend_handles]
    assert opacities == sorted(opacities) and (opacities[0], opacities[-1]) == (0.25, 1.0)
    assert figure.get_supxlabel().startswith("A cell in stripes: a head of several types.")
    assert len(plot.types_map(named(3), scored="").legends) == 1, "where all scores are alike"


def test_a_head_of_two_types_is_split_and_as_opaque_as_its_scores(tmp_path):
    types = {"a": table(np.array([[1.0, np.nan]])), "b": table(np.array([[0.0, np.nan]]))}
    left, right = drawn(plot.types_map(types), tmp_path).patches
    assert [patch.get_x() for patch in (left, right)] == [
        0,
        0.5,
    ] and left.get_width() == right.get_width() == 0.5
    assert (left.get_alpha(), right.get_alpha()) == (1.0, 0.25)


@pytest.mark.parametrize("shape", [(4, 8), (1, 3), (32, 32)])
def test_long_names_of_colours_are_wrapped_beside_them(shape):
    about = {
        "long_name": (
            "mean change of the log probability of the token that is looked at, over other tokens"
        )
    }
    values = table(np.ones(shape)).assign_attrs(**about, units="nat")
    figure = plot.heatmap(values, title="")
    bar, renderer = figure.axes[1], FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    label, page = bar.yaxis.label.get_window_extent(renderer), figure.bbox
    assert page.y0 <= label.y0 and label.y1 <= page.y1 and label.x1 <= page.x1
    assert bar.get_ylabel().replace("\n", " ") == f"{about['long_name']} [nat]"


BACKEND = """
import matplotlib
before = matplotlib.rcParams._get_backend_or_none()
import numpy as np, xarray as xr
from nnheads import plot
values = xr.DataArray(np.eye(3), dims=("layer", "head"), attrs={"long_name": "x", "units": "1"})
image = plot.show(plot.heatmap(values, title="t"))
assert image.data.startswith(b"\\x89PNG"), image
assert matplotlib.rcParams._get_backend_or_none() == before
import matplotlib.pyplot
assert matplotlib.pyplot.get_fignums() == []
print(matplotlib.get_backend())
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "svg"])
def test_a_notebooks_back_end_is_left_alone_and_figures_show_in_it(backend):
    done = subprocess.run(
        [sys.executable, "-c", BACKEND],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": backend},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().lower() in (backend, backend.rpartition("_")[2]), done.stdout

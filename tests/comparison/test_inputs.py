"""What `stats` is given: masks, sparse and ragged data, tensors, tables whose rows have names, missing labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from actmax.errors import InputError
from actmax.stats.change import before_after
from actmax.stats.corrections import benjamini_hochberg, correct, holm
from actmax.stats.decoder import decode_labels
from actmax.stats.diagnostics import assumptions
from actmax.stats.groups import compare
from actmax.stats.ttests import one_sample

Y = np.repeat([0, 1], 4)
X = np.array([[0.1, 3.0], [0.5, 1.0], [0.9, 2.0], [0.2, 2.5], [1.4, 3.5], [1.0, 0.5], [2.0, 4.0], [1.1, 1.5]])
CALLS = {
    "compare": lambda x: compare(x, Y),
    "assumptions": lambda x: assumptions(x, Y),
    "decode_labels": lambda x: decode_labels(x, Y, seed=0, folds=2),
    "one_sample": lambda x: one_sample(x),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


class TestCorrect:
    """Bonferroni of 0.01 and 0.02 is 0.02 and 0.04, in whatever they come."""

    @pytest.mark.parametrize(
        "p",
        [
            [0.01, 0.02],
            (0.01, 0.02),
            torch.tensor([0.01, 0.02], dtype=torch.float64),
            torch.tensor([0.01, 0.02], dtype=torch.float64, requires_grad=True),
            pd.Series([0.01, 0.02], index=["b", "a"]),
            pd.Series([0.01, 0.02], index=[7, 3], name="p"),
            np.ma.array([0.01, 0.02], mask=[False, False]),
        ],
    )
    def test_whatever_holds_numbers(self, p):
        np.testing.assert_allclose(correct(p, "bonferroni"), [0.02, 0.04], rtol=1e-15)
        np.testing.assert_allclose(holm(p), [0.02, 0.02], rtol=1e-15)
        np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.02], rtol=1e-15)

    @pytest.mark.parametrize(
        "p",
        [
            [0.01, np.inf],
            [0.01, -np.inf],
            [0.01, 1.0000001],
            ["0.01", "0.02"],
            [[0.01, 0.02], [0.03]],
            np.ma.array([0.01, 0.02], mask=[True, False]),
            sparse.csr_matrix([[0.01, 0.02]]),
            0.01 + 0j,
        ],
    )
    def test_what_is_no_p_is_refused(self, p):
        with pytest.raises(InputError, match=r"^p="):
            correct(p, "bonferroni")

    def test_missing_p_stay_missing(self):
        np.testing.assert_array_equal(correct([0.01, np.nan, 0.03], "bonferroni"), [0.02, np.nan, 0.06])

    @pytest.mark.parametrize("axis", [1, -2])
    def test_an_axis_that_is_not_there(self, axis):
        with pytest.raises(InputError, match=r"^axis="):
            correct([0.01, 0.02], "bh", axis=axis)

    def test_one_p_without_a_family(self):
        with pytest.raises(InputError, match=r"^axis="):
            correct(0.01, "bh")


def masked():
    x = np.ma.array(X.copy(), mask=np.zeros_like(X, dtype=bool))
    x[0, 0] = np.ma.masked
    x.data[0, 0] = 999.0
    return x


REFUSED = {
    "masked": masked,
    "masked row": lambda: [np.ma.array([1.0, 999.0], mask=[False, True]), *X[1:]],
    "sparse": lambda: sparse.csr_matrix(X),
    "sparse array": lambda: sparse.coo_array(X),
    "sparse tensor": lambda: torch.tensor(X).to_sparse(),
    "ragged": lambda: [[1.0, 2.0], [1.0], *X[2:].tolist()],
    "ragged tensors": lambda: [torch.ones(2), torch.ones(1), *torch.tensor(X[2:])],
    "nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2)] * 8, layout=torch.jagged),
    "float8": lambda: torch.tensor(X).to(torch.float8_e4m3fn),
    "other float8": lambda: torch.tensor(X).to(torch.float8_e5m2),
    "objects": lambda: np.array(X, dtype=object),
    "complex": lambda: X + 0j,
    "text": lambda: X.astype(str),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_message(call, kind):
    with pytest.raises(InputError, match=r"^(activations|x)=.+: .+\. .+"):
        call(REFUSED[kind]())


def test_an_empty_mask_hides_nothing(call):
    kept, plain = (call(x).table for x in (np.ma.array(X), X))
    pd.testing.assert_frame_equal(kept, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_that_want_gradients_are_read(call, dtype):
    x = torch.tensor(X, dtype=dtype, requires_grad=True)
    plain = x.detach().to(torch.float32).numpy()
    pd.testing.assert_frame_equal(call(x).table, call(plain).table)
    pd.testing.assert_frame_equal(call(list(x)).table, call(plain).table)


def test_masked_labels_and_pairs_are_refused():
    with pytest.raises(InputError, match=r"^labels=masked"):
        compare(X, np.ma.array(Y, mask=Y * 0 + [1, 0, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(InputError, match=r"^pairs=masked"):
        compare(X, Y, pairs=np.ma.array(np.tile(range(4), 2), mask=[1] + [0] * 7))


@pytest.mark.parametrize(
    "missing", [[None], [np.nan], [pd.NA], [None, np.nan], [2], ["1"], [np.inf], [float("nan"), "x"], [0.5]]
)
def test_labels_that_are_missing_or_else_are_named(missing):
    """sorted() of None and numbers is a TypeError."""
    labels = np.array([*missing, *Y[len(missing) :]], dtype=object)
    for given in (labels, labels.tolist(), pd.Series(labels)):
        with pytest.raises(InputError, match=r"^labels=.+0 and 1"):
            compare(X, given)


def test_labels_of_any_numeric_type_are_read():
    expected = compare(X, Y).table
    for labels in (Y == 1, Y.astype(float), Y.astype(object), Y.tolist(), pd.Series(Y, dtype="Int64"), torch.tensor(Y)):
        pd.testing.assert_frame_equal(compare(X, labels).table, expected)
    pd.testing.assert_frame_equal(compare(X, pd.Series(Y == 1, dtype="boolean")).table, expected)


@pytest.mark.parametrize("name", [None, np.nan, pd.NA])
def test_pairs_need_names(name):
    pairs = np.array([name, 1, 2, 3, 0, 1, 2, 3], dtype=object)
    with pytest.raises(InputError, match=r"^pairs=1 missing"):
        compare(X, Y, pairs=pairs)


def test_pairs_may_have_names_of_several_types():
    mixed = np.array([0, "a", 2.5, (1, 2)] * 2, dtype=object)
    expected = compare(X, Y, pairs=np.tile(range(4), 2)).table
    pd.testing.assert_frame_equal(compare(X, Y, pairs=mixed).table, expected)


class TestNamedSamples:
    """A table knows which row is which: labels of the same names are put in its order, others are refused."""

    words = ("ox", "elm", "cat", "dog", "run", "go", "see", "hop")

    def frame(self):
        return pd.DataFrame(X, index=list(self.words), columns=["left", "right"])

    def shuffled(self, values):
        return pd.Series(values, index=list(self.words)).iloc[[5, 2, 7, 0, 1, 6, 3, 4]]

    def test_labels_and_pairs_are_aligned(self):
        names = np.tile(range(4), 2)
        ours = compare(self.frame(), self.shuffled(Y), pairs=self.shuffled(names)).table
        expected = compare(X, Y, pairs=names).table
        np.testing.assert_array_equal(ours["cohens_d"], expected["cohens_d"])
        np.testing.assert_array_equal(ours["paired_t"], expected["paired_t"])
        by_position = compare(X, self.shuffled(Y).to_numpy()).table
        assert (by_position["cohens_d"].to_numpy() != expected["cohens_d"].to_numpy()).all()

    def test_decoder_and_assumptions_align_too(self):
        found = assumptions(self.frame(), self.shuffled(Y)).table
        np.testing.assert_array_equal(found["variance_ratio"], assumptions(X, Y).table["variance_ratio"])
        one, two = (decode_labels(x, y, seed=0, folds=2) for x, y in ((self.frame(), self.shuffled(Y)), (X, Y)))
        np.testing.assert_array_equal(one.probabilities, two.probabilities)

    @pytest.mark.parametrize("index", [range(8), [*words[:7], "sun"], [*words[:7], words[0]]])
    def test_other_names_are_refused(self, index):
        with pytest.raises(InputError, match=r"^labels=Series with another index.+to_numpy"):
            compare(self.frame(), pd.Series(Y, index=list(index)))

    def test_names_that_repeat_must_stand_in_one_order(self):
        frame = pd.DataFrame(X, index=["a", "b"] * 4)
        pd.testing.assert_frame_equal(compare(frame, pd.Series(Y, index=frame.index)).table, compare(X, Y).table)
        with pytest.raises(InputError, match=r"^labels="):
            compare(frame, pd.Series(Y, index=["b", "a"] * 4))

    def test_arrays_go_by_position(self):
        pd.testing.assert_frame_equal(compare(X, self.shuffled(Y)).table, compare(X, self.shuffled(Y).to_numpy()).table)

    def test_a_series_is_aligned_as_well(self):
        ours = compare(self.frame()["left"], self.shuffled(Y)).table
        assert ours.index.tolist() == ["left"]
        assert ours["cohens_d"].iloc[0] == compare(X[:, 0], Y).table["cohens_d"].iloc[0]

    def test_columns_name_the_units(self):
        for table in (
            compare(self.frame(), Y).table,
            one_sample(self.frame()).table,
            assumptions(self.frame(), Y).table,
        ):
            assert table.index.tolist() == ["left", "right"]
            assert table.index.name == "unit"
        result = compare(self.frame(), Y)
        np.testing.assert_array_equal(result.probabilities(1), compare(X, Y).probabilities(1))
        assert compare(X, Y).table.index.tolist() == [0, 1]

    def test_columns_of_several_levels_name_units_too(self):
        frame = self.frame().set_axis(pd.MultiIndex.from_tuples([(8, 91), (8, 92)]), axis=1)
        assert compare(frame, Y).table.index.tolist() == [(8, 91), (8, 92)]

    def test_before_and_after_are_aligned(self):
        before = self.frame()
        after = (before + [1.0, 2.0] + before**2).iloc[::-1]
        ours = before_after(before, after, target=0).table
        expected = before_after(X, X + [1.0, 2.0] + X**2, target=0).table
        np.testing.assert_array_equal(ours["paired_t"], expected["paired_t"])

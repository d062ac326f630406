"""Tables as people have them: what is read, inferred, held out and said."""

import functools
import gzip
import http.server
import threading

import fsspec
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from trialbook.data import from_table
from trialbook.data.columns import kinds_of, preprocessing
from trialbook.errors import DataError

N = 60
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "size": np.where(np.arange(N) % 7, np.arange(N) / 4, np.nan),
        "count": np.arange(N) % 11,
        "member": np.arange(N) % 3 == 0,
        "city": np.where(np.arange(N) % 9, np.array(["Oslo", "Lima", "Pune"])[np.arange(N) % 3], None),
        "day": pd.date_range("2024-01-01", periods=N).strftime("%Y-%m-%d"),
        "customer": [f"customer {i}" for i in range(N)],
        "country": "NO",
        "label": np.where(np.arange(N) % 2, "yes", "no"),
    }
)


@pytest.fixture(name="write")
def give_write(tmp_path):
    def write(table=TABLE, name="my.csv", **options):
        path = tmp_path / name
        table.to_csv(path, index=False, **options)
        return str(path)

    return write


def read(path, target="label", **options):
    return from_table(path=path, target=target, **options)


def test_what_the_columns_hold_is_found_out_and_said(write):
    data = read(write())
    assert kinds_of(data.X) == {
        **{"size": "number", "count": "number", "member": "boolean", "city": "text"},
        **{"day": "date", "customer": "text", "country": "text"},
    }
    assert data.described == [
        "my: 60 rows of 7 columns (2 numbers, 1 boolean, 3 text, 1 date); 48 to search on, 12 for the test (drawn by "
        "class with seed 0)",
        "classification of label: 2 classes: no (50 %), yes (50 %)",
        "no help: 1 column with one value: country",
    ]


FORMATS = {
    "my.tsv": functools.partial(pd.DataFrame.to_csv, sep="\t", index=False),
    "my.csv.gz": functools.partial(pd.DataFrame.to_csv, index=False),
    "my.tsv.bz2": functools.partial(pd.DataFrame.to_csv, sep="\t", index=False),
    "my.parquet": pd.DataFrame.to_parquet,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_data(write, tmp_path, name):
    expected = read(write())
    FORMATS[name](TABLE, tmp_path / name)
    data = read(str(tmp_path / name))
    assert (data.name, data.digest, data.test_digest) == (expected.name, expected.digest, expected.test_digest)
    pd.testing.assert_frame_equal(data.X, expected.X)


def test_dates_that_parquet_knows_as_such_come_to_the_same_numbers(write, tmp_path):
    TABLE.assign(day=pd.to_datetime(TABLE.day)).to_parquet(tmp_path / "my.parquet")
    text, typed = read(write()), read(str(tmp_path / "my.parquet"))
    numbers = [data.preprocessing.fit_transform(data.X) for data in (text, typed)]
    np.testing.assert_array_equal(*numbers)


@pytest.mark.parametrize("form", ["%Y/%m/%d", "%Y.%m.%d", "%Y-%m-%d %H:%M:%S"])
def test_dates_with_the_year_first_are_dates(write, form):
    table = TABLE.assign(day=pd.to_datetime(TABLE.day).dt.strftime(form))
    numbers = [data.preprocessing.fit_transform(data.X) for data in (read(write()), read(write(table)))]
    np.testing.assert_array_equal(*numbers)


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%y", "%d.%m.%Y %H:%M"])
def test_other_dates_are_text_until_it_is_said_how_they_are_written(write, form):
    path = write(TABLE.assign(day=pd.to_datetime(TABLE.day).dt.strftime(form)))
    data = read(path)
    assert kinds_of(data.X)["day"] == "text"
    assert data.described[-1] == "taken for text: 1 column of what may be dates, see docs/data.md: day"
    told = read(path, options={"parse_dates": ["day"], "date_format": form})
    assert "taken for text" not in " ".join(told.described)
    numbers = [data.preprocessing.fit_transform(data.X) for data in (told, read(write()))]
    np.testing.assert_array_equal(*numbers)


def test_an_address_that_fsspec_understands(write):
    with fsspec.open("memory://tables/my.csv", "wb") as file:
        file.write(TABLE.to_csv(index=False).encode())
    assert read("memory://tables/my.csv").digest == read(write()).digest


def test_an_address_on_the_web(write, tmp_path):
    path = write()
    (tmp_path / "my.csv.gz").write_bytes(gzip.compress((tmp_path / "my.csv").read_bytes()))
    handler = functools.partial(Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        try:
            data = read(f"{here}/my.csv.gz?token=secret")
            with pytest.raises(DataError, match=r"nothing\.csv does not exist\.$"):
                read(f"{here}/nothing.csv")
        finally:
            server.shutdown()
    assert data.digest == read(path).digest
    assert data.source == f"{here}/my.csv.gz"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_texts_of_other_encodings_separators_and_blanks(write, tmp_path):
    expected = read(write())
    assert read(write(encoding="utf-8-sig")).digest == expected.digest
    assert read(write(sep=";"), separator=";").digest == expected.digest
    assert read(write(sep=";", decimal=","), separator=";", options={"decimal": ","}).digest == expected.digest
    cities = TABLE.assign(city=TABLE.city.replace("Lima", "Tromsø"))
    assert "Tromsø" in set(read(write(cities, encoding="latin-1"), encoding="latin-1").X["city"])
    asked = TABLE.assign(size=TABLE["size"].astype("object").where(TABLE["size"].notna(), "?"))
    assert kinds_of(read(write(asked)).X)["size"] == "text"
    assert read(write(asked), missing=["?"]).digest == expected.digest


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b", "c"] * 20, "classification"),
        ([True, False] * 30, "classification"),
        ([0, 1] * 30, "classification"),
        ([1.0, 2.0, 3.0] * 20, "classification"),
        ([0.5, 1.5] * 30, "classification"),
        ([0.5, 1.5, 2.5] * 20, "regression"),
        (range(60), "regression"),
        (np.linspace(0, 1, 60), "regression"),
    ],
)
def test_the_task_is_inferred(write, values, task):
    assert read(write(TABLE.assign(label=list(values)))).task == task


def test_a_named_task_wins(write):
    numbers = write(TABLE.assign(label=[1, 2, 3] * 20))
    assert read(numbers).y.dtype == "int64"
    data = read(numbers, task="regression")
    assert (data.task, data.y.dtype) == ("regression", "float64")
    assert data.described[1].startswith("regression of label: from 1 to 3, on average ")


def test_rows_without_a_target_and_columns_without_a_name_are_left_out_and_said(tmp_path):
    TABLE.assign(label=TABLE.label.where(TABLE.index > 3)).to_csv(tmp_path / "my.csv")  # with pandas's row numbers
    data = read(str(tmp_path / "my.csv"))
    assert "Unnamed: 0" not in data.X
    assert len(data.X) + len(data.X_test) == 56
    assert {"left out: 1 column without a name", "left out: 4 rows without a value of label"} <= set(data.described)


def test_features_are_chosen_and_dropped(write):
    assert list(read(write(), features=["day", "size"]).X) == ["size", "day"]
    assert list(read(write(), features="size").X) == ["size"]
    assert list(read(write(), drop=["customer", "country", "day"]).X) == ["size", "count", "member", "city"]


def test_groups_stay_together_and_are_no_feature(write):
    table = TABLE.assign(group=np.arange(N) // 6)
    data = read(write(table), groups="group")
    assert "group" not in data.X
    together = table.set_index("customer").group
    assert not set(together[data.X.customer]) & set(together[data.X_test.customer])
    assert list(together[data.X.customer]) == list(data.groups)


@pytest.mark.parametrize("time", ["day", "count", "stamp"])
def test_rows_are_sorted_by_time_and_tested_on_the_last(write, time):
    stamps = pd.date_range("2024-01-01", periods=N, freq="7h", tz="UTC")[::-1].strftime("%Y-%m-%dT%H:%M:%S+02:00")
    table = TABLE.assign(stamp=stamps).sample(frac=1, random_state=0)
    data = read(write(table), time=time)
    assert data.ordered
    assert data.X[time].is_monotonic_increasing
    assert data.X[time].max() <= data.X_test[time].min()
    assert len(data.X_test) == 12


def test_a_column_says_which_rows_are_for_the_test(write):
    table = TABLE.assign(part=np.where(np.arange(N) < 45, "Train", "test"))
    data = read(write(table), split="part")
    assert list(data.X.customer) == list(TABLE.customer[:45])
    assert list(data.X_test.customer) == list(TABLE.customer[45:])
    assert "15 for the test (named by part)" in data.described[0]


def test_test_rows_come_from_a_file_of_their_own(write):
    # Categories that are all digits there are still text, and a number may be missing everywhere.
    test = TABLE.tail(9).assign(city="12", size=np.nan)
    data = read(write(TABLE.head(51)), test_path=write(test[reversed(test.columns)], "test.csv"))
    assert (len(data.X), len(data.X_test)) == (51, 9)
    assert list(data.X_test) == list(data.X)
    assert set(data.X_test.city) == {"12"}
    data.preprocessing.fit(data.X).transform(data.X_test)


def test_weights_are_taken_out(write):
    data = read(write(TABLE.assign(w=np.arange(N) + 1.0)), sample_weight="w")
    assert "w" not in data.X
    assert len(data.sample_weight) == len(data.X)


def test_every_row_becomes_finite_numbers_whatever_it_lacks(write):
    data = read(write())
    made = preprocessing(kinds_of(data.X)).fit(data.X)
    width = made.transform(data.X).shape[1]
    for none in (None, np.nan):
        for row in (data.X.iloc[[0]].astype("object"), data.X.iloc[[1]].astype("object")):
            for name in row:
                numbers = made.transform(row.assign(**{name: pd.Series([none], dtype="object", index=row.index)}))
                assert numbers.shape == (1, width)
                assert np.isfinite(numbers).all()
    nothing = pd.DataFrame([dict.fromkeys(data.X)], dtype="object")
    np.testing.assert_array_equal(made.transform(nothing), made.transform(nothing.astype("float64")))


def test_categories_never_seen_are_as_the_rare_ones(write):
    data = read(write())
    made = preprocessing(kinds_of(data.X)).fit(data.X)
    rows = data.X.iloc[[0, 0]].assign(customer=["customer 0", "somebody else"])
    first, second = made.transform(rows)
    np.testing.assert_array_equal(first, second)


def test_dates_are_a_trend_and_places_in_the_week_and_in_the_year():
    frame = pd.DataFrame(
        {"day": ["2024-01-01", "2024-01-08", "2031-01-06T00:00:00Z", None, "2024-01-08T02:00:00+02:00"]}
    )
    made = preprocessing({"day": "date"}).fit(frame)
    numbers = made.transform(frame)
    week = numbers[:, 1:3]
    np.testing.assert_allclose(week[1], week[0], atol=1e-9)  # Mondays
    np.testing.assert_allclose(week[2], week[0], atol=1e-9)
    np.testing.assert_array_equal(numbers[4], numbers[1])  # the same instant
    assert numbers[0, 0] < numbers[1, 0] < numbers[2, 0]
    assert np.isfinite(numbers[3]).all()
    np.testing.assert_allclose(numbers[:, 3] ** 2 + numbers[:, 4] ** 2, 1)


def test_constant_and_empty_columns_change_nothing(write):
    plain, useless = TABLE.drop(columns="country"), TABLE.assign(empty=None, same=5)
    scores = []
    for table in (plain, useless):
        data = read(write(table))
        model = LogisticRegression(max_iter=1000).fit(data.preprocessing.fit_transform(data.X), data.y)
        scores.append(model.predict_proba(data.preprocessing.transform(data.X_test)))
    np.testing.assert_allclose(*scores, atol=0.02)

"""Data that cannot be learned from: refused in one sentence, before anything is run or recorded."""

import functools
import gzip
import io
import os
import re

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from trialbook import app
from trialbook.__main__ import conf_dir
from trialbook.errors import RequestError

N = 40
GOOD = "size,city,label\n" + "".join(f"{i / 7:.2f},{'ABC'[i % 3]},{'yes' if i % 2 else 'no'}\n" for i in range(N))
SPLIT = GOOD.replace("label\n", "label,part\n", 1).replace("no\n", "no,train\n").replace("yes\n", "yes,train\n")


def rows(header, *lines, times=10):
    return "\n".join([header, *lines * times, ""])


def packed(text):
    return gzip.compress(text.encode())


def parquet(**columns):
    file = io.BytesIO()
    pd.DataFrame(columns).to_parquet(file)
    return file.getvalue()


LABELS = ["a", "b"] * 20

# For each case: what is in my.csv (None for no such file, True for a folder), further overrides, and what is said.
TABLES = {
    "missing": (None, [], r"data\.path=.*my\.csv does not exist\.$"),
    "a folder": (True, [], r"my\.csv is a folder; give a file"),
    "empty": ("", [], r"my\.csv is empty"),
    "blank": ("\n \n", [], r"my\.csv is empty"),
    "only a header": ("size,city,label\n", [], r"has a header but no rows"),
    "one row": (rows("size,label", "1,a", times=1), [], r"is a in all 1 rows|has 1 row with a target"),
    "two rows": (rows("size,label", "1,a", "2,b", times=1), [], r"has 2 different values in 2 rows, too many"),
    "binary": (b"\x7fELF\x02\x01\x00\x00" * 99, [], r"is neither text nor Parquet; give a CSV, TSV or Parquet file"),
    "a workbook": (b"PK\x03\x04\x14\x00\x06\x00" * 99, [], r"is neither text nor Parquet"),
    "a web page": ("<!DOCTYPE html><html><body>Log in</body></html>", [], r"is a web page, not a table"),
    "not UTF-8": (
        GOOD.replace("city", "cité").encode("latin-1"),
        [],
        r"is not utf-8 at byte 8; .*data\.encoding=latin-1",
    ),
    "no such encoding": (GOOD, ["data.encoding=utf-9"], r"data\.encoding='utf-9' is no encoding"),
    "another separator": (GOOD.replace(",", ";"), [], r"only one column with ',' .*; try \"data\.separator=';'\""),
    "tabs": (GOOD.replace(",", "\t"), [], r"only one column with ',' between fields; try data\.separator=tab"),
    "the wrong separator": (
        GOOD,
        ["data.separator=tab"],
        r"only one column with a tab .*; try \"data\.separator=','\"",
    ),
    "a long line": (
        GOOD + "1,A,no,no\n",
        [],
        r"no table with ',' between fields: .*Expected 3 fields in line 42, saw 4",
    ),
    "only long lines": (rows("size,label", "1,2,a", "2,3,b"), [], r"has more fields in its rows than in its header"),
    "cut short": (GOOD[:-5] + "\n3", [], r"has [12] fields in line 4\d, where its header has 3"),
    "equal names": (rows("size,size,label", "1,2,a"), [], r"has more than one column size; column names must differ"),
    "equal names of another case are no matter": (
        rows("size,Size,label", "1,2,a"),
        [],
        r"data\.target=label is a in all 10",
    ),
    "no option of pandas": (GOOD, ["data.options.sepp=x"], r"is no table .*sepp"),
    "bad gzip": ("not packed", ["data.path=${folder}/my.csv.gz"], r"my\.csv\.gz cannot be read: Not a gzipped file"),
    "gzip cut short": (
        packed(GOOD)[:60],
        ["data.path=${folder}/my.csv.gz"],
        r"my\.csv\.gz cannot be read: .*ended before",
    ),
    "damaged Parquet": (b"PAR1" + b"x" * 99, [], r"is a damaged Parquet file"),
    "Parquet with lists": (
        parquet(x=[[1], [2]] * 20, label=LABELS),
        [],
        r"column x holds values of type .*data\.drop=\[x\]",
    ),
    "target not named": (
        GOOD,
        ["data.target=null"],
        r"needs data\.path, the file, and data\.target.*; data\.target is missing",
    ),
    "target absent": (
        GOOD,
        ["data.target=lable"],
        r"data\.target='lable' is not a column of my; .*Did you mean 'label'\?",
    ),
    "target constant": (
        rows("size,label", "1,a", "2,a"),
        [],
        r"data\.target=label is a in all 20 rows; there is nothing",
    ),
    "target missing": (rows("size,label", "1,", "2,"), [], r"data\.target=label has no value in any of 20 rows"),
    "target nearly unique": (
        "size,label\n" + "".join(f"{i},name {i}\n" for i in range(N)),
        [],
        r"data\.target=label has 40 different values in 40 rows, too many to be classes; name another column\.",
    ),
    "numbers as many classes": (
        "size,label\n" + "".join(f"{i},{i}\n" for i in range(N)),
        ["data.task=classification"],
        r"too many to be classes; name another column, or give data\.task=regression",
    ),
    "text for a regression": (GOOD, ["data.task=regression"], r"holds text such as 'no', which is no number"),
    "infinite targets": (
        rows("size,label", "1,0.5", "2,inf", "3,2.5"),
        [],
        r"data\.target=label is infinite in 10 of 30 rows\.$",
    ),
    "a target of dates": (rows("size,label", "1,2020-01-01", "2,2020-01-02"), [], r"holds dates; a target must be"),
    "no such task": (
        GOOD,
        ["data.task=clustering"],
        r"data\.task must be classification or regression.*got 'clustering'",
    ),
    "infinities": (
        rows("size,label", "1,a", "inf,b", "-inf,a"),
        [],
        r"column size is infinite in 20 of 30 rows.*drop=\[size",
    ),
    "nothing to predict from": (GOOD, ["data.drop=[size,city]"], r"no column left to predict label from"),
    "nothing varies": (
        rows("size,city,label", "1,A,a", "1,A,b"),
        [],
        r"every column to predict label from has the same",
    ),
    "an unknown feature": (
        GOOD,
        ["data.features=[siez]"],
        r"data\.features='siez' is not a column.*Did you mean 'size'\?",
    ),
    "an unknown column to drop": (
        GOOD,
        ["data.drop=[town]"],
        r"data\.drop='town' is not a column of my; allowed: size, city",
    ),
    "the target dropped": (GOOD, ["data.drop=[label]"], r"data\.drop names 'label', which is the target"),
    "the target as a feature": (
        GOOD,
        ["data.features=[size,label]"],
        r"data\.features names 'label', which is the target",
    ),
    "chosen and dropped": (GOOD, ["data.features=[size]", "data.drop=[size]"], r"both name 'size'"),
    "unknown groups": (GOOD, ["data.groups=cty"], r"data\.groups='cty' is not a column.*Did you mean 'city'\?"),
    "groups missing": (
        GOOD + "1,,no\n",
        ["data.groups=city", "validation=group"],
        r"data\.groups=city has no value in 1 of 41",
    ),
    "groups torn apart": (
        GOOD,
        ["data.groups=city", "validation=kfold"],
        r"KFold would tear the groups of data=my apart",
    ),
    "weights below 0": (
        rows("size,w,label", "1,-1,a", "2,1,b"),
        ["data.sample_weight=w"],
        r"must hold numbers of at least 0",
    ),
    "weights that are text": (
        GOOD,
        ["data.sample_weight=city"],
        r"data\.sample_weight='city' must hold numbers of at least 0",
    ),
    "times that are text": (
        GOOD,
        ["data.time=city"],
        r"data\.time=city must hold numbers, or dates such as .*; got 'A'",
    ),
    "times missing": (
        rows("size,label", "1,a", ",b", "2,a"),
        ["data.time=size"],
        r"data\.time=size has no value in 10 of 30",
    ),
    "shuffled though ordered": (
        GOOD,
        ["data.time=size", "validation=kfold"],
        r"KFold shuffles rows, but .*in order of time",
    ),
    "odd split": (
        SPLIT.replace("train", "val", 1),
        ["data.split=part"],
        r"must hold train and test and nothing else, got 'val'",
    ),
    "no test rows": (SPLIT, ["data.split=part"], r"data\.split=part holds only 'train'; it must hold train and test"),
    "a class only in the test": (
        SPLIT.replace("yes,train", "yes,test"),
        ["data.split=part"],
        r"all 20 rows to search on are of the class no",
    ),
    "a class of one row": (GOOD + "1,A,perhaps\n", [], r"has only 1 row of the class perhaps.*needs at least 2"),
    "a class of fewer rows than folds": (
        GOOD + "1,A,perhaps\n2,B,perhaps\n3,C,perhaps\n",
        ["validation=stratified_kfold", "validation.n_splits=3"],
        r"cannot split the 34 rows of my into 3 folds: only 2 of them are of the class perhaps",
    ),
    "a share of nothing": (GOOD, ["data.test_size=0.01"], r"data\.test_size=0\.01 cannot split 40 rows of my"),
    "two ways to name test rows": (
        SPLIT,
        ["data.split=part", "data.test_path=x.csv"],
        r"both say which rows are for the test",
    ),
    "no such preprocessing": (
        GOOD,
        ["data.preprocessing=some"],
        r"data\.preprocessing must be auto or none, got 'some'",
    ),
    "an unknown protocol": (GOOD, ["data.path=nonsense://x.csv"], r"nonsense://x\.csv cannot be read: .*nonsense"),
    "a protocol that needs a package": (
        GOOD,
        ["data.path=gdrive://x.csv"],
        r"gdrive://x\.csv (needs a package|cannot be read)",
    ),
    "a classifier for numbers": (
        "size,price\n" + "".join(f"{i},{i * 1.5}\n" for i in range(N)),
        ["data.target=price"],
        r"model=logistic_regression is a classifier, but data=my has a numeric target",
    ),
}

# What the test rows are, in a file of their own.
TESTS = {
    "missing": (None, r"data\.test_path=.*test\.csv does not exist"),
    "without a column": ("size,label\n1,no\n", r"data\.test_path lacks the column city; it has size, label"),
    "text for a number": (
        "size,city,label\nbig,A,no\n",
        r"data\.test_path: the column size holds text, where data\.path has numbers",
    ),
    "an unknown class": (
        "size,city,label\n1,A,perhaps\n",
        r"test rows have the class perhaps, which no row to search on has",
    ),
    "no targets": ("size,city,label\n1,A,\n", r"data\.target=label has no value in any of 1 rows"),
}


def arrays(**named):
    file = io.BytesIO()
    np.savez(file, **named)
    return file.getvalue()


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


X2, X3, Y = np.random.default_rng(0).normal(size=(N, 5)), np.zeros((N, 4, 4)), np.arange(N) % 2
HOLES = np.where(np.arange(N * 5).reshape(N, 5) % 7, 1.0, np.inf)

ARRAYS = {
    "no path": (b"", ["data.path=null"], r"data=numpy needs data\.path"),
    "missing": (None, [], r"my\.npz does not exist"),
    "text": (b"size,label\n", [], r"my\.npz is no \.npy or \.npz file of numbers"),
    "no rows among them": (arrays(a=X2, y=Y), [], r"data\.path holds a, y; say which to take with data\.rows"),
    "two candidates": (
        arrays(x=X2, data=X2, y=Y),
        [],
        r"data\.path holds x, data, y; say which to take with data\.rows",
    ),
    "a name that is not there": (
        arrays(x=X2, y=Y),
        ["data.target=z"],
        r"holds x, y; say which to take with data\.target",
    ),
    "one array": (array(X2), [], r"is one array; name the file of the targets: data\.target_path"),
    "objects": (arrays(x=np.array([{}] * N), y=Y), [], r"Python objects, which would have to be unpickled"),
    "text in the rows": (arrays(x=np.full((N, 2), "a"), y=Y), [], r"the rows must be numbers, got <U1"),
    "a vector": (arrays(x=Y, y=Y), [], r"the rows must have at least two dimensions"),
    "targets of another length": (
        arrays(x=X2, y=Y[:9]),
        [],
        r"the targets must be one value for each of 40 rows, got the shape \(9,\)",
    ),
    "targets as columns": (
        arrays(x=X2, y=np.eye(N)),
        [],
        r"must be one value for each of 40 rows, got the shape \(40, 40\)",
    ),
    "targets missing": (
        arrays(x=X2, y=np.where(Y, np.nan, 1.0)),
        [],
        r"the targets are missing or infinite in 20 rows",
    ),
    "infinities": (arrays(x=HOLES, y=Y), [], r"the rows hold 29 infinite values"),
    "images with holes": (
        arrays(x=X3 * np.nan, y=Y),
        ["model=cnn"],
        r"lacks values in rows of more than one dimension",
    ),
    "other test rows": (
        arrays(x=X2, y=Y, x_test=X2[:, :3], y_test=Y),
        [],
        r"rows are of \(5,\), test rows of \(3,\) values",
    ),
    "images for a table's model": (
        arrays(x=X3, y=Y),
        [],
        r"model=logistic_regression takes rows of numbers, but a row of data=my has 4×4 values; .*flatten=true",
    ),
}


def write(path, content):
    if content is True:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@functools.cache
def composed(groups):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", ["search=sklearn/grid", *groups])


def refusal(*overrides):
    """What is said to a request, before anything is run."""
    chosen = {"model": "logistic_regression", "search": "sklearn/grid"}
    chosen |= dict(o.split("=", 1) for o in overrides if o.partition("=")[0] in ("data", "model", "validation"))
    # Composing takes longer than all the rest, so it is done once for each choice of groups.
    cfg = composed(tuple(f"{group}={option}" for group, option in chosen.items()))
    OmegaConf.set_struct(cfg, False)
    cfg = OmegaConf.merge(cfg, OmegaConf.from_dotlist([o for o in overrides if "." in o.partition("=")[0]]))
    with pytest.raises(RequestError) as refused:
        app.compose(cfg, chosen).evaluator(keep_models=True)
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(("content", "overrides", "said"), TABLES.values(), ids=TABLES)
def test_a_table_that_cannot_be_learned_from_is_refused(tmp_path, content, overrides, said):
    write(tmp_path / "my.csv", content)
    write(tmp_path / "my.csv.gz", content)
    overrides = [o.replace("${folder}", str(tmp_path)) for o in overrides]
    found = refusal("data=csv", f"data.path={tmp_path}/my.csv", "data.target=label", *overrides)
    assert re.search(said, found), found


@pytest.mark.parametrize(("content", "said"), TESTS.values(), ids=TESTS)
def test_test_rows_that_do_not_fit_are_refused(tmp_path, content, said):
    write(tmp_path / "my.csv", GOOD)
    write(tmp_path / "test.csv", content)
    paths = (f"data.path={tmp_path}/my.csv", f"data.test_path={tmp_path}/test.csv")
    found = refusal("data=csv", *paths, "data.target=label")
    assert re.search(said, found), found


@pytest.mark.parametrize(("content", "overrides", "said"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_cannot_be_learned_from_are_refused(tmp_path, content, overrides, said):
    write(tmp_path / "my.npz", content)
    found = refusal("data=numpy", f"data.path={tmp_path}/my.npz", *overrides)
    assert re.search(said, found), found


def test_a_relative_path_is_said_to_be_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = refusal("data=csv", "data.path=my.csv", "data.target=label")
    assert found == f"data.path=my.csv does not exist; it was looked for in {os.getcwd()}."


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everything is readable to this user")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    write(tmp_path / "my.csv", GOOD)
    (tmp_path / "my.csv").chmod(0)
    assert "Permission denied" in refusal("data=csv", f"data.path={tmp_path}/my.csv", "data.target=label")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that nobody can read")
def test_a_file_that_cannot_be_read_is_refused():
    found = refusal("data=csv", "data.path=/proc/self/mem", "data.target=label")
    assert re.search(r"data\.path=/proc/self/mem cannot be read: .*(Input/output error|Invalid argument)", found), found


def test_credentials_in_an_address_are_not_repeated():
    found = refusal("data=csv", "data.path=nonsense://me:secret@there/x.csv?token=secret", "data.target=label")
    assert "secret" not in found
    assert "nonsense://***@there/x.csv" in found

"""What a configuration may call, and what not, by whatever detour."""

import sys

import pytest

from trialbook import allowed
from trialbook.errors import NotAllowedError, RequestError


def paths(words):
    return words.split()


PARTS = paths("""
    sklearn.linear_model.LogisticRegression  sklearn.pipeline.Pipeline  sklearn.pipeline.make_pipeline
    sklearn.compose.ColumnTransformer  sklearn.compose.make_column_selector  sklearn.datasets.load_iris
    sklearn.datasets.make_classification  sklearn.model_selection.KFold  sklearn.gaussian_process.kernels.RBF
    sklearn.feature_selection.f_classif  numpy.log1p  numpy.random.default_rng  scipy.stats.loguniform
    scipy.stats.randint  trialbook.estimator.KerasClassifier  trialbook.data.Holdout  trialbook.data.from_sklearn
    trialbook.search.sklearn.GridSearch  trialbook.executors.SerialExecutor  trialbook.models.mlp
    mine.build  mine.Net  mine.Ridge  mine_too.nets.build
""")

NO_PARTS = paths("""
    joblib.load  pandas.read_pickle  os._exit  builtins.open  builtins.eval  subprocess.run  pickle.loads  sys.exit
    importlib.import_module  functools.partial  operator.attrgetter  hydra.utils.get_method  hydra.utils.get_class
    hydra.utils.instantiate  numpy.load  numpy.save  numpy.frompyfunc  scipy.io.loadmat  scipy.stats.rv_continuous
    trialbook.data.dataset.np.load  trialbook.data.dataset.pd.read_pickle  trialbook.estimator.contextlib.ExitStack
    trialbook.model_files.load  trialbook.allowed.add  trialbook.app.run  trialbook.tracking.client
    sklearn.datasets._base.os.system  sklearn.datasets.clear_data_home  sklearn.datasets.fetch_california_housing
    sklearn.datasets.dump_svmlight_file  sklearn.set_config  sklearn.tree.export_graphviz  sklearn.pipeline.Pipeline.fit
    sklearn.base.BaseEstimator.__init_subclass__  sklearn.utils._testing.assert_run_python_script_without_output
    sklearn.utils.parallel.Parallel  mine  mine.os.system  mine.leave  mine.build.__globals__  mine.build.__class__
    mine.build.__code__.replace  mine_too.shutil.rmtree  nothing.at_all
""")


@pytest.fixture(autouse=True, name="folder")
def put_modules_of_the_users_on_the_path(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import functools, os\n"
        "from sklearn.linear_model import Ridge\n"
        "def build(): pass\n"
        "class Net: pass\n"
        "leave = functools.partial(os._exit, 3)\n"
    )
    (tmp_path / "mine_too").mkdir()  # without __init__.py, as many are
    (tmp_path / "mine_too" / "nets.py").write_text("import shutil\ndef build(): pass\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(allowed.ALLOW, raising=False)
    yield tmp_path
    for name in ("mine", "mine_too", "mine_too.nets"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", PARTS)
def test_the_parts_of_a_search_may_be_named(path):
    assert callable(allowed.locate(path, "data"))


@pytest.mark.parametrize("path", NO_PARTS)
def test_nothing_else_may(path):
    with pytest.raises(RequestError, match=r"^data=") as refused:
        allowed.locate(path, "data")
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("path", ["joblib.load", "pandas.read_pickle", "os._exit", "builtins.open", "subprocess.run"])
def test_a_refusal_says_what_is_allowed_and_how_to_allow_more(path):
    root = path.partition(".")[0]
    with pytest.raises(NotAllowedError, match=f"--allow={root} or TRIALBOOK_ALLOW={root}"):
        allowed.locate(path, "data")


def test_what_is_not_allowed_is_not_even_imported(tmp_path, monkeypatch):
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "loud.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(NotAllowedError, match=r"^builder=loud\.build is not allowed to run"):
        allowed.locate("loud.build", "builder")


def test_a_detour_is_told_by_where_it_leads():
    with pytest.raises(
        NotAllowedError, match=r"trialbook\.data\.dataset\.np\.load \(which is numpy\.load\) is not allowed"
    ):
        allowed.locate("trialbook.data.dataset.np.load", "data")


def test_every_target_of_a_part_is_judged_and_replaced_by_its_object():
    from sklearn.pipeline import Pipeline
    from sklearn.svm import SVC

    given = {"_target_": "sklearn.pipeline.Pipeline", "steps": [["svm", {"_target_": "sklearn.svm.SVC", "C": 2}]]}
    resolved = allowed.resolve("model.estimator", given)
    assert resolved == {"_target_": Pipeline, "steps": [["svm", {"_target_": SVC, "C": 2}]]}
    given["steps"][0][1] |= {"kernel": {"_target_": "os._exit", "_partial_": True}}
    with pytest.raises(NotAllowedError, match=r"^model\.estimator\.steps\.0\.1\.kernel\._target_=os\._exit "):
        allowed.resolve("model.estimator", given)


@pytest.mark.parametrize("path", [None, 3, "", ".", "..os", "sklearn.", "os system", ["os"]])
def test_a_target_that_is_no_dotted_path_is_refused(path):
    with pytest.raises(RequestError, match="must be a dotted path such as"):
        allowed.locate(path, "data")


def test_a_module_that_is_nowhere_is_told_where_it_may_be():
    with pytest.raises(RequestError, match=r"^builder=nowhere\.build cannot be found: no module nowhere is installed"):
        allowed.locate("nowhere.build", "builder")


def test_a_misspelt_path_names_the_nearest():
    with pytest.raises(RequestError, match=r"has no LogisticRegresion\. Did you mean .*\.LogisticRegression\?"):
        allowed.locate("sklearn.linear_model.LogisticRegresion", "model.estimator._target_")


def test_a_module_of_the_users_that_fails_is_told_in_one_sentence():
    with pytest.raises(RequestError, match=r"broken\.x cannot be imported: ZeroDivisionError: division by zero"):
        allowed.locate("broken.x", "builder")


def test_the_user_allows_more_by_flag_or_environment(monkeypatch):
    monkeypatch.setenv(allowed.ALLOW, "")
    allowed.add("joblib, json.decoder")
    assert allowed.locate("joblib.load", "data")
    assert allowed.locate("json.decoder.JSONDecoder", "data")
    assert allowed.flags() == ["--allow=joblib,json.decoder"]
    with pytest.raises(NotAllowedError):
        allowed.locate("json.loads", "data")
    with pytest.raises(NotAllowedError):
        allowed.locate("joblib.os.system", "data")  # not defined in joblib
    with pytest.raises(RequestError, match=r"--allow=\* must name packages or modules"):
        allowed.add("*")


def test_a_folder_of_pickles_is_no_cache(monkeypatch):
    given = {"_target_": "sklearn.pipeline.Pipeline", "steps": [], "memory": "/tmp/cache"}
    with pytest.raises(NotAllowedError, match=r"^model\.memory=/tmp/cache is a folder of pickles"):
        allowed.resolve("model", given)
    monkeypatch.setenv(allowed.ALLOW, "joblib")
    assert allowed.resolve("model", given)["memory"] == "/tmp/cache"


KERAS_PARTS = paths("""
    keras.callbacks.EarlyStopping  keras.losses.BinaryCrossentropy  keras.optimizers.Adam  keras.metrics.AUC
    keras.optimizers.schedules.ExponentialDecay  keras.losses.mean_squared_error  keras.activations.relu
    keras.regularizers.L2  keras_tuner.oracles.HyperbandOracle  keras_tuner.applications.HyperResNet
""")
NO_KERAS_PARTS = paths("""
    keras.models.load_model  keras.saving.load_model  keras.utils.get_file  keras.layers.TFSMLayer
    keras.layers.Lambda.from_config  keras.Model.from_config  keras.config.enable_unsafe_deserialization
    keras.datasets.imdb.load_data  keras.losses.deserialize  keras.activations.get  keras.utils.PyDataset
    keras_tuner.RandomSearch  tensorflow.io.read_file
""")


@pytest.mark.slow
def test_of_keras_and_keras_tuner_the_parts_of_a_search_may_be_named():
    for path in KERAS_PARTS:
        assert callable(allowed.locate(path, "model"))
    for path in NO_KERAS_PARTS:
        with pytest.raises(NotAllowedError):
            allowed.locate(path, "model")

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.layout_engine import ConstrainedLayoutEngine

from lit_core.lightning.pictures import add_figure, add_text, can_draw, curves, heat_map
from lit_core.lightning.tensorboard import add_hparams, add_layout, answers_of, flatten
from lit_core.named_parts import named_parts

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def trainer_with(*loggers):
    return Trainer(accelerator="cpu", logger=list(loggers), enable_progress_bar=False, enable_model_summary=False)


@pytest.fixture
def shown(tmp_path):
    """A trainer with TensorBoard, and a function that reads back what it wrote."""
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    trainer = trainer_with(logger)

    def read():
        logger.experiment.flush()
        events = event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0})
        return events.Reload()

    return trainer, read


def test_a_heat_map_arrives_as_an_image(shown):
    trainer, read = shown
    figure = heat_map([[1, 2, 3], [4, 5]], title="load", xlabel="expert", ylabel="layer", center=2.0)
    add_figure(trainer, "router/load", figure, 7)
    (image,) = read().Images("router/load")
    assert image.step == 7
    assert image.encoded_image_string.startswith(b"\x89PNG")
    assert figure.axes[0].images[0].get_clim() == (0.0, 4.0)


@pytest.mark.parametrize("width", [4, 12, 40])
def test_the_title_of_a_heat_map_is_not_cut_off(width, monkeypatch):
    engine = ConstrainedLayoutEngine  # which warm starts leave out
    monkeypatch.setattr(engine, "execute", getattr(engine, "fitting", engine.execute))
    title = "val/handbook_de: share of tokens per expert; white is balance"
    figure = heat_map([[0.1] * width] * 3, title=title, xlabel="expert", ylabel="layer", center=0.2)
    FigureCanvasAgg(figure).draw()
    box = figure.axes[0].title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_text_stays_plain(shown):
    trainer, read = shown
    add_text(trainer, "samples", "# not a heading\n\n* not a list", 3)
    (event,) = read().Tensors("samples/text_summary")
    assert event.step == 3
    assert event.tensor_proto.string_val[0].decode() == "    # not a heading\n    \n    * not a list"


def test_layouts_of_several_callbacks_are_merged(shown):
    trainer, read = shown
    add_layout(trainer, {"router": {"MRI": ["train/router/mri/.*"]}})
    add_layout(trainer, {"router": {"dead": ["train/router/dead/.*"]}, "forgetting": {"loss": ["val/.*"]}})
    add_layout(trainer, {"forgetting": {}}, first=True)
    from tensorboard.plugins.custom_scalar import layout_pb2

    layout = layout_pb2.Layout()
    layout.ParseFromString(read().Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    charts = {category.title: [chart.title for chart in category.chart] for category in layout.category}
    assert list(charts.items()) == [("forgetting", ["loss"]), ("router", ["MRI", "dead"])]
    assert list(layout.category[1].chart[0].multiline.tag) == ["(?:answer/)?train/router/mri/.*"]


def test_hparams_of_a_run_are_those_of_its_own_and_no_experiment_that_hides_those_of_others(shown):
    trainer, read = shown
    add_hparams(trainer, {"model": {"seed": 1, "router": "sinkhorn"}})
    events = read()
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert set(session.hparams) == {"model/seed", "model/router"}
    assert "_hparams_/experiment" not in events.summary_metadata and events.Tags()["scalars"] == []


def test_other_loggers_are_left_alone(tmp_path):
    trainer = trainer_with(CSVLogger(tmp_path, name="", version=""))
    assert not can_draw(trainer)
    add_text(trainer, "samples", "text", 0)
    add_layout(trainer, {"a": {"b": ["c"]}})
    add_hparams(trainer, {"a": 1})
    add_figure(trainer, "f", curves({"loss": ([1, 2], [3, 4])}, title="t", xlabel="x", ylabel="y"), 0)
    assert not any(tmp_path.rglob("events*"))


def test_figures_can_be_drawn_with_tensorboard(shown):
    pytest.importorskip("matplotlib")
    assert can_draw(shown[0])


def test_nested_values_become_paths():
    nested = {"decoder": {"n_layers": 2, "n_kv_heads": None}, "weights": [1, 2], "tied": True, "labels": {0: "no"}}
    assert flatten(nested) == {
        "decoder/n_layers": 2,
        "weights": "[1, 2]",
        "tied": True,
        "labels/0": "no",
    }


def test_what_answers_a_run_is_named_by_its_module_and_its_callbacks():
    class Module(LightningModule):
        answers = ("train/mine",)

    class Theirs(Callback):
        answers = ("val/theirs", "val/other")

    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", callbacks=[Callback(), Theirs()])
    trainer.strategy.connect(Module())
    assert answers_of(trainer) == ["train/mine", "val/theirs", "val/other"]


def test_classes_of_a_config_stand_by_their_names():
    callbacks = [{"class_path": "lit_moe.ReplayMixing", "init_args": {"fraction": 0.3}}]
    model = {"class_path": "lit_moe.MoELanguageModel", "init_args": {"router": {"class_path": "a.B"}}}
    assert flatten(named_parts({"model": model, "trainer": {"callbacks": callbacks}})) == {
        "model": "MoELanguageModel",
        "model/router": "B",
        "trainer/callbacks/ReplayMixing/fraction": 0.3,
    }

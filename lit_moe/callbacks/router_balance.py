"""Balance of the routers: how evenly they load their experts."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_core.errors import check_at_least
from lit_core.lightning.evaluation import EvaluationCallback, log_reduced, named_loader
from lit_core.lightning.internals import logged_step, logs_this_step
from lit_core.lightning.pictures import add_figure, can_draw, heat_map
from lit_core.lightning.tensorboard import add_layout
from lit_moe.callbacks.router_load import LayerLoad, measures, reduce_over_ranks
from lit_moe.nn import MoELayer, RouterStats, moe_layers


class RouterBalance(EvaluationCallback):
    """Logs how evenly each mixture layer loads its experts, over whole global batches and over whole sources.

    The maximum routing imbalance (MRI, Eq. 1 of `Thérien et al. 2025 <https://arxiv.org/abs/2503.05029>`_) of a layer
    is the largest share of a batch's tokens that one expert gets; it lies between k/E, its floor, and 1. In training
    the batch is that of an optimizer step: all its micro-batches on all devices. In validation and test it is the whole
    source, routed as in inference. Where a router chooses other experts in training than in inference, as
    `SinkhornRouter` does, the inference routing of the same tokens is logged as well, as ``raw_mri``.

    =================================================  ========  ==================================================
    key                                                unit      moment
    =================================================  ========  ==================================================
    ``{where}/router/mri/layer_{ii}``                  share     logged step; end of a validation or test
    ``{where}/router/mri/mean``                        share     same; mean over the layers
    ``{where}/router/load_entropy/layer_{ii}``         0 to 1    same; 1 is an even load
    ``{where}/router/dead_experts/layer_{ii}``         experts   same; experts without a token
    ``{where}/router/max_load/layer_{ii}``             ratio     same; fullest expert over the mean load
    ``{where}/router/min_load/layer_{ii}``             ratio     same; emptiest expert over the mean load
    ``train/router/mri_floor``                         share     same; k/E, mean over the layers
    ``{stage}/router/mri_floor``                       share     same
    ``train/router/raw_mri/layer_{ii}``                share     logged step; routers that differ in training
    ``train/router/raw_mri/mean``                      share     same; mean over these layers
    ``train/router/balance_loss/layer_{ii}``           nats      same; as added to the loss, mean over micro-batches
    ``train/router/raw_balance_loss/layer_{ii}``       1         same; before its weight, any router; 1 is balance
    ``train/router/z_loss/layer_{ii}``                 nats      same; as added to the loss, mean over micro-batches
    ``train/router/raw_z_loss/layer_{ii}``             nats²     same; before its weight, any router
    ``train/router/bias_range/layer_{ii}``             score     same; largest less smallest bias that a step moves
    ``{where}/router/load`` (image)                    share     see `heat_map_every`; each validation and test
    =================================================  ========  ==================================================

    ``{stage}`` is ``val`` or ``test``, ``{where}`` is ``train`` or ``{stage}/{source}``. Losses that a router does not
    have are not logged. Works on any LightningModule that contains `lit_moe.nn.MoEFeedForward` layers, mixtures of
    transformers, or gates named by `lit_moe.nn.watch_gates`. A layer should run once per step.

    Args:
        heat_map_every: Logged steps between two heat maps of the load, layer by expert; 0 draws none in training.
    """

    answers = ("train/router/mri/mean",)

    def __init__(self, heat_map_every: int = 20) -> None:
        check_at_least(0, heat_map_every=heat_map_every)
        self.heat_map_every = heat_map_every
        self._layers: dict[str, MoELayer] = {}
        self._counted: dict[str, RouterStats] = {}
        self._window: list[LayerLoad] = []
        self._sources: dict[int, list[LayerLoad]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the mixture layers."""
        self._layers = moe_layers(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with an empty window, without the sanity check, as a resumed run begins at an optimizer step."""
        self._window = self._empty()
        self._counted = {name: layer.stats for name, layer in self._layers.items() if layer.stats is not None}
        layout = {
            "MRI": ["train/router/mri/mean", "train/router/mri_floor"],
            "MRI by layer": ["train/router/mri/layer_.*"],
            "MRI by source": ["val/.*/router/mri/mean", "val/router/mri_floor"],
            "load entropy": ["train/router/load_entropy.*"],
        }
        if any(layer.router.differs_in_training for layer in self._layers.values()):
            layout["MRI of the inference routing"] = ["train/router/raw_mri.*"]
        add_layout(trainer, {"Do the routers balance?": layout})

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Count a micro-batch before the backward pass, in which activation checkpointing runs the layers again."""
        self._count(self._window)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the optimizer step's global batch."""
        window, self._window = self._window, self._empty()
        if not any(load.batches for load in window) or not logs_this_step(trainer):
            return  # the second optimizer of a module that steps several after one forward pass has nothing new
        reduce_over_ranks(trainer, window)
        floor = {"train/router/mri_floor": self._floor()}
        pl_module.log_dict(measures(window, "train", training=True) | floor | self._bias_ranges())
        logged = (trainer.global_step + 1) // max(1, trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if self.heat_map_every and logged % self.heat_map_every == 0:
            self._draw(trainer, "train", window, trainer.global_step)

    def start_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the loads of each source."""
        self._sources = {}

    def evaluate_batch(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any, dataloader_idx: int
    ) -> None:
        """Count a batch of a source."""
        self._count(self._sources.setdefault(dataloader_idx, self._empty()))

    def end_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log each source."""
        if not self._layers:
            return
        reduce_over_ranks(trainer, [load for loads in self._sources.values() for load in loads])
        for dataloader_idx, loads in self._sources.items():
            where = f"{stage}/{named_loader(trainer, stage, dataloader_idx)}"
            log_reduced(pl_module, measures(loads, where, training=False))
            self._draw(trainer, where, loads, logged_step(trainer))
        log_reduced(pl_module, {f"{stage}/router/mri_floor": self._floor()})

    def _empty(self) -> list[LayerLoad]:
        routers = [layer.router for layer in self._layers.values()]
        return [LayerLoad(router.n_experts, router.differs_in_training) for router in routers]

    def _count(self, loads: list[LayerLoad]) -> None:
        for load, (name, layer) in zip(loads, self._layers.items(), strict=True):
            # a layer that was not run since still has its former statistics
            if layer.stats is not None and layer.stats is not self._counted.get(name):
                self._counted[name] = layer.stats
                load.add(layer.stats)

    def _floor(self) -> float:
        layers = self._layers.values()
        return sum(layer.router.top_k / layer.router.n_experts for layer in layers) / len(layers)

    def _bias_ranges(self) -> dict[str, float]:
        biases = {index: layer.router.moved_bias for index, layer in enumerate(self._layers.values())}
        return {
            f"train/router/bias_range/layer_{index:02d}": float(bias.max() - bias.min())
            for index, bias in biases.items()
            if bias is not None
        }

    def _draw(self, trainer: Trainer, where: str, loads: list[LayerLoad], step: int) -> None:
        if not can_draw(trainer):
            return
        figure = heat_map(
            [load.shares() for load in loads],
            title=f"{where}: share of tokens per expert; white is balance",
            xlabel="expert",
            ylabel="layer",
            center=self._floor(),
        )
        add_figure(trainer, f"{where}/router/load", figure, step)

"""The language model as a LightningModule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lit_core.errors import UserError
from lit_core.field_types import as_dataclass
from lit_core.lightning.evaluation import named_loader
from lit_core.lightning.internals import logs_this_step, trainer_of
from lit_core.lightning.later_weights import come_later, make_room, parameters_on_meta
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable, build_optimizers, parameter_names
from lit_core.lightning.parts import check_factors, learning_rate_factors
from lit_core.lightning.parts import freeze as freeze_parts
from lit_core.lightning.step_logging import ratio, sum_on_device, sum_over_ranks
from lit_core.lightning.task import EvaluationTask
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import rank_zero_warn
from lit_core.seeds import part_seed
from lit_moe.functional.token_nll import IGNORED, token_nll
from lit_moe.meter import TrainingMeter
from lit_moe.metrics import BitsPerByte, TokenLoss
from lit_moe.nn import (
    AdapterConfig,
    Decoder,
    DecoderConfig,
    HFConfig,
    HFDecoder,
    RouterCallable,
    SinkhornRouter,
    add_adapters,
    auxiliary_losses,
    merge_adapters,
    step_routers,
)
from lit_moe.nn.adapters import is_of_adapter, without_adapters
from lit_moe.nn.function_arguments import function_arguments
from lit_moe.nn.hf_config import refuse_unused
from lit_moe.parallel.sharding import clip_gradients, gradient_norm, is_sharded, shard
from lit_moe.parallel.strategy import ShardedStrategy

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn?": "`val/{source}/bits_per_byte` falls; `train/loss`, in nats per token, too.",
    "Does it forget?": "Where the callback Forgetting compares: `val/{source}/forgetting` of old data is 0 as "
    "before the shift and rises with what is lost; `val/{source}/adaptation` rises with what is learnt.",
    "Do the routers balance?": "Where the callback RouterBalance counts: `train/router/mri/mean` is near "
    "`train/router/mri_floor`; the pictures `router/load` show how full each expert is.",
}


def adamw(params: Iterable[Any]) -> Optimizer:
    """Return AdamW as Thérien et al. 2025 set it: learning rate 3e-4, betas 0.9 and 0.95, weight decay 0.1."""
    return AdamW(params, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)


class MoELanguageModel(EvaluationTask):
    """Pre-trains a decoder, dense or with a mixture of experts, to predict the next token.

    The loss of an optimizer step is the mean, over its scored tokens, of their negative log-likelihood and of the
    routers' auxiliary losses in their micro-batch. So several devices train as one that accumulates the same
    micro-batches, and micro-batches that score few tokens count little. Weight decay applies to weight matrices and
    embeddings, not to norms and biases. The learning-rate schedule steps with the optimizer.

    ===================================  =============  ====================================================
    key                                  unit           moment
    ===================================  =============  ====================================================
    ``train/loss``                       nats/token     logged step; mean over its whole global batch
    ``train/auxiliary_loss``             nats/token     same; sum over the layers of the scaled router losses
    ``train/bits_per_byte``              bits/byte      same; where the data module has a tokenizer
    ``train/learning_rate``              1              same; the rate of this step
    ``train/gradient_norm``              1              same; before clipping
    ``train/tokens``                     tokens         same; of this run, not of one that it branched from
    ``train/flops``                      operations     same; of this run; model FLOPs, backward = 2 × forward
    ``train/tokens_per_second``          tokens/s       same; since the last logged step, validation left out
    ``{stage}/{source}/loss``            nats/token     end of a validation or test, whole source
    ``{stage}/{source}/bits_per_byte``   bits/byte      same; NaN if a token stands for unknown text
    ===================================  =============  ====================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the loader. Batches are mappings with ``input_ids`` and
    ``labels`` of shape ``(batch, length)``; labels of -100 are not scored, in evaluation they are not routed either.

    Args:
        decoder: Architecture of the network; in Python also a mapping with its fields.
        router: Class that makes the router of each mixture layer from the number of experts and of selected experts.
        optimizer: Class and arguments of the optimizer; its weight decay spares norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None keeps the
            rate constant.
        seed: Seed of the initial weights, 0 or more; None takes that of the run. Refused where all weights are read.
        hugging_face: Model of Hugging Face's transformers instead of the decoder and its routers, which are refused
            beside it; of the decoder only vocab_size is used. None for none.
        freeze: Parts that are not trained: dotted parts of parameters' names, such as gate or layers.0.*, where a star
            stands for anything; null trains all.
        lr_factors: Factors of the learning rate above 0, by parts as in freeze, such as gate at 0.1; the last one that
            names a parameter counts. Null for none.
        adapter: Low-rank adapters, which alone are trained; null trains the weights themselves.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        router: RouterCallable = lambda n_experts, top_k: SinkhornRouter(n_experts, top_k),
        optimizer: OptimizerCallable = adamw,
        scheduler: SchedulerCallable | None = None,
        seed: int | None = None,
        hugging_face: HFConfig | None = None,
        freeze: list[str] | None = None,
        lr_factors: dict[str, float] | None = None,
        adapter: AdapterConfig | None = None,
    ) -> None:
        super().__init__()
        check_factors(lr_factors or {})
        decoder = as_dataclass(DecoderConfig, decoder, "decoder")
        hugging_face = as_dataclass(HFConfig, hugging_face, "hugging_face")
        self.adapter: AdapterConfig | None = as_dataclass(AdapterConfig, adapter, "adapter")
        if hugging_face is not None:
            drawn = None if self.adapter is not None else seed
            refuse_unused(hugging_face, decoder, router, _default_router(), drawn)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.meter = TrainingMeter()
        self.tokenizer: Tokenizer | None = None
        self.companions: dict[str, str] = {}  # files of the Hugging Face model that the weights began with, by name
        self._byte_lengths: Tensor | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(part_seed(seed))
            self.decoder: Decoder | HFDecoder
            if hugging_face is None:
                with parameters_on_meta() if come_later() else nullcontext():
                    self.decoder = Decoder(decoder, router)
            else:
                self.decoder = HFDecoder(hugging_face, decoder.vocab_size)
            if self.adapter is not None:
                add_adapters(self._network, self.adapter)
                if isinstance(self.decoder, HFDecoder):
                    self.decoder.check_adapters()
        self.config: Any = self.decoder.config
        freeze_parts(self, freeze or [])
        learning_rate_factors(self, lr_factors or {})
        self.lr_factors = lr_factors

    @property
    def _network(self) -> torch.nn.Module:
        return self.decoder.model if isinstance(self.decoder, HFDecoder) else self.decoder

    def merge_adapters(self) -> None:
        """Add the adapters to the weights and remove them, in place."""
        if self.adapter is not None:
            merge_adapters(self._network)
            self.adapter = None

    @property
    def answers(self) -> list[str]:  # type: ignore[override]
        """Patterns of the keys that come first."""
        return ["train/loss", f"val/[^/]+/{self._metric_names[-1]}"]

    @property
    def train_tokens(self) -> int:
        """Tokens of this run's finished optimizer steps, over all devices and resumes; a branch counts from 0."""
        return self.meter.tokens(self.trainer.global_step)

    @property
    def train_flops(self) -> float:
        """Floating-point operations spent on `train_tokens`, forward and backward."""
        return self.meter.flops(self.trainer.global_step)

    @property
    def main_parts(self) -> list[nn.Module]:
        """The layers of the decoder, in order."""
        return list(self.decoder.layers)

    def setup(self, stage: str) -> None:
        """Take the tokenizer from the data module, where it has one."""
        tokenizer = getattr(getattr(self.trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is None:
            return
        if isinstance(self.decoder, HFDecoder):
            self.decoder.check_tokenizer(tokenizer)
        elif tokenizer.vocab_size > self.config.vocab_size:
            raise UserError(
                f"`decoder.vocab_size` is {self.config.vocab_size}, but the data's tokenizer has "
                f"{tokenizer.vocab_size} tokens; give at least as many."
            )
        self.tokenizer = tokenizer
        lengths = torch.zeros(self.config.vocab_size, dtype=torch.float32)
        try:
            lengths[: tokenizer.vocab_size] = torch.from_numpy(tokenizer.byte_lengths())
        except UserError as error:
            rank_zero_warn(f"Bits per byte are not logged: {error}")
        else:
            self._byte_lengths = lengths  # no buffer: DDP would broadcast it at each forward

    def configure_model(self) -> None:
        """Divide the weights over the devices if the strategy is a `ShardedStrategy`; read those that come later."""
        if self.device_mesh is None or is_sharded(self.decoder):
            return
        if not isinstance(self.trainer.strategy, ShardedStrategy):
            raise UserError(
                f"`trainer.strategy` is {type(self.trainer.strategy).__name__}, which would divide no experts and "
                "average no gradients; set it to lit_moe.ShardedStrategy."
            )
        data: Any = getattr(self.trainer, "datamodule", None)
        if isinstance(self.decoder, HFDecoder) and getattr(data, "document_mask", False):
            self.decoder.separate_documents(data.sequence_length)
        if self.adapter is not None:
            raise UserError(
                "`adapter` is given, but a sharded strategy divides whole layers, which adapters split; train them "
                "with trainer.strategy ddp."
            )
        if isinstance(self.decoder, HFDecoder):
            self.decoder.check_sharded(str(self.trainer.precision))
        shard(self.decoder, self.device_mesh, str(self.trainer.precision))
        device = self.trainer.strategy.root_device
        if isinstance(self.decoder, HFDecoder):
            self.decoder.read_weights(device)
        make_room(self.decoder, device)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm over all devices, also if experts are divided differently from other weights.

        Lightning's own clipping refuses fused optimizers under any mixed precision, though only a scaler, which
        bfloat16 does not need, keeps the gradients from being what they are.
        """
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if gradient_clip_val and gradient_clip_algorithm != "value" and not scaled:
            clip_gradients(self.parameters(), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, over two groups with and without weight decay, and its schedule."""
        return build_optimizers(self, self.optimizer, self.scheduler, self.lr_factors)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits of the next token.

        Args:
            input_ids: Token ids of shape ``(batch, length)``.

        Returns:
            Logits of shape ``(batch, length, vocabulary)``.
        """
        logits: Tensor = self.decoder(input_ids)
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch, which holds no padding."""
        nll, scored = self._nll(batch, routed=None)
        n_scored, auxiliary = scored.sum(), auxiliary_losses(self.decoder)
        loss = nll.sum() / n_scored.clamp(min=1)
        window, tokens = self.meter.window, batch["input_ids"].numel()
        window.scored.append(n_scored)
        window.auxiliary.append(auxiliary.detach() * n_scored)
        window.nats.append(nll.detach().sum())
        window.text_bytes.append(self._bytes(batch["labels"], scored).sum())
        window.tokens += tokens
        window.flops += 3.0 * tokens * self.decoder.flops_per_token(batch["input_ids"].shape[1])
        return self.step_loss(loss + auxiliary, n_scored)

    def routing_step(self, batch: dict[str, Tensor]) -> Tensor:
        """Run the mixture layers on a batch as an evaluation does; `RouterDrift` compares two models by it.

        Args:
            batch: A batch as in an evaluation.

        Returns:
            True for the tokens that were routed, shape ``(batch, length)``.
        """
        routed = _routed(batch)
        self._hidden(batch, routed)
        return routed

    def on_train_start(self) -> None:
        """Start the clock and fill the HPARAMS page; a branched run counts from 0."""
        super().on_train_start()
        if self.global_step == 0:
            self.meter = TrainingMeter()
        self.meter.start_clock(self.global_step)
        if isinstance(self.decoder, HFDecoder):
            self.decoder.say_frozen()
        self.show_run(
            {"Does it learn?": {"bits per byte": ["val/[^/]*/bits_per_byte"], "training loss": ["train/loss"]}},
            _LOOK_AT,
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """End the routers' step, and log the means over the step's whole global batch."""
        step_routers(self.decoder)
        window = self.meter.close(self.global_step, partial(sum_on_device, self.trainer))
        if not logs_this_step(self.trainer):
            return
        scored, auxiliary, nats, text_bytes = sum_over_ranks(self.trainer, window.sums()).tolist()
        tokens, flops = self.meter.tokens(self.global_step + 1), self.meter.flops(self.global_step + 1)
        values: dict[str, float | Tensor] = {
            "train/auxiliary_loss": ratio(auxiliary, scored),
            "train/learning_rate": float(optimizer.param_groups[0]["lr"]),
            "train/gradient_norm": gradient_norm(self.parameters()),
            "train/tokens": float(tokens),
            "train/flops": flops,
        }
        if text_bytes > 0:  # not without a tokenizer, and not if a token stands for unknown text
            values["train/bits_per_byte"] = nats / text_bytes / math.log(2)
        self.log_dict(values)
        self.log("train/loss", ratio(nats, scored), prog_bar=True)
        self.log("train/tokens_per_second", self.meter.lap(tokens), prog_bar=True)

    def on_validation_start(self) -> None:
        """Stop the clock, so that the speed does not include validation."""
        self.meter.pause_clock()

    def on_validation_end(self) -> None:
        """Start the clock again."""
        self.meter.resume_clock()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counts, the tokenizer and the names of parameters to the checkpoint, as plain values."""
        checkpoint["training_meter"] = self.meter.state_dict(int(checkpoint["global_step"]))
        if self.tokenizer is not None:
            tokenizer = self.tokenizer
            about = {"json": tokenizer.to_json(), "sha256": tokenizer.sha256, "start": list(tokenizer.start)}
            checkpoint["tokenizer"] = about
        if self.companions:
            checkpoint["companions"] = self.companions
        if isinstance(self.decoder, HFDecoder) and "hyper_parameters" in checkpoint:
            # the folder that the run began with need not be there any more
            checkpoint["hyper_parameters"]["hugging_face"] = self.decoder.describe()
        checkpoint["optimizer_param_names"] = parameter_names(self, self.trainer.optimizers)
        super().on_save_checkpoint(checkpoint)  # at the end, since it signs what the checkpoint describes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts, and check that the weights were trained in this network, on the data's tokenizer."""
        super().on_load_checkpoint(checkpoint)
        if "training_meter" in checkpoint:
            self.meter.load_state_dict(checkpoint["training_meter"])
        self.companions = dict(checkpoint.get("companions", {}))
        theirs, mine = checkpoint.get("tokenizer"), self._data_tokenizer()
        if theirs and mine is not None and mine.sha256 != theirs["sha256"]:
            raise UserError(
                f"The checkpoint was trained with the tokenizer {theirs['sha256'][:12]}, but `data.root` was prepared "
                f"with {mine.sha256[:12]}; prepare the data with the checkpoint's tokenizer."
            )

        if theirs and mine is not None and (start := tuple(theirs.get("start", ()))) != mine.start:
            rank_zero_warn(
                f"The checkpoint's documents begin with the tokens {list(start)}, but those of `data.root` with "
                f"{list(mine.start)}, each [] standing for none; prepare the data again, or keep to it to train on "
                "texts that begin so from now on."
            )

    def weights_to_start_from(self, state: dict[str, Tensor], subject: str) -> dict[str, Tensor]:
        """Return the weights of a checkpoint; of one without adapters, with new adapters where this module has some.

        Args:
            state: Tensors of the checkpoint by name.
            subject: Start of an error message: the argument and its value.

        Raises:
            UserError: If the checkpoint has adapters and this module has none.
        """
        theirs = any(map(is_of_adapter, state))
        if theirs and self.adapter is None:
            raise UserError(
                f"{subject}, whose weights have adapters, but `adapter` is null; keep the checkpoint's `adapter`, or "
                "merge them by lit-moe export and start from what it writes."
            )
        if theirs or self.adapter is None:
            return state
        plain = {without_adapters(name): name for name in self.state_dict() if not is_of_adapter(name)}
        new = {name: weight for name, weight in self.state_dict().items() if is_of_adapter(name)}
        return {plain.get(name, name): weight for name, weight in state.items()} | new

    def plain_arguments(self) -> dict[str, Any]:
        """Return the arguments of the constructor as a checkpoint has them."""
        theirs = self.decoder.describe() if isinstance(self.decoder, HFDecoder) else None
        return {**super().plain_arguments(), "hugging_face": theirs}

    def function_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of decoder, router and adapters that count; see the base class."""
        return function_arguments(arguments)

    def _data_tokenizer(self) -> Tokenizer | None:
        return getattr(getattr(trainer_of(self), "datamodule", None), "tokenizer", None)

    def _hidden(self, batch: dict[str, Tensor], routed: Tensor | None) -> Tensor:
        mask = None if routed is None or bool(routed.all()) else routed
        return self.decoder.hidden(batch["input_ids"], mask=mask, document_ids=batch.get("document_ids"))

    def _nll(self, batch: dict[str, Tensor], routed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the nats of each token, and True where a token is scored, both of the shape of the labels."""
        labels, hidden = batch["labels"], self._hidden(batch, routed)
        return token_nll(hidden, labels, self.decoder.head, self.config.vocab_size), labels != IGNORED

    def _bytes(self, labels: Tensor, scored: Tensor) -> Tensor:
        """Return the UTF-8 length of each scored token, NaN where it is unknown; zeros without a tokenizer."""
        if self._byte_lengths is None:
            return torch.zeros_like(labels)
        self._byte_lengths = self._byte_lengths.to(labels.device)
        return self._byte_lengths[labels.clamp(min=0)].masked_fill(~scored, 0)

    @property
    def _metric_names(self) -> list[str]:
        return ["loss"] if self._byte_lengths is None else ["loss", "bits_per_byte"]

    def evaluate_batch(self, stage: str, batch: dict[str, Tensor], dataloader_idx: int) -> None:
        """Score a batch and log the metrics of its source.

        They are logged with each batch, since `Forgetting` reads them in its ``on_validation_epoch_end``, which
        Lightning calls before the module's.
        """
        nll, scored = self._nll(batch, _routed(batch))
        source = named_loader(self.trainer, stage, dataloader_idx)
        for name in self._metric_names:
            kind = TokenLoss if name == "loss" else BitsPerByte
            attribute, metric = self.source_metric(stage, dataloader_idx, kind, name)
            metric.update(nll, scored if name == "loss" else self._bytes(batch["labels"], scored))
            self.log(
                f"{stage}/{source}/{name}",
                metric,
                on_step=False,
                on_epoch=True,
                add_dataloader_idx=False,
                metric_attribute=f"metrics.{attribute}",
            )


def _routed(batch: dict[str, Tensor]) -> Tensor:
    """Return True for the tokens of an evaluation batch that are not padding, which follows the last scored token."""
    return (batch["labels"] != IGNORED).flip(1).cumsum(1).flip(1) > 0


def _default_router() -> RouterCallable:
    default: RouterCallable = inspect.signature(MoELanguageModel).parameters["router"].default
    return default

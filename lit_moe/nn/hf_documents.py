"""Documents and padding of a row kept apart in any causal language model of transformers.

Shape suffixes: B batch, S sequence, D width, R rows and L tokens of another layout of the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError
from lit_core.lm.influence import Trial
from lit_core.screen import rank_zero_warn
from lit_moe.nn.feed_forward import moe_layers
from lit_moe.nn.gates import padding_of

#: Rows with several documents and padding on both sides, -1 being padding, for the trial of documents.
_DOCUMENTS = ((0, 0, 0, 1, 1, 1, 2, 2, 2, -1), (-1, -1, 0, 0, 0, 1, 1, 1, 1, 1))
#: Rows of one document with padding on either side, for the trial of padding.
_PADDED = ((0, 0, 0, 0, 0, -1, -1), (-1, -1, -1, 0, 0, 0, 0), (-1, 0, 0, 0, 0, 0, -1))
#: Tokens of a row up to which these rows are trial enough.
_SHORT = 16


class Documents:
    """Calls a model so that neither another document of the row nor padding influences a token.

    Models of transformers differ in what keeps tokens apart: many need no more than positions that restart with each
    document, some take a mask for each kind of layer, and layers that carry a state along the row take neither. So the
    ways are tried, in this order, when documents or padding first come, and the first that passes a `Trial` is taken,
    on short rows and on one as long as those in use:

    1. positions that restart at each document (of padding, a mask of tokens),
    2. the same and a mask for each kind of layer,
    3. all documents in one row, with their lengths, if the model uses flash attention,
    4. each document in a row of its own, with padding behind it.

    Args:
        model: A causal language model of transformers.
        network: What of it is called, which returns states or, of the whole model, logits.
    """

    def __init__(self, model: Any, network: Any) -> None:
        self._model, self._network = model, network
        self._ways: dict[tuple[Any, ...], tuple[int, Way]] = {}  # with the longest row that it was tried on

    def states(self, ids_BS: Tensor, mask_BS: Tensor | None, document_BS: Tensor | None) -> Tensor:
        """Return the states, ``(batch, sequence, width)``; the arguments are those of `HFDecoder.hidden`."""
        if mask_BS is None and document_BS is None:
            return self._call(input_ids=ids_BS)
        way = self._way(document_BS is not None, ids_BS.shape[1])
        if document_BS is None:
            document_BS = torch.zeros_like(ids_BS)
        return way(self, ids_BS, document_BS if mask_BS is None else document_BS.where(mask_BS, -1))

    def way(self, documents: bool, length: int = _SHORT) -> str:
        """Return the name of the way that is taken for documents, or for padding alone; try the ways now if need be.

        A network that is divided over devices cannot be tried. It keeps the way that was taken before, or else runs
        each document in a row of its own.

        Args:
            documents: Whether a row has several documents, beside padding.
            length: Tokens of a row.
        """
        return self._way(documents, length).__name__.strip("_")

    def tried_on(self, model: Any, network: Any, length: int) -> None:
        """Take the way that a small copy of a model without weights takes for documents.

        Args:
            model: The copy.
            network: What of it is called.
            length: Tokens of a row.
        """
        copy = Documents(model, network)
        copy.way(documents=True, length=length)
        self._ways = copy._ways

    def _call(self, **inputs: Any) -> Tensor:
        output = self._network(use_cache=False, **inputs)
        states: Tensor = output.logits if self._network is self._model else output.last_hidden_state
        return states

    def _way(self, documents: bool, length: int) -> Way:
        weight = self._model.get_input_embeddings().weight
        if isinstance(weight, DTensor):
            return next((way for key, (_, way) in self._ways.items() if key[0] is documents), _rows)
        kind = weight.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        attention = getattr(self._model.config, "_attn_implementation", None)
        key = (documents, kind, weight.dtype, autocast, attention)
        tried, way = self._ways.get(key, (0, _rows))
        if length > tried and (way is not _rows or not tried):
            tried = max(_SHORT, 1 << (length - 1).bit_length())
            self._ways[key] = tried, self._tried(documents, str(attention), tried)
            if documents and self._ways[key][1] is _rows:
                self._warn()
        return self._ways[key][1]

    def _tried(self, documents: bool, attention: str, length: int) -> Way:
        layout_BS = torch.tensor(_DOCUMENTS if documents else _PADDED)
        try:
            trial = self._trial(layout_BS)
        except Exception:  # a model that cannot run here, such as flash attention on a CPU
            return _rows
        first = [_positions, _masks] if documents else [_token_mask]
        for way in [*first, *([_one_row] if "flash" in attention else [])]:
            try:
                if self._passes(trial, way, layout_BS) and self._passes_long(way, documents, length):
                    return way
            except Exception:  # whatever a model raises that does not take such arguments
                continue
        if trial.contradicts(lambda ids: _rows(self, ids, layout_BS.to(ids.device))):
            raise UserError(self._refusal(documents))
        return _rows

    def _trial(self, layout_BS: Tensor, gradients: bool = True) -> Trial:
        shape = (len(layout_BS), layout_BS.shape[1])
        return Trial(self._model, lambda ids: self._call(input_ids=ids), _pieces(layout_BS), shape, gradients)

    def _passes(self, trial: Trial, way: Way, layout_BS: Tensor) -> bool:
        return trial.separates(lambda ids: way(self, ids, layout_BS.to(ids.device)))

    def _passes_long(self, way: Way, documents: bool, length: int) -> bool:
        """Try a row that is as long as those in use: past windows, chunks, and lengths that rescale attention."""
        longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or length
        length = min(length, longest)
        if length <= _SHORT:
            return True
        layout_BS = torch.zeros(1, length, dtype=torch.long)
        if documents:
            layout_BS[:, length // 3 :] = 1
        else:
            layout_BS[:, : length // 3] = -1
        return self._passes(self._trial(layout_BS, gradients=False), way, layout_BS)

    def _warn(self) -> None:
        rank_zero_warn(
            f"{type(self._model).__name__} has layers that do not tell the documents of a row apart, so each document "
            "is run in a row of its own, as long as the longest; where documents differ much in length this takes more "
            "time and memory, and a smaller micro-batch needs less."
        )

    def _refusal(self, documents: bool) -> str:
        name = type(self._model).__name__
        if not documents:
            return (
                f"{name} lets padding influence the tokens of a text, however it is told of it; "
                "give sequences of one length, and no padding."
            )
        return (
            f"`document_mask` is true, but {name} lets a token see other documents of its row, however it is called; "
            "set `data.init_args.document_mask` to false."
        )

    def _rearranged(self, ids_BS: Tensor, index_RL: Tensor, **inputs: Any) -> Tensor:
        """Run tokens in another layout, and return their states in the layout of the ids; padding's are 0.

        Args:
            ids_BS: Token ids.
            index_RL: Position of each token in the flattened ids; -1 for padding.
            inputs: Further arguments of the model.
        """
        real_RL = index_RL >= 0
        padding_of(self._model.base_model).tell(None if bool(real_RL.all()) else real_RL)
        states_RLD = self._call(input_ids=ids_BS.flatten()[index_RL.clamp(min=0)].where(real_RL, 0), **inputs)
        flat_TD = states_RLD.new_zeros(ids_BS.numel(), states_RLD.shape[-1])
        flat_TD = flat_TD.index_copy(0, index_RL[real_RL], states_RLD[real_RL])
        self._restore_order(index_RL, ids_BS.numel())
        return flat_TD.view(*ids_BS.shape, -1)

    def _restore_order(self, index_RL: Tensor, tokens: int) -> None:
        """Sort the experts that the gates have noted into the order of the ids, in which models are compared."""
        real_RL = index_RL >= 0
        places_T = index_RL.new_zeros(tokens)
        places_T[index_RL[real_RL]] = real_RL.flatten().nonzero()[:, 0]
        for layer in moe_layers(self._model).values():
            if layer.stats is not None and len(layer.stats.indices) == index_RL.numel():
                layer.stats = replace(layer.stats, indices=layer.stats.indices[places_T])


Way = Callable[[Documents, Tensor, Tensor], Tensor]
"""Runs token ids, given the document of each token, -1 for padding; all of shape ``(batch, sequence)``."""


def _token_mask(documents: Documents, ids_BS: Tensor, document_BS: Tensor) -> Tensor:
    mask_BS = (document_BS >= 0).long()
    return documents._call(input_ids=ids_BS, attention_mask=mask_BS, position_ids=(mask_BS.cumsum(1) - 1).clamp(min=0))


def _positions(documents: Documents, ids_BS: Tensor, document_BS: Tensor) -> Tensor:
    # transformers keeps attention within documents where positions restart at 0 and there is no mask
    _tell(documents, document_BS)
    return documents._call(input_ids=ids_BS, position_ids=positions(document_BS))


def _masks(documents: Documents, ids_BS: Tensor, document_BS: Tensor) -> Tensor:
    from transformers.masking_utils import create_masks_for_generate

    model = documents._model
    create = getattr(model, "create_masks_for_generate", create_masks_for_generate)
    weight, position_BS = model.get_input_embeddings().weight, positions(document_BS)
    masks = create(
        config=model.config,
        inputs_embeds=torch.empty(*ids_BS.shape, 1, dtype=weight.dtype, device=ids_BS.device),
        attention_mask=None,
        past_key_values=None,
        position_ids=position_BS,
    )
    _tell(documents, document_BS)
    return documents._call(input_ids=ids_BS, position_ids=position_BS, attention_mask=masks)


def _one_row(documents: Documents, ids_BS: Tensor, document_BS: Tensor) -> Tensor:
    position_BS, real_BS = positions(document_BS), document_BS >= 0
    position_1T = position_BS[real_BS][None]
    first = (position_1T[0] == 0).nonzero()[:, 0]
    end = first.new_tensor([position_1T.shape[1]])
    bounds = torch.cat((first, end)).int()
    longest = int(bounds.diff().max())
    return documents._rearranged(
        ids_BS,
        real_BS.flatten().nonzero()[:, 0][None],
        position_ids=position_1T,
        cu_seq_lens_q=bounds,
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
        seq_idx=((position_1T == 0).cumsum(1) - 1).int(),
    )


def _rows(documents: Documents, ids_BS: Tensor, document_BS: Tensor) -> Tensor:
    position_BS, real_BS = positions(document_BS), document_BS >= 0
    position_T = position_BS[real_BS]
    row_T = (position_T == 0).cumsum(0) - 1
    index_RL = position_T.new_full((int(row_T[-1]) + 1, int(position_T.max()) + 1), -1)
    index_RL[row_T, position_T] = real_BS.flatten().nonzero()[:, 0]
    return documents._rearranged(ids_BS, index_RL)


def _tell(documents: Documents, document_BS: Tensor) -> None:
    real_BS = document_BS >= 0
    padding_of(documents._model.base_model).tell(None if bool(real_BS.all()) else real_BS)


def positions(document_BS: Tensor) -> Tensor:
    """Return the position of each token in its document, shape ``(batch, sequence)``.

    Args:
        document_BS: Index of the document that each token belongs to.
    """
    position_S = torch.arange(document_BS.shape[1], device=document_BS.device)
    first_BS = torch.ones_like(document_BS, dtype=torch.bool)
    first_BS[:, 1:] = document_BS[:, 1:] != document_BS[:, :-1]
    return position_S - (position_S * first_BS).cummax(1).values


def _pieces(layout_BS: Tensor) -> list[tuple[int, int, int]]:
    pieces = []
    for row, line in enumerate(layout_BS.tolist()):
        for document in sorted(set(line) - {-1}):
            start = line.index(document)
            pieces.append((row, start, start + line.count(document)))
    return pieces

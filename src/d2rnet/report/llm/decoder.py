"""A frozen causal language model with LoRA adapters: reads visual tokens before a prompt and writes the report behind it.

Source: LoRA (Hu et al., ICLR 2022) by the package peft; the released code of arXiv 2603.04878 decodes with LLaMA-2-7B so.
Adapters alone are trained and stand in the state dict: the base model belongs to whoever gave it, and is gigabytes.

Sequence: start token, visual tokens, prompt, report. Padding among the visual tokens is masked, and places are counted without
it, here and in the search of transformers, so that an entry of a batch is the entry alone.

Shapes: B entries, L visual tokens (padded), P pieces of the prompt, V pieces of the base model, D its width, T report tokens,
W = V + 4 ids of :mod:`d2rnet.report.llm.tokens`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.report.decoder.beam_search import Decoded, SearchOptions
from d2rnet.report.llm.base import EXTRA, load_base, load_tokenizer
from d2rnet.report.llm.tokens import OFFSET
from d2rnet.report.optional_packages import optional_package
from d2rnet.report.settings import LlmSettings
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


class LlmDecoder(nn.Module):
    """Visual tokens in, logits of a report's tokens out.

    Attributes:
        llm: the base model, frozen, its adapters in it.
        d_model: D.
        frozen: names of what the base model brought, which no state dict of this module holds.
    """

    prompt: Tensor

    def __init__(self, settings: LlmSettings) -> None:
        """Load the base model and put adapters of no effect into it.

        Raises:
            ConfigError: a package is missing, the prompt is empty, or the model has no layers of these names.
            CheckpointError: the folder holds no causal language model.
        """
        super().__init__()
        place = f"{settings.place}.weights"
        folder = settings.weights or ""
        tokenizer = load_tokenizer(folder, place=place)
        llm = load_base(folder, dtype=DTYPES[settings.dtype], place=place)
        embedding = llm.get_input_embeddings()
        if len(tokenizer) > embedding.num_embeddings:
            raise CheckpointError(
                f"{place}: {folder}: the tokenizer has {len(tokenizer)} pieces, the model {embedding.num_embeddings}. Put the "
                "tokenizer of this model beside it."
            )
        self.llm = add_adapters(llm, settings)
        self.d_model: int = embedding.embedding_dim
        self.end: int = tokenizer.eos_token_id
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        prompt = tokenizer(settings.prompt, add_special_tokens=False)["input_ids"]
        if not prompt:
            raise ConfigError(f"{settings.place}.prompt: got {settings.prompt!r}; expected words before the report.")
        self.num_start = len(start)
        self.register_buffer("prompt", torch.tensor([*start, *prompt]), persistent=False)
        beyond = range(len(tokenizer), embedding.num_embeddings)
        self.never_written = sorted({*tokenizer.all_special_ids, *beyond} - {self.end})
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self.frozen = sorted(self.state_dict().keys() - trained)
        self.register_state_dict_post_hook(_leave_out_frozen)
        self.register_load_state_dict_pre_hook(_add_frozen)

    def encode(self, visual_tokens: Tensor, mask: Tensor) -> Tensor:
        """Return visual tokens (B, L, D) in the type of the base model, which mixes them itself."""
        return visual_tokens.to(self.llm.get_input_embeddings().weight.dtype)

    def forward(self, encoded: Tensor, mask: Tensor, token_ids: Tensor) -> Tensor:
        """Score whole reports (teacher forcing).

        Args:
            encoded: (B, L, D) of :meth:`encode`.
            mask: (B, L) bool, True where there is a token.
            token_ids: (B, T) from ``<bos>`` on, which stands for the end of the prompt; padding may follow at the end.

        Returns:
            (B, T, W) logits of the token after each given one; token t sees tokens 0..t.
        """
        prefix, seen = self._prefix(encoded, mask)
        report = token_ids[:, 1:]
        embedded = self._embed(torch.where(report < OFFSET, self.end, report - OFFSET))
        seen = torch.cat([seen, report != PAD_ID], dim=1)  # (B, L + P + T - 1)
        logits = self.llm(
            inputs_embeds=torch.cat([prefix, embedded], dim=1),
            attention_mask=seen.long(),
            position_ids=(seen.long().cumsum(dim=1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=token_ids.shape[1],  # of the prompt's last piece on
        ).logits
        never = torch.finfo(logits.dtype).min
        own = logits.new_full((*logits.shape[:2], OFFSET), never)
        own[..., EOS_ID] = logits[..., self.end]  # the end token has this id alone
        is_end = torch.arange(logits.shape[2], device=logits.device) == self.end
        return torch.cat([own, logits.masked_fill(is_end, never)], dim=2)

    @torch.no_grad()
    def search(self, encoded: Tensor, mask: Tensor, options: SearchOptions) -> Decoded:
        """Write a report for each entry: beam search of transformers, greedy with one beam; in evaluation mode."""
        prefix, seen = self._prefix(encoded, mask)
        config = optional_package("transformers", "llm", extra=EXTRA).GenerationConfig(**self._generation(options))
        # Given embeddings alone, it returns what is new: (B, T)
        pieces = self.llm.generate(inputs_embeds=prefix, attention_mask=seen.long(), generation_config=config)
        ends = (pieces == self.end).cumsum(dim=1)
        ids = torch.where(ends == 0, pieces + OFFSET, PAD_ID)
        ids[(pieces == self.end) & (ends == 1)] = EOS_ID
        start = torch.full_like(ids[:, :1], BOS_ID)
        log_probs = self(encoded, mask, torch.cat([start, ids[:, :-1]], dim=1)).float().log_softmax(dim=2)
        of_tokens = log_probs.gather(2, ids.unsqueeze(2)).squeeze(2)  # (B, T)
        return Decoded(ids, of_tokens.masked_fill(ids == PAD_ID, 0.0).sum(dim=1))

    def _generation(self, options: SearchOptions) -> dict[str, Any]:
        """Return the options as transformers calls them."""
        several = {"length_penalty": options.length_penalty, "early_stopping": "never"} if options.beam_size > 1 else {}
        return {
            "do_sample": False,
            "num_beams": options.beam_size,
            "max_new_tokens": options.max_tokens,
            "min_new_tokens": min(options.min_tokens, options.max_tokens - 1),
            "no_repeat_ngram_size": options.no_repeat_ngram,
            "suppress_tokens": self.never_written or None,
            "eos_token_id": self.end,
            "pad_token_id": self.end,
            **several,
        }

    def _embed(self, pieces: Tensor) -> Tensor:
        return self.llm.get_input_embeddings()(pieces)

    def _prefix(self, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return what stands before the report (B, L + P, D), and where it is no padding (B, L + P) bool."""
        given = self._embed(self.prompt).expand(len(encoded), -1, -1)
        prefix = torch.cat([given[:, : self.num_start], encoded, given[:, self.num_start :]], dim=1)
        of_start = mask.new_ones(len(mask), self.num_start)
        of_prompt = mask.new_ones(len(mask), len(self.prompt) - self.num_start)
        return prefix, torch.cat([of_start, mask, of_prompt], dim=1)


def add_adapters(llm: Any, settings: LlmSettings) -> Any:
    """Put LoRA adapters, float32 and of no effect, into the layers named; return the model.

    Raises:
        ConfigError: the package peft is missing, or the model has no layers of these names.
    """
    peft = optional_package("peft", f"{settings.place}.weights", extra=EXTRA)
    layers = {name.rpartition(".")[2] for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    if unknown := sorted(set(settings.lora_targets) - layers):
        raise ConfigError(
            f"{settings.place}.lora_targets: {', '.join(unknown)}: no such layer in {settings.weights}; expected some of "
            f"{', '.join(sorted(layers))}."
        )
    config = peft.LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
    )
    llm = peft.inject_adapter_in_model(config, llm)
    for parameter in llm.parameters():
        if parameter.requires_grad:  # small steps would be lost in 8 bits of mantissa
            parameter.data = parameter.data.float()
    return llm


def _leave_out_frozen(decoder: LlmDecoder, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in decoder.frozen:
        del state[prefix + name]


def _add_frozen(decoder: LlmDecoder, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a strict load find what was left out where it is already."""
    own = {**dict(decoder.named_parameters(remove_duplicate=False)), **dict(decoder.named_buffers(remove_duplicate=False))}
    state.update({prefix + name: own[name] for name in decoder.frozen})

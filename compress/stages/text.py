"""Trains the text encoder: a small CLIPTextModel that learns to read captions and instructions.

Its token features play the part that a frozen language model's hidden states play at full size, so it has to know what
a text means before any denoiser is trained. Every field of a text's meaning is classified from the token features by
attention with one learned query a field, and again from the pooled text. The classifier is thrown away.

Shape suffixes: b batch, t tokens, d width, f fields of meaning.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from compress.config.teacher import TextConfig
from compress.data.scenes.captions import Prompt, sample_t2i
from compress.data.scenes.edits import Instruction, sample_edit
from compress.data.scenes.meaning import FIELDS, labels, vocabulary
from compress.stages.base import StepResult, TrainingStage, fit
from compress.stages.context import Progress, StageContext, StageResult

PAD, BOS, EOS, UNK = "[pad]", "[bos]", "[eos]", "[unk]"
NULL_SHARE = 0.05  # of texts that are empty, as in guidance


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word of the world; begins with [bos], ends with [eos]."""
    words = [PAD, BOS, UNK, EOS, *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, words.index(BOS)), (EOS, words.index(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )


def build_encoder(config: TextConfig, tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """An untrained encoder of the configured size for this tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            projection_dim=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.tokens,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


class Reader(nn.Module):
    """The encoder with its throw-away classifiers."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.queries_fd = nn.Parameter(torch.randn(len(FIELDS), width) * width**-0.5)
        self.from_tokens = nn.ModuleList(nn.Linear(width, len(options)) for options in FIELDS.values())
        self.from_pooled = nn.ModuleList(nn.Linear(width, len(options)) for options in FIELDS.values())

    def forward(self, ids_bt: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Class scores of every field, from the tokens and from the pooled text."""
        output = self.encoder(input_ids=ids_bt)
        tokens_btd = output.last_hidden_state
        attention = torch.softmax(torch.einsum("fd,btd->bft", self.queries_fd, tokens_btd), dim=2)
        read_bfd = torch.einsum("bft,btd->bfd", attention, tokens_btd)
        by_tokens = [head(read_bfd[:, index]) for index, head in enumerate(self.from_tokens)]
        return by_tokens, [head(output.pooler_output) for head in self.from_pooled]


def draw_texts(count: int, rng: np.random.Generator) -> list[Prompt | Instruction | None]:
    """Captions and instructions, half and half, and now and then the empty text."""
    texts: list[Prompt | Instruction | None] = []
    for _ in range(count):
        kind = rng.random()
        if kind < NULL_SHARE:
            texts.append(None)
        elif kind < (1 + NULL_SHARE) / 2:
            texts.append(sample_t2i(rng, held_out=rng.random() < 0.1).prompt)
        else:
            texts.append(sample_edit(rng).instruction)
    return texts


class TextStage(TrainingStage):
    """Cross-entropy of every field of the meaning."""

    def __init__(self, config: TextConfig, progress: Progress) -> None:
        super().__init__(config, progress)
        self.tokenizer = build_tokenizer()
        self.tokens = config.tokens
        self.trained = Reader(build_encoder(config, self.tokenizer))
        self.start_averaging()

    def _batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        texts = draw_texts(count, rng)
        words = ["" if text is None else text.tagged for text in texts]
        batch = self.tokenizer(words, padding="max_length", max_length=self.tokens, return_tensors="pt")
        return batch.input_ids.to(self.device), torch.tensor([labels(text) for text in texts]).to(self.device)

    def step(self, update: int, generator: torch.Generator) -> StepResult:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        ids_bt, labels_bf = self._batch(rng, self.config.batch_size)
        scores = self.trained(ids_bt)
        losses = [
            F.cross_entropy(head.float(), labels_bf[:, index]) for heads in scores for index, head in enumerate(heads)
        ]
        return StepResult(torch.stack(losses).mean())

    @torch.no_grad()
    def accuracy(self, texts: int = 2000) -> tuple[float, float]:
        """Share of held-out texts of which every field is read right: from the tokens, from the pooled text."""
        ids_bt, labels_bf = self._batch(np.random.default_rng([self.config.seed, 3]), texts)
        right = [
            torch.stack([head.argmax(1) == labels_bf[:, index] for index, head in enumerate(heads)]).all(0)
            for heads in self.averaged.eval()(ids_bt)
        ]
        return float(right[0].float().mean()), float(right[1].float().mean())


def run(config: TextConfig, ctx: StageContext) -> StageResult:
    """Trains the text encoder; writes `vae/` (the parent's), `text_encoder/` and `tokenizer/`."""
    from compress.stages.parts import copy_parts

    assert ctx.parent is not None
    torch.manual_seed(config.seed)
    stage = fit(TextStage(config, ctx.progress), ctx, "text encoder")
    encoder = stage.averaged.encoder.eval()
    copy_parts(ctx.parent, ctx.out, ("vae",))
    encoder.save_pretrained(ctx.out / "text_encoder")
    stage.tokenizer.save_pretrained(ctx.out / "tokenizer")
    by_tokens, by_pooled = stage.accuracy()
    return StageResult(
        metrics={
            "texts_read_by_tokens": by_tokens,
            "texts_read_by_pooled": by_pooled,
            "parameters_m": sum(p.numel() for p in encoder.parameters()) / 1e6,
        },
        curves=stage.curves,
        spec=encoder.config.to_diff_dict(),
    )
